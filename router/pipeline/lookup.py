"""Step 2 of a request: what the cache holds of its texts, and how many tokens the others have.

Tokens are counted only where a decision can hang on them: for texts that are missing, and for models that could
serve. For the others the UTF-8 length stands in, an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from router import tokens
from router.domain.catalog import Catalog
from router.domain.kinds import BYTES_A_TOKEN, TextKind, kind_of_text
from router.domain.values import Estimate, Model, Role, Tokenizer
from router.pipeline.coverage import Coverage
from router.pipeline.estimates import Estimates
from router.pipeline.facts import Missing
from router.pipeline.validate import ValidTexts
from router.store.vectors import Floats, Row

OLD_MARKERS = 8
"""Version 1 stored a vector's tokens as a bound where it could not count them: the UTF-8 length and eight more."""


class Lookup:
    """The cache's answer for one request, and the tokens of its texts, each counted once a tokenizer."""

    def __init__(self, valid: ValidTexts, coverage: Coverage, catalog: Catalog, estimates: Estimates) -> None:
        """Look up; reads the cache. Raises StoreError."""
        self.valid = valid
        self.coverage = coverage
        self.found = coverage.find(valid.digests)
        self._estimates = estimates
        self._counts: dict[tuple[Tokenizer, str], dict[bytes, int]] = {}
        self._likely: dict[str, dict[bytes, Estimate]] = {}
        self._kinds: dict[int, TextKind] = {}
        for maker in catalog.models:
            if maker.tokenizer != "bytes":  # what is stored for "bytes" is likely, and no bound
                key = (maker.tokenizer, maker.before(self.role))
                self._counts.setdefault(key, {}).update(self.found.counts(maker))

    @property
    def role(self) -> Role:
        """Of the texts."""
        return self.coverage.role

    def rows(self, model: Model) -> Mapping[bytes, Row]:
        """The cached vectors that may answer for this model, by digest."""
        return self.found.rows(model)

    def fetch(self, model: Model) -> Floats:
        """The full vectors of the texts that `rows` has, `(n, full)` float32, in the order of the distinct texts.

        Raises:
            Damaged: one was erased, or is damaged.
        """
        rows = self.rows(model)
        return self.coverage.fetch(model, [rows[d] for d in self.valid.digests if d in rows], model.dimensions)

    def misses(self, model: Model) -> list[int]:
        """Indices of the distinct texts that the model would have to embed."""
        rows, digests = self.rows(model), self.valid.digests
        return [i for i, d in enumerate(digests) if d not in rows] if rows else list(range(len(digests)))

    def most(self, model: Model, indices: Iterable[int]) -> list[int]:
        """The most tokens of distinct texts for a model, with what it puts before them."""
        return self.count(model.tokenizer, indices, model.before(self.role))

    def count(self, tokenizer: Tokenizer, indices: Iterable[int], before: str = "") -> list[int]:
        """The most tokens of distinct texts behind a prefix: exact, but for "bytes" an upper bound."""
        known = self._counts.setdefault((tokenizer, before), {})
        digests, texts = self.valid.digests, self.valid.texts
        wanted = list(indices)
        new = [i for i in wanted if digests[i] not in known]
        if new:
            counted = tokens.count(tokenizer, [before + texts[i] for i in new])
            known.update(zip((digests[i] for i in new), counted, strict=True))
        return [known[digests[i]] for i in wanted]

    def estimates(self, model: Model, indices: Iterable[int]) -> list[Estimate | None]:
        """The likely tokens of distinct texts for a model; None where its tokenizer is at hand."""
        wanted = list(indices)
        ratios = self._estimates.ratios(model)
        if ratios is None:
            return [None] * len(wanted)
        known = self._likely.setdefault(model.id, {})
        digests, texts = self.valid.digests, self.valid.texts
        new = [i for i in wanted if digests[i] not in known]
        if new:
            bases, most = self.count(ratios.base, new, model.before(self.role)), self.most(model, new)
            for i, base, bound in zip(new, bases, most, strict=True):
                if i not in self._kinds:
                    self._kinds[i] = kind_of_text(texts[i])
                known[digests[i]] = ratios.estimate(self._kinds[i], base, bound)
        return [known[digests[i]] for i in wanted]

    def estimates_of(self, model: Model, pieces: Sequence[str], most: Sequence[int]) -> list[Estimate | None]:
        """The likely tokens of pieces of a text; None where the model's tokenizer is at hand."""
        return self._estimates.of(model, self.role, pieces, most)

    def likely(self, model: Model, indices: Iterable[int]) -> list[int]:
        """Likely tokens of distinct texts for a model: those counted, where its tokenizer is at hand."""
        wanted = list(indices)
        if model.tokenizer != "bytes":
            return self.most(model, wanted)
        return [0 if one is None else one.tokens for one in self.estimates(model, wanted)]

    def tokens(self, model: Model) -> NDArray[np.uint32]:
        """Likely tokens of every distinct text for a model, `(distinct,)`: those stored with its vector, or counted."""
        rows, misses = self.rows(model), self.misses(model)
        found = np.array([rows[d][1] if d in rows else 0 for d in self.valid.digests], dtype=np.uint32)
        if model.tokenizer == "bytes":  # version 1 stored the bound
            sizes = np.array(self.valid.sizes, dtype=np.uint32)
            bound = found == sizes + OLD_MARKERS
            found[bound] = sizes[bound] // BYTES_A_TOKEN
        found[misses] = self.likely(model, misses)
        return found

    def missing(self, model: Model, *, exact: bool, row_by_row: bool) -> Missing:
        """What the model would have to embed.

        `exact`: count its tokens rather than bound them. `row_by_row`: over-long texts are refused one by one (files),
        and do not shut the model out.
        """
        misses = self.misses(model)
        limit = model.limits.tokens_per_text
        over_long = 0
        if misses and exact and (not model.local or self.coverage.long_texts == "refuse"):
            counts = self.most(model, misses)
            total, expected = sum(counts), sum(self.likely(model, misses))
            over_long = sum(c > limit for c in counts) if limit and not row_by_row else 0
        else:
            size = sum(self.valid.sizes[i] for i in misses) + len(model.before(self.role).encode()) * len(misses)
            total, expected = size + tokens.MARKERS * len(misses), size // BYTES_A_TOKEN
            if model.local:
                total = expected  # only for the expected time: a local model costs nothing
        return Missing(
            texts=len(self.valid.digests), missed=len(misses), tokens=total, expected=expected, over_long=over_long
        )
