"""Collections that were searched lately, held in memory whole, so that the next query reads no vector from disk.

What is held is compared with the files at every query, because other programs write them too: documents and erased
texts by numbers and counts, new vectors by the newest row, and each hit by the row that its vector came from.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from router.engine import Router
from router.providers.base import Floats
from router.search.vectors import Embedded, embedded, worth_embedding
from router.store.collections import Corpora
from router.store.models import Collection, Generation
from router.store.vectors import Damaged, Row

MOST_BYTES = 1 << 30
"""Of vectors held at a time, of all collections together; a quarter of the machine's memory where that is less."""
BLOCK = 2_000


def room() -> int:
    """Bytes of vectors that may be held."""
    if not hasattr(os, "sysconf"):
        return MOST_BYTES
    return min(MOST_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A collection's distinct texts that have a vector, in the order of the cache's rows.

    Attributes:
        stamp: what the files said when it was read; `newest` the newest row of the cache.
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


class Held:
    """The matrices of the collections that were searched last; the one that was searched longest ago goes first."""

    def __init__(self, router: Router, corpora: Corpora) -> None:
        self._router = router
        self._corpora = corpora
        self._lock = threading.Lock()
        self._matrices: OrderedDict[int, Matrix] = OrderedDict()
        self._too_large: dict[int, Hashable] = {}

    def forget(self) -> None:
        """Let go of all; never waits for one that is being read."""
        self._matrices = OrderedDict()

    def get(self, collection: Collection, generation: Generation) -> Matrix | None:
        """A generation's vectors as they are now, read if need be; None where they are more than may be held."""
        cache = embedded(self._router, generation, collection.policy)
        with self._lock:  # two queries at once are not to read it twice
            stamp, newest = self._stamp(collection, generation, cache), self._newest()
            if self._too_large.get(generation.id) == (stamp, room()):
                return None
            found = self._matrices.pop(generation.id, None)
            more = found is not None and newest != found.newest and cache.rows(found.missing)
            if found is None or found.stamp != stamp or more:
                found = self._read(collection, generation.dimensions, cache, stamp, newest)
            if found is None:
                self._too_large[generation.id] = (stamp, room())
            else:
                self._matrices[generation.id] = found
            return found

    def _stamp(self, collection: Collection, generation: Generation, cache: Embedded) -> Hashable:
        """Changes with the texts that are searched, and with the vectors that may answer for them."""
        documents = self._corpora.database.reader().execute(
            "SELECT count(*), max(id), sum(id), sum(chunks), sum(id * chunks) FROM documents"
            " WHERE collection = ? AND state = 'ready'",
            (collection.id,),
        )
        return (*documents.fetchone(), generation.dimensions, *cache.keys())

    def _newest(self) -> int:
        """Rows are numbered upwards, and no number is given twice."""
        conn = self._router.cache.database.reader()
        row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'vectors'").fetchone()
        return 0 if row is None else int(row[0])

    def _read(
        self, collection: Collection, dimensions: int, cache: Embedded, stamp: Hashable, newest: int
    ) -> Matrix | None:
        found: list[tuple[Row, bytes, int]] = []
        missing: list[bytes] = []
        most = room() // (4 * dimensions)
        for page in self._corpora.chunks.distinct(collection.id):
            digests = worth_embedding(page)
            rows = cache.rows(digests)
            found += [(rows[one.digest], one.digest, one.copies) for one in page if one.digest in rows]
            missing += [digest for digest in digests if digest not in rows]
            if len(found) > most:
                return None
        held = self._matrices
        while held and len(found) + sum(m.vectors.size for m in held.values()) // dimensions > most:
            held.popitem(last=False)
        found.sort()  # the vectors are read in the order in which they lie on disk
        rows_ = [row for row, _, _ in found]
        vectors = np.empty((len(found), dimensions), np.float32)
        for start in range(0, len(found), BLOCK):
            try:
                vectors[start : start + BLOCK] = cache.fetch(rows_[start : start + BLOCK])
            except Damaged as damage:
                self._router.cache.remove_now(damage.rows)
                return self._read(collection, dimensions, cache, stamp, newest)
        return Matrix(
            stamp=stamp,
            newest=newest,
            rows=rows_,
            digests=[digest for _, digest, _ in found],
            copies=[copies for _, _, copies in found],
            vectors=vectors,
            missing=missing,
        )
