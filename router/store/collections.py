"""Collections, their documents and generations, in the file `corpora.db`.

It holds people's texts and may grow large, so it is apart from the ledger. Whether a chunk is embedded is not stored
here: it is, for a generation, if the cache has a vector of its digest in the generation's space.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from router.domain.errors import BadInput
from router.domain.kinds import TextKind, kind_of_text
from router.domain.values import Tokenizer
from router.store.chunks import Chunks
from router.store.database import Connection, Database, insert, marks, select
from router.store.models import (
    NAMES,
    READY,
    TAKEN,
    Collection,
    DocumentRow,
    Generation,
    GenerationState,
    NewChunk,
    Replaced,
    migrations,
    pack,
)

STALE_S = 600.0
"""A document that got no chunk for this long was left behind by a process that died."""
PAGE_SIZE = 8192
_LOOKED_AT = 5
"""Chunks by which a document's kind of text is told."""
PATIENCE_S = 600.0
_MOST_NAME = 80
Write = Callable[[Connection], None]


class Corpora:
    """The file `corpora.db`."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        # Not mapped: it is read through from end to end, and all of it would count as our memory.
        self.database = Database(path, migrations, NAMES, page_size=PAGE_SIZE, mapped=False)
        self.chunks = Chunks(self.database)
        self.clock = clock

    def close(self) -> None:
        """Write what is queued and close."""
        self.database.close()

    # ---- collections and generations ----

    async def create(
        self, name: str, *, policy: str, tokenizer: Tokenizer, chunk_tokens: int, overlap: int
    ) -> Collection:
        """A new collection; BadInput where the name is taken, empty, too long or not printable."""
        if not name.strip() or name != name.strip() or len(name) > _MOST_NAME or not name.isprintable():
            raise BadInput(
                f"A collection cannot be called {name[:_MOST_NAME]!r}.",
                f"Use 1 to {_MOST_NAME} printable characters, without blanks at the ends.",
            )
        row = {
            "name": name, "created": self.clock(), "policy": policy, "tokenizer": tokenizer,
            "chunk_tokens": chunk_tokens, "overlap": overlap,
        }  # fmt: skip

        def write(conn: Connection) -> None:
            if conn.execute("SELECT 1 FROM collections WHERE name = ?", (name,)).fetchone():
                raise BadInput(f"There is a collection '{name}' already.", "Choose another name, or add to it.")
            insert(conn, "collections", row)

        await self.database.write(write)
        return await asyncio.to_thread(self.get, name)

    def all(self) -> list[Collection]:
        """Every collection, by name."""
        return select(self.database.reader(), Collection, "FROM collections ORDER BY name")

    def get(self, name: str) -> Collection:
        """The collection of this name; BadInput where there is none, which names those that there are."""
        found = select(self.database.reader(), Collection, "FROM collections WHERE name = ?", (name,))
        if not found:
            names = ", ".join(c.name for c in self.all()[:10])
            raise BadInput(f"There is no collection '{name}'.", f"There are: {names}." if names else "Create it first.")
        return found[0]

    async def set_policy(self, collection: int, policy: str) -> None:
        """Let another policy pay for a collection from now on."""
        await self.database.execute("UPDATE collections SET policy = ? WHERE id = ?", policy, collection)

    async def delete(self, collection: int) -> None:
        """Delete a collection with its documents, chunks and generations."""
        await self.database.execute("DELETE FROM collections WHERE id = ?", collection, patience_s=PATIENCE_S)

    def generations(self, collection: int) -> list[Generation]:
        """A collection's generations, oldest first."""
        rest = "FROM generations WHERE collection = ? ORDER BY id"
        return select(self.database.reader(), Generation, rest, (collection,))

    def generation(self, number: int) -> Generation | None:
        """One generation; None if it was dropped."""
        found = select(self.database.reader(), Generation, "FROM generations WHERE id = ?", (number,))
        return found[0] if found else None

    def active(self, collection: int) -> Generation | None:
        """The generation that is searched; None before the first confirmation."""
        return next((g for g in self.generations(collection) if g.state == "active"), None)

    async def add_generation(
        self, collection: int, *, model: str, space: str, dimensions: int, state: GenerationState
    ) -> Generation:
        """Pin a collection to a space (`active`), or begin its next generation (`building`).

        Raises BadInput where there is one in that state already.
        """
        now = self.clock()
        row = {
            "collection": collection, "model": model, "space": space, "dimensions": dimensions, "state": state,
            "created": now, "switched": now if state == "active" else None,
        }  # fmt: skip

        def write(conn: Connection) -> Generation:
            if conn.execute(
                "SELECT 1 FROM generations WHERE collection = ? AND state = ?", (collection, state)
            ).fetchone():
                what = "is pinned to a space" if state == "active" else "is being re-embedded"
                raise BadInput(f"The collection {what} already.", "Wait for it, or drop it first.")
            number = insert(conn, "generations", row)
            return select(conn, Generation, "FROM generations WHERE id = ?", (number,))[0]

        return await self.database.write(write)

    async def switch(self, number: int) -> bool:
        """Make a generation that was building the active one, in one step. False: it was not building."""
        now = self.clock()

        def write(conn: Connection) -> bool:
            row = conn.execute(
                "SELECT collection FROM generations WHERE id = ? AND state = 'building'", (number,)
            ).fetchone()
            if row is None:
                return False
            conn.execute("UPDATE generations SET state = 'former' WHERE collection = ? AND state = 'active'", row)
            conn.execute("UPDATE generations SET state = 'active', switched = ? WHERE id = ?", (now, number))
            return True

        return await self.database.write(write, patience_s=PATIENCE_S)

    async def drop(self, number: int) -> bool:
        """Forget a generation that is not searched. Its vectors stay in the cache."""
        gone = "DELETE FROM generations WHERE id = ? AND state <> 'active'"
        return await self.database.execute(gone, number) == 1

    # ---- documents ----

    def documents(
        self, collection: int, *, states: Sequence[str] = (), limit: int = -1, offset: int = 0
    ) -> list[DocumentRow]:
        """Documents by name; those in some states, or all."""
        wanted = f" AND state IN ({marks(states)})" if states else ""
        rest = f"FROM documents WHERE collection = ?{wanted} ORDER BY name, id LIMIT ? OFFSET ?"
        return select(self.database.reader(), DocumentRow, rest, (collection, *states, limit, offset))

    def document(self, collection: int, name: str, states: Sequence[str] = TAKEN) -> DocumentRow | None:
        """The newest document of this name in one of these states, or None."""
        rest = (
            f"FROM documents WHERE collection = ? AND name = ? AND state IN ({marks(states)}) ORDER BY id DESC LIMIT 1"
        )
        found = select(self.database.reader(), DocumentRow, rest, (collection, name, *states))
        return found[0] if found else None

    def counts(self, collection: int, states: Sequence[str] = TAKEN) -> tuple[int, int]:
        """Documents, and their chunks."""
        documents, chunks = self.database.row(
            "SELECT count(*), coalesce(sum(chunks), 0) FROM documents"
            f" WHERE collection = ? AND state IN ({marks(states)})",
            collection, *states,
        )  # fmt: skip
        return documents, chunks

    def stamp(self, collection: int) -> tuple[int | None, ...]:
        """Numbers that change whenever the texts that are searched do, whoever changes them."""
        row: tuple[int | None, ...] = self.database.row(
            "SELECT count(*), max(id), sum(id), sum(chunks), sum(id * chunks) FROM documents"
            " WHERE collection = ? AND state = 'ready'",
            collection,
        )
        return row

    def replaced(self, collection: int, name: str) -> Replaced | None:
        """What the document of this name that waits to be confirmed will take the place of; None where of nothing."""
        old = self.document(collection, name, READY)
        new = self.document(collection, name, ("added",))
        if old is None or new is None:
            return None
        texts, unknown = self.database.row(
            "SELECT count(*), coalesce(sum(NOT EXISTS (SELECT 1 FROM chunks o WHERE o.collection = ? AND"
            " o.digest = n.digest AND o.document = ?)), 0)"
            " FROM (SELECT DISTINCT digest FROM chunks WHERE document = ? AND near_empty = 0) n",
            collection, old.id, new.id,
        )  # fmt: skip
        return Replaced(added=old.added, source=old.source, texts=texts, new=unknown)

    async def set_source(self, document: int, source: str) -> None:
        """Note where a document that is there already was found again."""
        sql = "UPDATE documents SET source = ? WHERE id = ?"
        await self.database.execute(sql, source, document, patience_s=PATIENCE_S)

    async def begin_document(
        self, collection: int, *, name: str, digest: str, kind: str, size: int, source: str = ""
    ) -> int:
        """A document that is being read; its number. Takes the place of what was read, or failed, under its name."""
        about = (collection, name, digest, kind, size, self.clock(), source)
        return await self.database.write(lambda conn: _begin(conn, about), patience_s=PATIENCE_S)

    async def add_chunks(self, collection: int, document: int, first: int, chunks: Sequence[NewChunk]) -> None:
        """Add chunks to a document that is being read; `first` is the position of the first."""
        now, packed = self.clock(), await asyncio.to_thread(_packed, first, chunks)
        await self.database.write(
            lambda conn: _add_chunks(conn, collection, document, now, packed), patience_s=PATIENCE_S
        )

    def whole_document(
        self,
        collection: int,
        chunks: Sequence[NewChunk],
        *,
        name: str,
        digest: str,
        kind: str,
        size: int,
        source: str,
        skipped: int,
    ) -> Write:
        """A document that was read whole, for `add_documents`: as `begin_document`, `add_chunks` and `end_document`."""
        now, packed = self.clock(), _packed(0, chunks)

        def write(conn: Connection) -> None:
            document = _begin(conn, (collection, name, digest, kind, size, now, source))
            _add_chunks(conn, collection, document, now, packed)
            conn.execute(_READ, (skipped, document))

        return write

    def add_documents(self, documents: Sequence[Write]) -> list[Future[None]]:
        """Write documents, each whole or not at all; what ails one is in its future. They share a commit."""
        return self.database.submit_all(documents, patience_s=PATIENCE_S)

    async def end_document(self, document: int, *, skipped: int = 0, reason: str = "") -> None:
        """The document was read, or (with a reason) could not be: then nothing of it is kept but its name."""

        def write(conn: Connection) -> None:
            if reason:
                conn.execute("DELETE FROM chunks WHERE document = ?", (document,))
                conn.execute(
                    "UPDATE documents SET state = 'failed', reason = ?, chunks = 0 WHERE id = ?", (reason, document)
                )
            else:
                conn.execute(_READ, (skipped, document))

        await self.database.write(write, patience_s=PATIENCE_S)

    async def confirm(self, collection: int) -> int:
        """Make what was added ready to be embedded; it takes the place of documents of the same names."""

        def write(conn: Connection) -> int:
            conn.execute(
                "DELETE FROM documents WHERE collection = ? AND state IN ('ready', 'failed') AND name IN"
                " (SELECT name FROM documents WHERE collection = ? AND state = 'added')",
                (collection, collection),
            )
            return conn.execute(
                "UPDATE documents SET state = 'ready' WHERE collection = ? AND state = 'added'", (collection,)
            ).rowcount

        return await self.database.write(write, patience_s=PATIENCE_S)

    async def delete_documents(
        self, collection: int, *, names: Sequence[str] = (), ids: Sequence[int] = (), states: Sequence[str] = ()
    ) -> int:
        """Delete documents by name or number, or all in some states. Returns how many there were."""

        def write(conn: Connection) -> int:
            gone = 0
            for column, values in (("name", names), ("id", ids), ("state", states)):
                for value in values:
                    sql = f"DELETE FROM documents WHERE collection = ? AND {column} = ?"
                    gone += conn.execute(sql, (collection, value)).rowcount
            return gone

        return await self.database.write(write, patience_s=PATIENCE_S)

    async def erase(self, digests: Sequence[bytes]) -> list[tuple[str, str]]:
        """Delete every chunk of these texts, in all collections. Returns (collection, document) of each."""

        def write(conn: Connection) -> list[tuple[str, str]]:
            gone: list[tuple[str, str]] = []
            for digest in digests:
                rows = conn.execute(
                    "SELECT c.id, o.name, d.name, d.id FROM collections o JOIN chunks c INDEXED BY chunks_by_digest"
                    " ON c.collection = o.id AND c.digest = ? JOIN documents d ON d.id = c.document",
                    (digest,),
                ).fetchall()
                for number, collection, name, document in rows:
                    conn.execute("DELETE FROM chunks WHERE id = ?", (number,))
                    conn.execute("UPDATE documents SET chunks = chunks - 1 WHERE id = ?", (document,))
                    gone.append((collection, name))
            return gone

        return await self.database.write(write, patience_s=PATIENCE_S)


_READ = "UPDATE documents SET state = 'added', skipped = ? WHERE id = ?"
Packed = tuple[str, list[tuple[object, ...]]]
"""The kind of text of some chunks, and a row each from `position` on."""


def _begin(conn: Connection, about: tuple[int, str, str, str, int, float, str]) -> int:
    collection, name, now = about[0], about[1], about[5]
    conn.execute(
        "DELETE FROM documents WHERE collection = ? AND (name = ? AND state IN ('added', 'failed')"
        " OR state = 'adding' AND added < ?)",
        (collection, name, now - STALE_S),
    )
    cursor = conn.execute(
        "INSERT INTO documents (collection, name, digest, kind, bytes, added, source, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'adding')",
        about,
    )
    return int(cursor.lastrowid or 0)


def kind_of_chunks(chunks: Sequence[NewChunk]) -> TextKind | None:
    """The kind of text of some chunks, by a few of them; None where there are none."""
    kinds = Counter(kind_of_text(chunk.text) for chunk in chunks[:: -(-len(chunks) // _LOOKED_AT) or 1])
    return kinds.most_common(1)[0][0] if kinds else None


def _packed(first: int, chunks: Sequence[NewChunk]) -> Packed:
    rows: list[tuple[object, ...]] = [
        (first + at, c.label, c.digest, int(c.near_empty), c.bytes, c.cl100k, c.tokens, pack(c.text))
        for at, c in enumerate(chunks)
    ]
    return kind_of_chunks(chunks) or "", rows


def _add_chunks(conn: Connection, collection: int, document: int, now: float, packed: Packed) -> None:
    kind, rows = packed
    changed = conn.execute(
        "UPDATE documents SET added = ?, chunks = chunks + ?, text_kind = iif(text_kind = '', ?, text_kind)"
        " WHERE id = ? AND state = 'adding'",
        (now, len(rows), kind, document),
    )
    if changed.rowcount != 1:
        raise BadInput("The document was deleted while it was being read.", "Add it again.")
    conn.executemany(
        "INSERT INTO chunks (collection, document, position, label, digest, near_empty, bytes, cl100k, tokens, text)"
        f" VALUES ({collection:d}, {document:d}, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
