"""What a collection would cost to embed, by every model, before anything is spent.

It runs over the digests and sizes of the chunks, a page at a time, and never over their texts; so a corpus of any size
is quoted in the same memory. Tokens are exact where the model's tokenizer is at hand, else there are two figures: an
upper bound, and what is likely by the text's kind, which is taken to be its document's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from router.domain.decide import decide
from router.domain.explain import explain
from router.domain.kinds import BYTES_A_TOKEN, STOP_WORDS
from router.domain.money import price_tokens
from router.domain.pricing import rate
from router.domain.ratios import Ratios
from router.domain.values import Ask, BudgetState, Model, Plan, Policy, Refusal, Tokenizer, Verdict
from router.engine import Router
from router.pipeline.coverage import Coverage
from router.pipeline.facts import Missing
from router.store.models import Collection, Distinct, Generation, StoredChunk
from router.tokens import MARKERS, count, count_for

WORDPIECE = 1.2
"""WordPiece tokens of a text for one of cl100k_base: 1.21 for English, where it is the base (see the catalog)."""
QUERY_TOKENS = 20
"""Tokens that a query is taken to have, for the cost of a year."""
SAMPLE = 200
PREVIEW = 6
_ENGLISH_ASCII, _ENGLISH_STOPS = 0.95, 0.12
_LITTLE = 60  # letters


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusCandidate:
    """One model of a quote. Money in nanodollars; None where no price is known.

    Attributes:
        verdict: what the decision made of it; its tokens and costs are of the distinct texts that are not cached.
        now_cost, now_expected: the most that those texts can cost at once, and what they likely will.
        year_cost, year_expected: these and a year of queries.
        warning: what to know before choosing it, or "".
    """

    verdict: Verdict
    now_cost: int | None
    now_expected: int | None
    year_cost: int | None
    year_expected: int | None
    warning: str

    @property
    def model(self) -> Model:
        """The candidate's model."""
        return self.verdict.model


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusQuote:
    """What a collection is, and what it would cost.

    Attributes:
        chunks: of what was confirmed and what waits to be; `near_empty` of them are left out.
        distinct: texts to embed.
        overnight: a local model to begin with at once, and the one to re-embed it all by the batch tier; or None.
        budgets: as they stand before.
        documents: those of the chunks; `new_documents` wait to be confirmed.
    """

    chunks: int
    near_empty: int
    distinct: int
    candidates: tuple[CorpusCandidate, ...]
    overnight: tuple[CorpusCandidate, CorpusCandidate] | None
    budgets: tuple[BudgetState, ...]
    outcome: Plan | Refusal
    decision: str
    documents: int = 0
    new_documents: int = 0
    preview: tuple[StoredChunk, ...] = field(default=(), repr=False)

    @property
    def duplicates(self) -> int:
        """Chunks that repeat another one exactly."""
        return self.chunks - self.near_empty - self.distinct

    @property
    def chosen(self) -> CorpusCandidate | None:
        """The decision's choice; None where it is refused."""
        return next((c for c in self.candidates if c.verdict.chosen), None)


@dataclass(slots=True)
class _Sums:
    chunks: int = 0
    near_empty: int = 0
    distinct: int = 0


@dataclass(slots=True)
class _Missing:
    """What one model does not have yet."""

    texts: int = 0
    tokens: int = 0
    expected: int = 0
    over_long: int = 0


def sizes(page: Sequence[Distinct], tokenizer: Tokenizer, own: Tokenizer) -> list[int]:
    """Tokens of each text by `tokenizer`; `own` is the collection's. For "wordpiece" elsewhere a rough guess."""
    if tokenizer == own:
        return [one.tokens for one in page]
    if tokenizer == "cl100k_base":
        return [one.cl100k for one in page]
    if tokenizer == "bytes":
        return [one.bytes + MARKERS for one in page]
    return [one.bytes // BYTES_A_TOKEN for one in page]  # local models cost nothing: only for the expected time


def likely(
    page: Sequence[Distinct], ratios: Ratios | None, most: NDArray[np.int64], own: Tokenizer
) -> NDArray[np.int64]:
    """Likely tokens of each text: `most`, where the tokenizer is at hand, else by the ratios, of cl100k or of `own`."""
    if ratios is None:
        return most
    base = sizes(page, ratios.base if ratios.base == own else "cl100k_base", own)
    scale = WORDPIECE if ratios.base == "wordpiece" != own else 1.0
    of_kind = np.array([ratios.by_kind[one.kind] for one in page])
    found: NDArray[np.int64] = np.rint(np.array(base) * scale * of_kind + ratios.per_text).astype(np.int64)
    return np.clip(found, 1, most, out=found)


class Census:
    """What there is of some chunks, and what each model misses. Runs in a worker thread."""

    def __init__(self, router: Router, collection: Collection, policy: Policy) -> None:
        self._models = router.catalog.models
        self._coverage = Coverage(router.cache, router.catalog, long_texts=policy.long_texts)
        self._own = collection.tokenizer
        self.sums = _Sums()
        self.models = {m.id: _Missing() for m in router.catalog.models}
        self._ratios = {m.id: router.estimates.ratios(m) for m in router.catalog.models}
        self._before = {m.id: _before(router, m) for m in router.catalog.models}

    @property
    def figures(self) -> NDArray[np.float64]:
        """All that was counted, float64 (3 + 4 · models)."""
        models = [x for one in self.models.values() for x in astuple(one)]
        return np.array([*astuple(self.sums), *models], dtype=np.float64)

    def set(self, figures: NDArray[np.float64]) -> None:
        """Take these for what was counted, rounded; in the order of `figures`."""
        whole = [int(x) for x in np.rint(figures)]
        self.sums = _Sums(*whole[:3])
        self.models = {model: _Missing(*whole[3 + 4 * n : 7 + 4 * n]) for n, model in enumerate(self.models)}

    def missing(self, model: Model) -> Missing:
        """What a model would have to embed; chunk by chunk, so that over-long ones are no reason to shut it out."""
        one = self.models[model.id]
        return Missing(texts=self.sums.distinct, missed=one.texts, tokens=one.tokens, expected=one.expected)

    def add(self, page: Sequence[Distinct]) -> None:
        """Count texts, none of which was counted before."""
        sums = self.sums
        sums.chunks += sum(one.copies for one in page)
        sums.near_empty += sum(one.copies for one in page if one.near_empty)
        page = [one for one in page if not one.near_empty]
        sums.distinct += len(page)
        found = self._coverage.find([one.digest for one in page])
        counts: dict[Tokenizer, NDArray[np.int64]] = {}
        guesses: dict[str, NDArray[np.int64]] = {}
        for model in self._models:
            if model.tokenizer not in counts:
                counts[model.tokenizer] = np.array(sizes(page, model.tokenizer, self._own), dtype=np.int64)
            before, likely_before = self._before[model.id]
            size = counts[model.tokenizer] + before
            rows = found.rows(model)
            absent = np.array([one.digest not in rows for one in page]) if rows else np.ones(len(page), dtype=bool)
            entry = self.models[model.id]
            entry.texts += int(absent.sum())
            entry.tokens += int(size[absent].sum())
            ratios = self._ratios[model.id]
            key = model.tokenizer if ratios is None else str(ratios)
            if key not in guesses:
                guesses[key] = likely(page, ratios, counts[model.tokenizer], self._own)
            entry.expected += int((guesses[key] + likely_before)[absent].sum())
            if model.limits.tokens_per_text:
                entry.over_long += int((size > model.limits.tokens_per_text).sum())


def _before(router: Router, model: Model) -> tuple[int, int]:
    """The most tokens, and the likely ones, of what the model puts before a document."""
    if not model.before("document"):
        return 0, 0
    bare, behind = count(model.tokenizer, [""])[0], count_for(model, "document", [""])
    most = max(0, behind[0] - bare)
    (guess,) = router.estimates.of(model, "document", [""], behind)
    return most, most if guess is None else min(most, guess.tokens)


async def quote_of(
    router: Router,
    collection: Collection,
    census: Census,
    *,
    english: bool,
    pinned: Generation | None,
    model: str | None = None,
    queries_a_month: int = 0,
) -> CorpusQuote:
    """Every candidate, the decision and its words, from one census; the documents are not looked at."""
    policy = await asyncio.to_thread(router.policies.get, collection.policy)
    named = router.catalog.get(model) if model is not None else None
    ask = Ask(
        pinned_space=pinned.space if pinned else named.space if named else None,
        pinned_model=pinned.model if pinned else named.id if named else None,
        dimensions=pinned.dimensions if pinned else None,
        partial=True,
        collection=collection.name,
    )
    facts = await router.build_facts(policy, census.missing, batch=True)
    outcome = decide(ask, policy, facts, router.catalog.scale)
    candidates = tuple(
        _candidate(v, census.models[v.model.id], facts.now.date(), queries_a_month, english) for v in outcome.verdicts
    )
    return CorpusQuote(
        **asdict(census.sums),
        candidates=candidates,
        overnight=None if pinned else _overnight(candidates),
        budgets=facts.budgets,
        outcome=outcome,
        decision=explain(outcome, ask=ask, policy=policy, facts=facts),
    )


def _candidate(verdict: Verdict, missing: _Missing, day: date, queries: int, english: bool) -> CorpusCandidate:
    model = verdict.model
    usd = rate(model, day)
    now_cost, now_expected, queried = (
        None if usd is None else price_tokens(tokens, usd)
        for tokens in (missing.tokens, missing.expected, 12 * queries * QUERY_TOKENS)
    )
    return CorpusCandidate(
        verdict=verdict,
        now_cost=now_cost,
        now_expected=now_expected,
        year_cost=None if now_cost is None else now_cost + (queried or 0),
        year_expected=None if now_expected is None else now_expected + (queried or 0),
        warning=_warning(model, missing, english),
    )


def _warning(model: Model, missing: _Missing, english: bool) -> str:
    words = []
    if model.languages == "en" and not english:
        words.append("The texts do not look English, and this model and its scores are for English only.")
    if missing.over_long:
        words.append(
            f"{missing.over_long:,} chunks are longer than the {model.limits.tokens_per_text:,} tokens that it takes;"
            " each gets the mean of its pieces' vectors."
        )
    return " ".join(words)


def _overnight(candidates: Sequence[CorpusCandidate]) -> tuple[CorpusCandidate, CorpusCandidate] | None:
    """The best local model now, and the best paid one that the batch tier sells, if the policy allows both."""
    by_quality = sorted((c for c in candidates if c.verdict.eligible), key=lambda c: -(c.verdict.quality or 0.0))
    start = next((c for c in by_quality if c.model.local), None)
    then = next((c for c in by_quality if c.verdict.batch_cost is not None), None)
    return None if start is None or then is None else (start, then)


def looks_english(texts: Sequence[str]) -> bool:
    """Whether texts look English: nearly all letters are ASCII, and common English words are about. A hint only."""
    letters = [c for text in texts for c in text[:2_000] if c.isalpha()]
    words = [w for text in texts for w in re.findall(r"[a-z]+", text[:2_000].lower())]
    if len(letters) < _LITTLE:
        return True  # too little to tell
    plain = sum(c.isascii() for c in letters) / len(letters)
    common = sum(w in STOP_WORDS for w in words) / max(1, len(words))
    return plain >= _ENGLISH_ASCII and common >= _ENGLISH_STOPS
