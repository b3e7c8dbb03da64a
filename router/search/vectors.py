"""Which chunks have their vector, and the vectors themselves: read from the cache, as the engine would.

For a generation, a text is embedded if the cache holds it in a kind that the engine would answer with, and only then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from router.domain.catalog import Catalog
from router.domain.values import LongTexts, Model, Policy, Role
from router.pipeline.coverage import Survey
from router.pipeline.validate import Intake
from router.providers.base import Floats
from router.store.collections import Corpora
from router.store.models import READY, Distinct, Generation
from router.store.vectors import Cache, Damaged, Row

_NOTHING = Intake(texts=[], digests=[], sizes=[], places=np.empty(0, np.intp), copies=np.empty(0, np.intp), problems={})


def fitting(cache: Cache, catalog: Catalog, model: Model, long_texts: LongTexts, role: Role = "document") -> list[int]:
    """The kinds of the cache that may answer for a model; one that is of whole texts comes last."""
    survey = Survey(_NOTHING, {}, {}, catalog, role, long_texts)
    fit = [(kind.variant == "whole", n) for n, kind in cache.kinds().items() if survey.fits(kind, model)]
    return [number for _, number in sorted(fit)]


class Embedded:
    """The cache, as one generation of a collection sees it."""

    def __init__(self, cache: Cache, catalog: Catalog, model: Model, dimensions: int, long_texts: LongTexts) -> None:
        self._cache = cache
        self._catalog = catalog
        self._model = model
        self._dimensions = dimensions
        self._long_texts: LongTexts = long_texts

    def keys(self) -> list[int]:
        """The kinds of the cache that may answer."""
        return fitting(self._cache, self._catalog, self._model, self._long_texts)

    def rows(self, digests: Sequence[bytes]) -> dict[bytes, Row]:
        """Where the vectors of these texts lie in the cache, for those that have one."""
        found = self._cache.lookup(digests)
        return {digest: row for number in self.keys() for digest, row in found.get(number, {}).items()}

    def read(self, digests: Sequence[bytes]) -> tuple[list[bytes], Floats]:
        """Those of the texts that have a vector, and the vectors, as of `fetch`; damaged ones are removed on the way.

        Raises:
            StoreError: the file cannot be read.
        """
        while True:
            rows = self.rows(digests)
            try:
                return list(rows), self.fetch(list(rows.values()))
            except Damaged as damage:
                self._cache.remove_now(damage.rows)

    def fetch(self, rows: Sequence[Row]) -> Floats:
        """The vectors of these rows, `(n, dimensions)` float32 of unit length, cut from the full ones.

        Raises:
            Damaged: some are gone, or not what was stored.
        """
        full = self._cache.fetch(rows, self._model.dimensions)
        if self._dimensions == self._model.dimensions:
            return full
        cut = np.ascontiguousarray(full[:, : self._dimensions])
        cut /= np.linalg.norm(cut, axis=1, keepdims=True)
        return cut


def embedded(cache: Cache, catalog: Catalog, generation: Generation, policy: Policy) -> Embedded:
    """The cache as a generation sees it, under its collection's policy.

    Raises:
        BadInput: the catalog no longer has its model.
    """
    return Embedded(cache, catalog, catalog.get(generation.model), generation.dimensions, policy.long_texts)


def worth_embedding(page: Sequence[Distinct]) -> list[bytes]:
    """The digests of those that are not near-empty (more than a rule or a page number)."""
    return [one.digest for one in page if not one.near_empty]


def coverage(corpora: Corpora, collection: int, cache: Embedded) -> tuple[int, int]:
    """(distinct texts, those that have their vector); near-empty ones do not count."""
    total = done = 0
    for page in corpora.chunks.distinct(collection, states=READY):
        digests = worth_embedding(page)
        total += len(digests)
        done += len(cache.rows(digests))
    return total, done


def missing(
    corpora: Corpora, collection: int, cache: Embedded, *, but: Sequence[bytes] | set[bytes] = ()
) -> Iterator[bytes]:
    """The digests that have no vector yet, in their order, without those in `but`; read as it goes."""
    for page in corpora.chunks.distinct(collection, states=READY):
        digests = worth_embedding(page)
        there = cache.rows(digests)
        yield from (d for d in digests if d not in there and d not in but)
