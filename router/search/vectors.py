"""Which chunks of a collection have their vector, and the vectors themselves, by the rule that requests go by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from router.domain.catalog import Catalog
from router.domain.values import Policy
from router.pipeline.coverage import Coverage
from router.providers.base import Floats
from router.store.collections import Corpora
from router.store.models import READY, Distinct, Generation
from router.store.vectors import Cache, Row


class Embedded:
    """The cache, as one generation of a collection sees it under the collection's policy; see `Coverage`."""

    def __init__(self, cache: Cache, catalog: Catalog, generation: Generation, policy: Policy) -> None:
        """Raises BadInput where the catalog no longer has the model."""
        self._coverage = Coverage(cache, catalog, long_texts=policy.long_texts)
        self._model = catalog.get(generation.model)
        self._dimensions = generation.dimensions

    def keys(self) -> tuple[int, ...]:
        """The vector keys that may answer."""
        return self._coverage.keys(self._model)

    def rows(self, digests: Sequence[bytes]) -> Mapping[bytes, Row]:
        """Where the vectors of these texts lie, for those that have one."""
        return self._coverage.rows(self._model, digests)

    def read(self, digests: Sequence[bytes]) -> tuple[list[bytes], Floats]:
        """Those of the texts that have a vector, and the vectors, as of `fetch`; damaged ones are removed."""
        return self._coverage.read(self._model, digests, self._dimensions)

    def fetch(self, rows: Sequence[Row]) -> Floats:
        """The vectors of these rows, `(n, dimensions)` float32 of unit length. Raises Damaged."""
        return self._coverage.fetch(self._model, rows, self._dimensions)


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
