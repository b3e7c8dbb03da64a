"""The one rule of which cached vectors may answer: for digests, a model, a role and what is done with long texts.

Requests, their paid calls, collections, jobs, searches and batches all ask here, so that none serves a vector, or pays
for one, that another would not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from router.domain.catalog import Catalog, quality
from router.domain.values import LongTexts, Model, Role
from router.store.vectors import Cache, Damaged, Floats, Row, VectorKey


def may_stand_in(maker: Model, model: Model, scale: str) -> bool:
    """True where vectors made by `maker` may answer for `model`: its own, or those of a better member of its family."""
    if maker.id == model.id:
        return True
    theirs, ours = quality(maker, scale), quality(model, scale)
    return maker.space == model.space and theirs is not None and ours is not None and theirs >= ours


def resize(vectors: Floats, dimensions: int) -> Floats:
    """Vectors `(n, full)` float32 cut to so many dimensions, `(n, dimensions)`, of unit length again."""
    if vectors.shape[1] == dimensions:
        return vectors
    cut = np.ascontiguousarray(vectors[:, :dimensions])
    cut /= np.linalg.norm(cut, axis=1, keepdims=True)
    return cut


class Coverage:
    """The cache, as texts of one role see it under one rule for over-long texts. Several threads may ask it."""

    def __init__(
        self, cache: Cache, catalog: Catalog, *, role: Role = "document", long_texts: LongTexts = "split"
    ) -> None:
        self.cache = cache
        self.role = role
        self.long_texts = long_texts
        self._scale = catalog.scale
        self._makers = {model.id: model for model in catalog.models}

    def keys(
        self, model: Model, *, whole: bool = False, among: Mapping[int, VectorKey] | None = None
    ) -> tuple[int, ...]:
        """The numbers of the vector keys that may answer for a model: those of uncut texts first, or only they."""
        fit = [
            (key.variant != "whole", number)
            for number, key in (self.cache.keys() if among is None else among).items()
            if (key.variant == "whole" or (key.variant == self.long_texts and not whole)) and self._fits(key, model)
        ]
        return tuple(number for _, number in sorted(fit))

    def _fits(self, key: VectorKey, model: Model) -> bool:
        maker = self._makers.get(key.model)
        return (
            maker is not None
            and (key.space, key.dimensions) == (model.space, model.dimensions)
            and key.role == maker.role_key(self.role)  # else it was made behind a prefix that the maker has no more
            and may_stand_in(maker, model, self._scale)
        )

    def find(self, digests: Sequence[bytes]) -> Found:
        """What there is of these texts for every model, by one look-up. Raises StoreError."""
        found = self.cache.lookup(digests)
        return Found(self, found, self.cache.keys())

    def rows(self, model: Model, digests: Sequence[bytes]) -> Mapping[bytes, Row]:
        """Where the vectors of these texts for a model lie, for those that have one. Raises StoreError."""
        return self.find(digests).rows(model)

    def stored(self, model: Model, digests: Sequence[bytes]) -> set[bytes]:
        """Those of the texts that nothing has to be paid for: their own vector, of the uncut text, is there."""
        found, numbers = self.cache.lookup(digests), self.keys(model, whole=True)
        return {digest for number in numbers for digest in found.get(number, ())}

    def read(self, model: Model, digests: Sequence[bytes], dimensions: int) -> tuple[list[bytes], Floats]:
        """Those of the texts that have a vector, and the vectors, as of `fetch`; damaged ones are removed on the way.

        For worker threads. Raises StoreError.
        """
        while True:
            rows = self.rows(model, digests)
            try:
                return list(rows), self.fetch(model, list(rows.values()), dimensions)
            except Damaged as damage:
                self.cache.remove_now(damage.rows)

    def fetch(self, model: Model, rows: Sequence[Row], dimensions: int) -> Floats:
        """The vectors of these rows, `(n, dimensions)` float32 of unit length, cut from the full ones.

        Raises:
            Damaged: some are gone, or not what was stored.
            StoreError: the file cannot be read.
        """
        return resize(self.cache.fetch(rows, model.dimensions), dimensions)


class Found:
    """What one look-up found, for every model."""

    def __init__(
        self, coverage: Coverage, found: Mapping[int, Mapping[bytes, Row]], keys: Mapping[int, VectorKey]
    ) -> None:
        self._coverage = coverage
        self._found = found
        self._keys = keys
        self._rows: dict[str, Mapping[bytes, Row]] = {}

    def rows(self, model: Model) -> Mapping[bytes, Row]:
        """The rows that may answer for a model, by digest; of a text that has several, that of the uncut text."""
        if model.id not in self._rows:
            parts = [self._found[n] for n in self._coverage.keys(model, among=self._keys) if n in self._found]
            merged = dict(parts[0]) if len(parts) > 1 else parts[0] if parts else {}
            for part in parts[1:]:
                merged = {**part, **merged}
            self._rows[model.id] = merged
        return self._rows[model.id]

    def cut(self, model: Model) -> set[bytes]:
        """Those of `rows` whose vector is that of a cut text."""
        return {digest for digest, row in self.rows(model).items() if self._keys[row[2]].variant == "cut"}

    def counts(self, maker: Model) -> dict[bytes, int]:
        """The tokens of uncut texts that are stored with a model's own vectors, as the model counts them."""
        role = maker.role_key(self._coverage.role)
        return {
            digest: row[1]
            for number, rows in self._found.items()
            if (key := self._keys.get(number)) and (key.model, key.role, key.variant) == (maker.id, role, "whole")
            for digest, row in rows.items()
        }
