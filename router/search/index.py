"""The vector index: collections that were searched lately, whole in memory, so that a query reads no vector from disk.

The index is compared with the databases at every query, because other processes write them too: documents and erased
texts by numbers and counts, new vectors by the newest row, and each hit by the row that its vector came from.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from router.providers.base import Floats
from router.search.vectors import Embedded, worth_embedding
from router.store.collections import Corpora
from router.store.models import Collection, Generation
from router.store.vectors import Cache, Damaged, Row

MOST_BYTES = 1 << 30
"""Of vectors in memory, of all collections together; a quarter of the machine's memory where that is less."""
BLOCK = 2_000


def room() -> int:
    """Bytes of vectors that may be in memory."""
    if not hasattr(os, "sysconf"):
        return MOST_BYTES
    return min(MOST_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A collection's distinct texts that have a vector, in the order of the cache's rows.

    Attributes:
        stamp: what the databases said when it was read; `newest` the newest row of the cache.
        rows, digests, copies: of each vector, its row in the cache, its text, and how often that stands there.
        vectors: `(n, dimensions)` float32 of unit length.
        missing: texts that had no vector.
    """

    stamp: Hashable
    newest: int
    rows: list[Row] = field(repr=False)
    digests: list[bytes] = field(repr=False)
    copies: list[int] = field(repr=False)
    vectors: Floats = field(repr=False)
    missing: list[bytes] = field(repr=False)


class VectorIndex:
    """The vectors of the collections that were searched last; those searched longest ago are evicted first."""

    def __init__(self, corpora: Corpora, cache: Cache) -> None:
        self._cache = cache
        self._corpora = corpora
        self._lock = threading.Lock()
        self._matrices: OrderedDict[int, Matrix] = OrderedDict()
        self._too_large: dict[int, Hashable] = {}

    def forget(self) -> None:
        """Empty the index; never waits for a collection that is being read."""
        self._matrices = OrderedDict()

    def get(self, collection: Collection, generation: Generation, vectors: Embedded) -> Matrix | None:
        """A generation's vectors as they are now, read if need be; None where they are more than `room`."""
        with self._lock:  # two queries at once are not to read it twice
            stamp: Hashable = (*self._corpora.stamp(collection.id), generation.dimensions, *vectors.keys())
            newest = self._cache.database.newest("vectors")
            if self._too_large.get(generation.id) == (stamp, room()):
                return None
            found = self._matrices.pop(generation.id, None)
            more = found is not None and newest != found.newest and vectors.rows(found.missing)
            if found is None or found.stamp != stamp or more:
                found = self._read(collection, generation.dimensions, vectors, stamp, newest)
            if found is None:
                self._too_large[generation.id] = (stamp, room())
            else:
                self._matrices[generation.id] = found
            return found

    def _read(
        self, collection: Collection, dimensions: int, source: Embedded, stamp: Hashable, newest: int
    ) -> Matrix | None:
        found: list[tuple[Row, bytes, int]] = []
        missing: list[bytes] = []
        most = room() // (4 * dimensions)
        for page in self._corpora.chunks.distinct(collection.id):
            digests = worth_embedding(page)
            rows = source.rows(digests)
            found += [(rows[one.digest], one.digest, one.copies) for one in page if one.digest in rows]
            missing += [digest for digest in digests if digest not in rows]
            if len(found) > most:
                return None
        others = self._matrices
        while others and len(found) + sum(m.vectors.size for m in others.values()) // dimensions > most:
            others.popitem(last=False)
        found.sort()  # the vectors are read in the order in which they lie on disk
        rows_ = [row for row, _, _ in found]
        vectors = np.empty((len(found), dimensions), np.float32)
        for start in range(0, len(found), BLOCK):
            try:
                vectors[start : start + BLOCK] = source.fetch(rows_[start : start + BLOCK])
            except Damaged as damage:
                self._cache.remove_now(damage.rows)
                return self._read(collection, dimensions, source, stamp, newest)
        return Matrix(
            stamp=stamp,
            newest=newest,
            rows=rows_,
            digests=[digest for _, digest, _ in found],
            copies=[copies for _, _, copies in found],
            vectors=vectors,
            missing=missing,
        )
