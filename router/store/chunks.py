"""Reading chunks: by pages of distinct digests in their order, so that a corpus of any size takes the same memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.store.database import Database, in_parts, marks
from router.store.models import READY, Distinct, StoredChunk, to_chunk

PAGE = 2_000
"""Digests read at once."""
_CHUNK = (
    "SELECT c.id, d.name, c.label, c.position, c.digest, c.near_empty, c.tokens, c.text FROM chunks c"
    " JOIN documents d ON d.id = c.document"
)
"""The fields of a `StoredChunk`."""


class Chunks:
    """The chunks of all collections."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def distinct(
        self, collection: int, *, states: Sequence[str] = READY, document: int | None = None, page: int = PAGE
    ) -> Iterator[list[Distinct]]:
        """The distinct texts of a collection (or of one document) in pages, in the order of their digests."""
        after = b""
        while found := self.after(collection, after, page, states=states, document=document):
            yield found
            after = found[-1].digest

    def after(
        self, collection: int, digest: bytes, limit: int, *, states: Sequence[str] = READY, document: int | None = None
    ) -> list[Distinct]:
        """The next distinct texts whose digests come after this one."""
        one = "" if document is None else " AND c.document = ?"
        rows = self.database.reader().execute(
            "SELECT c.digest, count(*), c.near_empty, c.bytes, c.cl100k, c.tokens, max(d.text_kind) FROM chunks c"
            " INDEXED BY chunks_by_digest CROSS JOIN documents d ON d.id = c.document"
            f" WHERE c.collection = ? AND c.digest > ? AND d.state IN ({marks(states)}){one}"
            " GROUP BY c.digest ORDER BY c.digest LIMIT ?",
            (collection, digest, *states, *(() if document is None else (document,)), limit),
        )
        return [
            Distinct(digest, copies, bool(empty), size, cl100k, tokens, kind or "english")
            for digest, copies, empty, size, cl100k, tokens, kind in rows
        ]

    def texts(
        self, collection: int, digests: Sequence[bytes], states: Sequence[str] = READY
    ) -> dict[bytes, StoredChunk]:
        """The first chunk of each of these texts that stands in a document of these states."""
        found: dict[bytes, StoredChunk] = {}
        for part in in_parts(digests):
            rows = self.database.reader().execute(
                f"{_CHUNK} WHERE c.id IN (SELECT min(k.id) FROM chunks k"
                " INDEXED BY chunks_by_digest CROSS JOIN documents e ON e.id = k.document"
                f" WHERE k.collection = ? AND k.digest IN ({marks(part)}) AND e.state IN ({marks(states)})"
                " GROUP BY k.digest)",
                (collection, *part, *states),
            )
            found.update((row[4], to_chunk(row)) for row in rows)
        return found

    def all(self, collection: int, *, states: Sequence[str] = READY, page: int = 1_000) -> Iterator[list[StoredChunk]]:
        """Chunks in pages, document by document, in their order there."""
        documents = self.database.reader().execute(
            f"SELECT id FROM documents WHERE collection = ? AND state IN ({marks(states)}) ORDER BY name, id",
            (collection, *states),
        )
        for (number,) in documents.fetchall():
            after = -1
            while found := self.of(number, after, page):
                yield found
                after = found[-1].position

    def of(self, document: int, after: int, limit: int) -> list[StoredChunk]:
        """The chunks of a document from behind a position on."""
        rows = self.database.reader().execute(
            f"{_CHUNK} WHERE c.document = ? AND c.position > ? ORDER BY c.position LIMIT ?", (document, after, limit)
        )
        return [to_chunk(row) for row in rows]

    def only_here(self, collection: int, digests: Sequence[bytes], *, but: Sequence[int] = ()) -> list[bytes]:
        """Those of the texts that no other collection has, nor any document of this one but these."""
        conn = self.database.reader()
        needed: set[bytes] = set()
        for part in in_parts(digests):
            here = f"SELECT DISTINCT digest FROM chunks WHERE digest IN ({marks(part)}) AND collection"
            for (other,) in conn.execute("SELECT id FROM collections WHERE id <> ?", (collection,)):
                needed.update(digest for (digest,) in conn.execute(f"{here} = ?", (*part, other)))
            if but:
                rows = conn.execute(f"{here} = ? AND document NOT IN ({marks(but)})", (*part, collection, *but))
                needed.update(digest for (digest,) in rows)
        return [d for d in digests if d not in needed]
