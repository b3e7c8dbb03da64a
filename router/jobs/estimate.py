"""What files that are to be read would cost, from a sample: at once, and marked so, until the exact quote is there.

The decision and the prices are those of a quote (`quote_of`), of sums that are estimated instead of counted. Only the
files are estimated, not what the collection has already. Nothing is spent, and nothing is written.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.domain.kinds import TextKind
from router.domain.money import show
from router.domain.values import Plan, Refusal
from router.engine import Router
from router.ingest.extract import FileVerdict
from router.ingest.files import Ingest, Reading, size_of
from router.ingest.sample import NotSampled, Sampler, Stratum
from router.jobs.quote import Census, CorpusCandidate, CorpusQuote, looks_english, quote_of
from router.store.collections import Corpora, kind_of_chunks
from router.store.models import Collection, Distinct, Generation, NewChunk

LEAST_BYTES = 4 << 20
"""Less is read in about the time of an estimate."""
SECONDS = 2.0
PATIENCE_S = 0.4
LEAST_PLACES = 5
"""Of fewer places the spread between them tells too little for an interval."""
_Z = 1.959964
"""0.975 quantile of the normal distribution."""
_ENGLISH_TEXTS = 200
Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is likely, and a 95 % interval of it; None where the sample gives none."""

    low: int | None
    likely: int
    high: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedCandidate:
    """A candidate as a quote would have it, by the likely sums and by both ends of their intervals."""

    low: CorpusCandidate | None
    likely: CorpusCandidate
    high: CorpusCandidate | None

    def range(self, name: str) -> Range | None:
        """The range of one of the costs of `CorpusCandidate`, as `now_expected`, in nanodollars; None: no price."""
        low, likely, high = (None if c is None else getattr(c, name) for c in (self.low, self.likely, self.high))
        return None if likely is None else Range(low=low, likely=likely, high=high)

    @property
    def tokens(self) -> Range:
        """Likely tokens of what is not cached."""
        low, high = (None if c is None else c.verdict.expected_tokens for c in (self.low, self.high))
        return Range(low=low, likely=self.likely.verdict.expected_tokens, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusEstimate:
    """What files would likely cost: the quotes of the likely sums, and of both ends of their intervals, if any.

    `share` of the files' bytes was looked at; `notes` are sentences on what the sample cannot tell.
    """

    share: float
    low: CorpusQuote | None
    likely: CorpusQuote
    high: CorpusQuote | None
    notes: tuple[str, ...]

    @property
    def texts(self) -> Range:
        """Distinct ones to embed."""
        low, high = (None if quote is None else quote.distinct for quote in (self.low, self.high))
        return Range(low=low, likely=self.likely.distinct, high=high)

    @property
    def candidates(self) -> tuple[EstimatedCandidate, ...]:
        """Each model of the likely quote."""
        low, high = ({c.model.id: c for c in q.candidates} if q else {} for q in (self.low, self.high))
        return tuple(
            EstimatedCandidate(low=low.get(c.model.id), likely=c, high=high.get(c.model.id))
            for c in self.likely.candidates
        )

    @property
    def chosen(self) -> EstimatedCandidate | None:
        """The choice by the likely sums; None where it is refused."""
        return next((c for c in self.candidates if c.likely.verdict.chosen), None)

    @property
    def words(self) -> str:
        """All of it in a sentence or two, `estimate, from 1.3 % of the text: 48,120 to 52,900 texts, likely $1.02 ...`,
        to be followed by what becomes of it.
        """
        texts = (
            f"about {self.texts.likely:,} texts"
            if self.texts.low is None or self.texts.high is None
            else f"{self.texts.low:,} to {self.texts.high:,} texts"
        )
        share = f"{100 * self.share:.1f}" if self.share < 0.1 else f"{100 * self.share:.0f}"
        return f"estimate, from {share} % of the text: {texts}, {self._price}"

    @property
    def _price(self) -> str:
        if self.chosen is None:
            return "which the policy would not embed"
        name = self.chosen.likely.model.name
        cost = self.chosen.range("now_expected")
        if cost is None:
            return f"with {name}"
        if not cost.likely and not cost.high:
            return f"free with {name}"
        between = "" if cost.low is None or cost.high is None else f" ({show(cost.low)} to {show(cost.high)})"
        return f"likely {show(cost.likely)}{between} with {name}"


async def estimate(
    router: Router,
    corpora: Corpora,
    collection: Collection,
    reading: Reading,
    files: Sequence[FileVerdict],
    closing: Callable[[], bool],
) -> CorpusEstimate | str | None:
    """What these files would cost, after some two seconds whatever their size, or a sentence on why it cannot be told.

    None where they are so small that the exact quote is there as soon. `closing` ends it early.
    """
    if sum(size_of(file) for file in files) < LEAST_BYTES:
        return None
    samplers: list[Sampler] = []
    end = time.monotonic() + SECONDS

    def look() -> None:
        ingest = Ingest(corpora, collection, reading, run=_never)
        try:
            samplers.append(Sampler(files, ingest, reading))
            samplers[0].run(lambda: closing() or time.monotonic() > end)
        finally:
            ingest.close()

    looking = asyncio.get_running_loop().run_in_executor(None, look)
    # Nobody waits for a document that takes longer: it ends by its own limits, and what came before it is enough.
    done, _ = await asyncio.wait({looking}, timeout=SECONDS + PATIENCE_S)
    try:
        if done:
            looking.result()
        else:
            looking.add_done_callback(lambda late: late.exception())
    except NotSampled as error:
        return f"No estimate: {error}."
    except OSError as error:  # a file has gone; the reading reports it
        return f"No estimate: {error.strerror}."
    kinds = [replace(kind, looked=list(kind.looked)) for sampler in samplers for kind in sampler.kinds]
    if not kinds or not all(sum(place.size for place in kind.looked) for kind in kinds):
        missed = _names(kind for kind in kinds if not kind.looked) or "these files"
        return f"No estimate: of {missed} nothing could be looked at in time."
    if not any(place.chunks for kind in kinds for place in kind.looked):
        return "No estimate: the sample holds no text."
    share = min(1.0, samplers[0].bytes / samplers[0].total)
    policy = router.policies.get(collection.policy)
    census = await asyncio.to_thread(Census, router, collection, policy)
    pinned = corpora.active(collection.id)
    return await _estimate(router, collection, kinds, census, pinned, share)


def _never(write: object) -> None:
    raise AssertionError("an estimate writes nothing")


def _names(kinds: Iterable[Stratum]) -> str:
    return ", ".join(sorted({kind.name for kind in kinds}))


async def _estimate(
    router: Router,
    collection: Collection,
    kinds: Sequence[Stratum],
    census: Census,
    pinned: Generation | None,
    share: float,
) -> CorpusEstimate:
    """The estimate from what a sampler looked at: some of every kind. `census` is used up."""
    counted, english = await asyncio.to_thread(count, census, kinds)
    likely, half = total(kinds, counted)
    quotes = []
    for figures in [likely] if half is None else [likely, np.maximum(likely - half, 0.0), likely + half]:
        census.set(figures)
        quotes.append(await quote_of(router, collection, census, english=english, pinned=pinned))
    first, low, high = quotes if half is not None else (quotes[0], None, None)
    return CorpusEstimate(
        share=share,
        low=low,
        likely=first,
        high=high,
        notes=_notes(kinds, interval=half is not None, other=_otherwise(first.outcome, quotes[-1].outcome)),
    )


def count(census: Census, kinds: Sequence[Stratum]) -> tuple[list[Figures], bool]:
    """What each place has, (places, figures) for each kind, for the whole of the place; and whether it looks English.

    A text that was seen at a place before is a copy. The kind of text is that of its file, as in a quote.
    """
    found: dict[Path, list[NewChunk]] = {}
    for kind in kinds:
        for place in kind.looked:
            found.setdefault(place.path, []).extend(place.chunks)
    text_kinds = {path: kind_of_chunks(chunks) for path, chunks in found.items()}
    some = [chunk.text for chunks in found.values() for chunk in chunks]
    seen: set[bytes] = set()
    counted = []
    for kind in kinds:
        rows = np.zeros((len(kind.looked), len(census.figures)))
        for at, place in enumerate(kind.looked):
            census.set(np.zeros(rows.shape[1]))
            _add(census, place.chunks, text_kinds[place.path] or "english", seen)
            rows[at] = census.figures / place.share
        counted.append(rows)
    return counted, looks_english(some[:: len(some) // _ENGLISH_TEXTS + 1])


def _add(census: Census, chunks: Sequence[NewChunk], kind: TextKind, seen: set[bytes]) -> None:
    copies = Counter(chunk.digest for chunk in chunks)
    once = {chunk.digest: chunk for chunk in chunks}
    page = []
    for digest, chunk in once.items():
        if digest in seen:
            census.sums.chunks += copies[digest]
            census.sums.near_empty += copies[digest] * chunk.near_empty
        else:
            page.append(
                Distinct(
                    digest=digest, copies=copies[digest], near_empty=chunk.near_empty, bytes=chunk.bytes,
                    cl100k=chunk.cl100k, tokens=chunk.tokens, kind=kind,
                )
            )  # fmt: skip
    seen.update(once)
    if page:
        census.add(page)


def total(kinds: Sequence[Stratum], counted: Sequence[Figures]) -> tuple[Figures, Figures | None]:
    """The likely sums over all places, and half the width of their 95 % intervals; None where there can be none.

    Of each kind the ratio estimator of cluster sampling: with n of N places drawn, sizes x (X in all) and figures y,
    R = sum(y) / sum(x), the sum is X R, and its variance (X / mean(x))^2 (1 - n/N) / n * sum((y - R x)^2) / (n - 1)
    (W. G. Cochran, Sampling Techniques, 3rd ed. 1977, sections 6.4 and 9A.1). Where only a part of a place was looked
    at, n/N is taken to be 0: the variance of what the places would give, were they drawn with replacement (there,
    section 11.9). Kinds are strata: their sums and variances add up. Student's t has the fewest degrees of freedom of
    any of them.
    """
    sums, variance = np.zeros(counted[0].shape[1]), np.zeros(counted[0].shape[1])
    freedom = math.inf
    known = True
    for kind, y in zip(kinds, counted, strict=True):
        x = np.array([place.size for place in kind.looked])
        n = len(x)
        ratio = y.sum(axis=0) / x.sum()
        sums += kind.size * ratio
        whole = all(place.share == 1 for place in kind.looked)
        if whole and n == kind.places:
            continue
        if n < LEAST_PLACES:
            known = False
            continue
        spread = ((y - np.outer(x, ratio)) ** 2).sum(axis=0) / (n - 1)
        variance += (kind.size / x.mean()) ** 2 * (1 - n / kind.places if whole else 1) / n * spread
        freedom = min(freedom, n - 1)
    return sums, students_t(freedom) * np.sqrt(variance) if known else None


def students_t(freedom: float) -> float:
    """The 0.975 quantile of Student's t, to 0.5 % from 4 degrees of freedom on.

    By the expansion 26.7.5 of M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 1964.
    """
    z, v = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def _otherwise(likely: Plan | Refusal, high: Plan | Refusal) -> str:
    """What the decision would be at the upper end, where it is another one."""
    if isinstance(high, Refusal):
        return "" if isinstance(likely, Refusal) else f"At the upper end it would be refused: {high.reason}"
    if isinstance(likely, Refusal) or likely.model.id == high.model.id:
        return ""
    return f"At the upper end it would be {high.model.name}."


def _notes(kinds: Sequence[Stratum], *, interval: bool, other: str) -> tuple[str, ...]:
    parts = [kind for kind in kinds if any(place.share < 1 for place in kind.looked)]
    few = [k for k in kinds if len(k.looked) < LEAST_PLACES and (k in parts or len(k.looked) < k.places)]
    notes = ["Repeats of a text are seen only within the sample: with many of them it costs less."]
    if parts:
        notes.append(f"Of {_names(parts)} the first rows were looked at.")
    if not interval:
        notes.append(f"There is no interval: of {_names(few)} too few places were looked at.")
    return tuple(filter(None, [*notes, other]))
