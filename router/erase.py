"""Taking texts out for good: their chunks, their vectors in every space, their digests in the books.

What was spent stays in the books; which text it was spent on does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from router import splitting, tokens
from router.batches.results import RECORD
from router.domain.errors import RouterError, StoreBusy
from router.domain.values import Role
from router.engine import Router
from router.pipeline.validate import digest
from router.store.collections import Corpora
from router.store.database import Connection, Database, connect

BLOCK = 2_000
PATIENCE_S = 600.0
LOG_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was taken out: chunks by (collection, document), cached vectors, and requests whose digests were cleared."""

    chunks: tuple[tuple[str, str], ...]
    vectors: int
    requests: int


class Eraser:
    """Deletes across the three files, the vectors first: what a crash leaves undone can be asked for again."""

    def __init__(self, router: Router, corpora: Corpora) -> None:
        self._router = router
        self._corpora = corpora

    async def text(self, text: str) -> Erased:
        """Erase one text everywhere, with the pieces that an over-long text was embedded in; not a byte stays on disk.

        Raises:
            StoreBusy: it is gone, but a program that reads keeps the old pages in a log; erasing it again ends that.
        """
        key = digest(text)
        pieces = await asyncio.to_thread(self._pieces, text)
        vectors = await self._router.cache.erase([key, *pieces])
        chunks = await self._corpora.erase([key])
        requests = await self._forget([key, *pieces])
        for database in (self._router.cache.database, self._corpora.database, self._router.database):
            await asyncio.to_thread(_empty_log, database)
        return Erased(chunks=tuple(chunks), vectors=vectors, requests=requests)

    async def documents(self, collection: int, documents: Sequence[str | int]) -> int:
        """Delete the vectors of these documents' texts that nothing else needs. Documents by name or number."""
        wanted = set(documents)
        numbers = [row.id for row in self._corpora.documents(collection) if wanted & {row.name, row.id}]
        erased = 0
        for number in numbers:
            pages = self._pages(collection, number)
            while page := await asyncio.to_thread(next, pages, None):
                alone = self._corpora.chunks.only_here(collection, page, but=numbers)
                erased += await self._router.cache.erase(alone)
        return erased

    async def collection(self, collection: int) -> int:
        """Delete the vectors of a collection's texts that no other collection needs."""
        erased = 0
        pages = self._pages(collection, None)
        while page := await asyncio.to_thread(next, pages, None):
            erased += await self._router.cache.erase(self._corpora.chunks.only_here(collection, page))
        return erased

    def _pages(self, collection: int, document: int | None) -> Iterator[list[bytes]]:
        states = ("adding", "added", "ready")
        for page in self._corpora.chunks.distinct(collection, states=states, document=document, page=BLOCK):
            yield [one.digest for one in page]

    def _pieces(self, text: str) -> list[bytes]:
        """The digests of what an over-long text is embedded as, by any model and policy."""
        found: set[bytes] = set()
        roles: tuple[Role, ...] = ("document", "query")
        ways = {(m.tokenizer, tokens.room(m, role)) for m in self._router.catalog.models for role in roles}
        for tokenizer, limit in ways:
            if limit is None or tokens.count(tokenizer, [text])[0] <= limit:
                continue
            try:
                pieces = [*splitting.split_evenly(tokenizer, text, limit), tokens.cut(tokenizer, text, limit)]
            except RouterError:  # it could not be split then either
                continue
            found.update(digest(piece) for piece in pieces if piece.strip())
        return sorted(found)

    async def _forget(self, digests: Sequence[bytes]) -> int:
        """Clear digests from what is kept for replay, and from batches and jobs that have ended."""

        def write(conn: Connection) -> int:
            requests = 0
            for key in digests:
                rows = conn.execute(
                    "SELECT request, digests, tokens, counts FROM replay WHERE instr(digests, ?) > 0", (key,)
                ).fetchall()
                for request, *kept in rows:
                    conn.execute(
                        "UPDATE replay SET digests = ?, tokens = ?, counts = ? WHERE request = ?",
                        (*_without(key, *kept), request),
                    )
                    requests += 1
                conn.execute("DELETE FROM failures WHERE digest = ?", (key,))
                ended = conn.execute(
                    "SELECT id, digests FROM batches WHERE instr(digests, ?) > 0"
                    " AND state IN ('settled', 'withdrawn', 'closed')",
                    (key,),
                ).fetchall()
                for batch, packed in ended:
                    records = np.frombuffer(packed, dtype=RECORD).copy()
                    left = records[[one.tobytes() != key for one in records["digest"]]]
                    conn.execute("UPDATE batches SET digests = ? WHERE id = ?", (left.tobytes(), batch))
            return requests

        return await self._router.database.write(write, patience_s=PATIENCE_S)


def _empty_log(database: Database) -> None:
    """Write a file's log into it and cut it to nothing: deleted bytes are in its older pages."""
    conn = connect(database.path)
    try:
        for _ in range(LOG_TRIES):
            (busy, *_) = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # waits a second for the others
            if not busy:
                return
    finally:
        conn.close()
    raise StoreBusy(
        f"The text is erased, but {database.path.name} is being read, and its log keeps the old bytes.",
        "Erase the text again in a moment.",
    )


def _without(key: bytes, digests: bytes, counts: bytes, copies: bytes) -> tuple[bytes, bytes, bytes]:
    """The three columns of a replay row without one text: 32 bytes, and twice 4 bytes, a text."""
    keep = [at for at in range(len(digests) // 32) if digests[32 * at : 32 * at + 32] != key]
    return (
        b"".join(digests[32 * at : 32 * at + 32] for at in keep),
        b"".join(counts[4 * at : 4 * at + 4] for at in keep),
        b"".join(copies[4 * at : 4 * at + 4] for at in keep),
    )
