"""Taking texts out for good: their chunks, their vectors in every space, their digests in the ledger's file.

What was spent stays in the ledger; which text it was spent on does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from router import splitting, tokens
from router.domain.catalog import Catalog
from router.domain.errors import RouterError, StoreBusy
from router.domain.values import Role
from router.pipeline.validate import digest
from router.store import batches, jobs, usage
from router.store.collections import Corpora
from router.store.database import Connection, Database
from router.store.vectors import Cache

BLOCK = 2_000
PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was taken out: chunks by (collection, document), cached vectors, and requests whose digests were cleared."""

    chunks: tuple[tuple[str, str], ...]
    vectors: int
    requests: int


class Eraser:
    """Deletes across the three files, the vectors first: what a crash leaves undone can be asked for again."""

    def __init__(self, database: Database, cache: Cache, corpora: Corpora, catalog: Catalog) -> None:
        self._database = database
        self._cache = cache
        self._corpora = corpora
        self._models = catalog.models

    async def text(self, text: str) -> Erased:
        """Erase one text everywhere, with the pieces that an over-long text was embedded in; not a byte stays on disk.

        Raises:
            StoreBusy: it is gone, but a program that reads keeps the old pages in a log; erasing it again ends that.
        """
        key = digest(text)
        keys = [key, *await asyncio.to_thread(self._pieces, text)]
        vectors = await self._cache.erase(keys)
        chunks = await self._corpora.erase([key])

        def forget(conn: Connection) -> int:
            jobs.forget_texts(conn, keys)
            batches.forget_texts(conn, keys)
            return usage.forget_texts(conn, keys)

        requests = await self._database.write(forget, patience_s=PATIENCE_S)
        for database in (self._cache.database, self._corpora.database, self._database):
            if not await asyncio.to_thread(database.empty_log):
                raise StoreBusy(
                    f"The text is erased, but {database.path.name} is being read, and its log keeps the old bytes.",
                    "Erase the text again in a moment.",
                )
        return Erased(chunks=tuple(chunks), vectors=vectors, requests=requests)

    async def documents(self, collection: int, documents: Sequence[str | int]) -> int:
        """Delete the vectors of these documents' texts that nothing else needs. Documents by name or number."""
        wanted = set(documents)
        rows = await asyncio.to_thread(self._corpora.documents, collection)
        numbers = [row.id for row in rows if wanted & {row.name, row.id}]
        return sum([await self.unneeded(collection, number, numbers) for number in numbers])

    async def unneeded(self, collection: int, document: int | None = None, gone: Sequence[int] = ()) -> int:
        """Delete the vectors of a collection's texts that no other needs; of a document's, that only `gone` need."""
        erased = 0
        pages = self._corpora.chunks.distinct(
            collection, states=("adding", "added", "ready"), document=document, page=BLOCK
        )
        while page := await asyncio.to_thread(next, pages, None):
            digests = [one.digest for one in page]
            alone = await asyncio.to_thread(partial(self._corpora.chunks.only_here, collection, digests, but=gone))
            erased += await self._cache.erase(alone)
        return erased

    def _pieces(self, text: str) -> list[bytes]:
        """The digests of what an over-long text is embedded as, by any model and policy."""
        found: set[bytes] = set()
        roles: tuple[Role, ...] = ("document", "query")
        ways = {(m.tokenizer, tokens.room(m, role)) for m in self._models for role in roles}
        for tokenizer, limit in ways:
            if limit is None or tokens.count(tokenizer, [text])[0] <= limit:
                continue
            try:
                pieces = [*splitting.split_evenly(tokenizer, text, limit), tokens.cut(tokenizer, text, limit)]
            except RouterError:  # it could not be split then either
                continue
            found.update(digest(piece) for piece in pieces if piece.strip())
        return sorted(found)
