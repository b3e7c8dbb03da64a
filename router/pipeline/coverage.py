"""Step 2 of a request: what the cache holds in every space, and what the misses of each model would take.

Tokens are counted only where a decision can hang on them: for texts that are missing, and for models that could
serve. For the others the UTF-8 length stands in, an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from router import tokens
from router.domain.catalog import Catalog, quality
from router.domain.kinds import BYTES_A_TOKEN, TextKind, kind_of_text
from router.domain.pricing import price_on
from router.domain.values import CandidateFacts, Estimate, LongTexts, Model, Role, Tokenizer
from router.pipeline.estimates import Estimates
from router.pipeline.validate import Intake
from router.store.vectors import Cache, Floats, Kind, Row

OLD_MARKERS = 8
"""Version 1 stored a vector's tokens as a bound where it could not count them: the UTF-8 length and eight more."""
API_SECONDS = 0.5
"""Expected time of a paid call before any was measured."""


class Survey:
    """The cache's answer for one request, seen from every model."""

    def __init__(
        self,
        intake: Intake,
        found: Mapping[int, Mapping[bytes, Row]],
        kinds: Mapping[int, Kind],
        catalog: Catalog,
        role: Role,
        long_texts: LongTexts,
        estimates: Estimates | None = None,
    ) -> None:
        """`estimates` may be missing where nothing is counted."""
        self.intake = intake
        self._estimates = estimates
        self._catalog = catalog
        self.role = role
        self._long_texts = long_texts
        self._found = [(kinds[number], rows) for number, rows in found.items() if number in kinds]
        self._counts: dict[tuple[Tokenizer, str], dict[bytes, int]] = {}
        self._guesses: dict[str, dict[bytes, Estimate]] = {}
        self._kinds: dict[int, TextKind] = {}
        self._rows: dict[str, Mapping[bytes, Row]] = {}
        self._makers = {m.id: m for m in catalog.models}
        for kind, rows in self._found:
            maker = self._makers.get(kind.model)
            if maker is None or maker.tokenizer == "bytes" or kind.variant != "whole":  # "bytes": likely, and no bound
                continue
            if kind.role == maker.role_key(role):
                known = self._counts.setdefault((maker.tokenizer, maker.before(role)), {})
                known.update({d: row[1] for d, row in rows.items()})

    def rows(self, model: Model) -> Mapping[bytes, Row]:
        """The cached vectors that may answer for this model, by digest."""
        if model.id not in self._rows:
            fit = [rows for kind, rows in self._found if self.fits(kind, model)]
            merged: dict[bytes, Row] = {}
            for rows in fit:
                merged = {**rows, **merged} if merged else dict(rows)
            self._rows[model.id] = merged
        return self._rows[model.id]

    def fetch(self, cache: Cache, model: Model) -> Floats:
        """The full vectors of the texts that `rows` has, `(n, full)` float32, in the order of the distinct texts.

        Raises:
            LookupError: one was erased, or is damaged (`Damaged`).
        """
        rows = self.rows(model)
        return cache.fetch([rows[d] for d in self.intake.digests if d in rows], model.dimensions)

    def cut(self, model: Model) -> set[bytes]:
        """Those of `rows` whose vector is that of a cut text."""
        whole = {d for kind, rows in self._found if kind.variant == "whole" and self.fits(kind, model) for d in rows}
        return {
            d for kind, rows in self._found if kind.variant == "cut" and self.fits(kind, model) for d in rows
        } - whole

    def fits(self, kind: Kind, model: Model) -> bool:
        """True where vectors of this kind may answer for this model."""
        if kind.space != model.space or kind.dimensions != model.dimensions:
            return False
        maker = self._makers.get(kind.model)
        if maker is None or kind.role != maker.role_key(self.role):  # made with a prefix that it has no more
            return False
        if kind.variant not in ("whole", self._long_texts):
            return False
        return maker is model or maker.id == model.id or self._better(maker, model)

    def _better(self, other: Model, model: Model) -> bool:
        """A better member of the family may answer for a lesser one, never the other way."""
        scale = self._catalog.scale
        theirs, ours = quality(other, scale), quality(model, scale)
        return theirs is not None and ours is not None and theirs >= ours

    def misses(self, model: Model) -> list[int]:
        """Indices of the distinct texts that the model would have to embed."""
        rows = self.rows(model)
        digests = self.intake.digests
        if not rows:
            return list(range(len(digests)))
        return [i for i, d in enumerate(digests) if d not in rows]

    def most(self, model: Model, indices: Iterable[int]) -> list[int]:
        """The most tokens of distinct texts for a model, with what it puts before them."""
        return self.count(model.tokenizer, indices, model.before(self.role))

    def count(self, tokenizer: Tokenizer, indices: Iterable[int], before: str = "") -> list[int]:
        """The most tokens of distinct texts behind a prefix: exact, but for "bytes" an upper bound; counted once."""
        known = self._counts.setdefault((tokenizer, before), {})
        digests, texts = self.intake.digests, self.intake.texts
        wanted = list(indices)
        new = [i for i in wanted if digests[i] not in known]
        if new:
            counted = tokens.count(tokenizer, [before + texts[i] for i in new])
            known.update(zip((digests[i] for i in new), counted, strict=True))
        return [known[digests[i]] for i in wanted]

    def estimates(self, model: Model, indices: Iterable[int]) -> list[Estimate | None]:
        """The likely tokens of distinct texts for a model, reckoned once; None where its tokenizer is at hand."""
        wanted = list(indices)
        ratios = None if self._estimates is None else self._estimates.ratios(model)
        if ratios is None:
            return [None] * len(wanted)
        known = self._guesses.setdefault(model.id, {})
        digests, texts = self.intake.digests, self.intake.texts
        new = [i for i in wanted if digests[i] not in known]
        if new:
            bases, most = self.count(ratios.base, new, model.before(self.role)), self.most(model, new)
            for i, base, bound in zip(new, bases, most, strict=True):
                if i not in self._kinds:
                    self._kinds[i] = kind_of_text(texts[i])
                known[digests[i]] = ratios.estimate(self._kinds[i], base, bound)
        return [known[digests[i]] for i in wanted]

    def guess(self, model: Model, pieces: Sequence[str], most: Sequence[int]) -> list[Estimate | None]:
        """The likely tokens of pieces of a text; None where the model's tokenizer is at hand."""
        return [None] * len(pieces) if self._estimates is None else self._estimates.of(model, self.role, pieces, most)

    def likely(self, model: Model, indices: Iterable[int]) -> list[int]:
        """Likely tokens of distinct texts for a model: those counted, where its tokenizer is at hand."""
        wanted = list(indices)
        if model.tokenizer != "bytes" or self._estimates is None:
            return self.most(model, wanted)
        return [0 if one is None else one.tokens for one in self.estimates(model, wanted)]

    def mend(self, model: Model, tokens: NDArray[np.uint32]) -> None:
        """Put likely counts in the place of the bounds that version 1 stored with the vectors of the distinct texts."""
        if model.tokenizer == "bytes":
            sizes = np.array(self.intake.sizes, dtype=np.uint32)
            old = tokens == sizes + OLD_MARKERS
            tokens[old] = sizes[old] // BYTES_A_TOKEN

    def candidate(
        self,
        model: Model,
        *,
        now: datetime,
        exact: bool,
        configured: bool,
        unhealthy: str,
        width: Callable[[], int],
        row_by_row: bool,
        batch: bool = False,
    ) -> CandidateFacts:
        """What a decision may know of one model.

        `exact`: count its misses' tokens rather than bound them. `row_by_row`: over-long texts are refused one by
        one (files), and do not shut the model out. `batch`: nobody waits, so the batch tier may answer (jobs).
        """
        misses = self.misses(model)
        limit = model.limits.tokens_per_text
        over_long = 0
        if not misses:
            total = expected = 0
        elif exact and (not model.local or self._long_texts == "refuse"):
            counts = self.most(model, misses)
            total = sum(counts)
            expected = sum(self.likely(model, misses))
            over_long = sum(c > limit for c in counts) if limit and not row_by_row else 0
        else:
            size = sum(self.intake.sizes[i] for i in misses) + len(model.before(self.role).encode()) * len(misses)
            total, expected = size + tokens.MARKERS * len(misses), size // BYTES_A_TOKEN
            if model.local:
                total = expected  # only for the expected time: a local model costs nothing
        price = price_on(model, now.date())
        calls = -(-len(misses) // model.limits.texts_per_call)
        seconds = expected / model.tokens_per_second
        if not model.local and misses:
            seconds = max(seconds, API_SECONDS * -(-calls // width()))
        return CandidateFacts(
            model=model,
            texts=len(self.intake.digests),
            cached=len(self.intake.digests) - len(misses),
            tokens=total,
            expected_tokens=min(total, expected),
            over_long=over_long,
            seconds=seconds,
            configured=configured,
            unhealthy=unhealthy,
            price=None if price is None else price.now,
            batch_price=price.batch if batch and price is not None else None,
        )
