"""What `corpora.db` holds, as tables and as the values that its readers hand out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from router.domain.kinds import TextKind
from router.domain.values import Tokenizer

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

DocumentState = Literal["adding", "added", "ready", "failed"]
GenerationState = Literal["building", "active", "former"]

READY: tuple[DocumentState, ...] = ("ready",)
"""Documents that were confirmed: these are embedded and searched."""
TAKEN: tuple[DocumentState, ...] = ("ready", "added")
"""... and those that were read and wait for their cost to be confirmed."""
EVERY: tuple[DocumentState, ...] = ("adding", "added", "ready", "failed")
_LONG = 400  # characters from which a text is kept packed
NAMES = ["m001_create_corpora", "m002_add_source", "m003_add_text_kind"]


def migrations() -> Migrations:
    """The migrations of `corpora.db`, oldest first, named as in `NAMES`."""
    from sqlite_utils import Migrations as Registry

    registry = Registry("corpora")

    @registry()
    def m001_create_corpora(db: Database) -> None:
        # AUTOINCREMENT: jobs in another file name these numbers, so none is ever given to another thing.
        db.conn.execute(
            "CREATE TABLE collections (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
            " created REAL NOT NULL, policy TEXT NOT NULL, tokenizer TEXT NOT NULL, chunk_tokens INTEGER NOT NULL,"
            " overlap INTEGER NOT NULL) STRICT"
        )
        db.conn.execute(
            "CREATE TABLE generations (id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE, model TEXT NOT NULL,"
            " space TEXT NOT NULL, dimensions INTEGER NOT NULL,"
            " state TEXT NOT NULL CHECK (state IN ('building', 'active', 'former')), created REAL NOT NULL,"
            " switched REAL) STRICT"
        )
        db.conn.execute("CREATE UNIQUE INDEX one_active ON generations (collection) WHERE state = 'active'")
        db.conn.execute("CREATE UNIQUE INDEX one_building ON generations (collection) WHERE state = 'building'")
        # `digest` is that of the source file, in hex; `skipped` counts rows that hold no text.
        db.conn.execute(
            "CREATE TABLE documents (id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " collection INTEGER NOT NULL REFERENCES collections (id) ON DELETE CASCADE, name TEXT NOT NULL,"
            " digest TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL, added REAL NOT NULL,"
            " state TEXT NOT NULL CHECK (state IN ('adding', 'added', 'ready', 'failed')),"
            " reason TEXT NOT NULL DEFAULT '', chunks INTEGER NOT NULL DEFAULT 0,"
            " skipped INTEGER NOT NULL DEFAULT 0) STRICT"
        )
        db.conn.execute("CREATE INDEX documents_by_name ON documents (collection, name)")
        # `tokens` by the collection's tokenizer, `cl100k` and `bytes` for the prices of others. `text` is TEXT, or
        # zlib as a BLOB where it is long.
        db.conn.execute(
            "CREATE TABLE chunks (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL,"
            " document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE, position INTEGER NOT NULL,"
            " label TEXT NOT NULL, digest BLOB NOT NULL, near_empty INTEGER NOT NULL, bytes INTEGER NOT NULL,"
            " cl100k INTEGER NOT NULL, tokens INTEGER NOT NULL, text ANY NOT NULL) STRICT"
        )
        # All that a quote needs is in the index, so that it never touches the pages of the texts.
        db.conn.execute(
            "CREATE INDEX chunks_by_digest ON chunks (collection, digest, document, near_empty, bytes, cl100k, tokens)"
        )
        db.conn.execute("CREATE INDEX chunks_by_document ON chunks (document, position)")

    @registry()
    def m002_add_source(db: Database) -> None:
        # The folder or zip that a document was found in; "" where its file was handed in by itself, or before this.
        db.conn.execute("ALTER TABLE documents ADD COLUMN source TEXT NOT NULL DEFAULT ''")

    @registry()
    def m003_add_text_kind(db: Database) -> None:
        # The kind of text that a document is (domain/kinds.py), by its beginning; "" where it was read before this.
        db.conn.execute("ALTER TABLE documents ADD COLUMN text_kind TEXT NOT NULL DEFAULT ''")

    return registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A named set of documents. `chunk_tokens` and `overlap` are counted by `tokenizer`."""

    id: int
    name: str
    created: float
    policy: str
    tokenizer: Tokenizer
    chunk_tokens: int
    overlap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A collection's vectors in one space: `model` makes them, `dimensions` is the size that is searched."""

    id: int
    collection: int
    model: str
    space: str
    dimensions: int
    state: GenerationState
    created: float
    switched: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """A file of a collection. `digest` is that of its bytes, in hex; `skipped` counts its rows without any text.

    `source` is the folder or zip that it was found in, "" where it was handed in by itself.
    """

    id: int
    name: str
    digest: str
    kind: str
    bytes: int
    added: float
    state: DocumentState
    reason: str
    chunks: int
    skipped: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """The version of a document that a new one takes the place of as soon as it is confirmed.

    `texts` are the distinct texts of the new one, and `new` those of them that the old one does not have.
    """

    added: float
    source: str
    texts: int
    new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A chunk to be added. `label` is the id of the row that it comes from; "" in a document without rows."""

    label: str
    digest: bytes
    near_empty: bool
    bytes: int
    cl100k: int
    tokens: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk and where it stands. `position` counts the chunks of its document from 0."""

    id: int
    document: str
    label: str
    position: int
    digest: bytes
    near_empty: bool
    tokens: int
    text: str = field(repr=False)

    @property
    def key(self) -> str:
        """How the chunk is named in exports: `NAME#LABEL` for a row, `NAME#3` for the third chunk of a document."""
        return f"{self.document}#{self.label or self.position + 1}"


@dataclass(frozen=True, slots=True)
class Distinct:
    """One text of a collection, however often it stands there. Tokens of one copy; `kind` is its document's."""

    digest: bytes
    copies: int
    near_empty: bool
    bytes: int
    cl100k: int
    tokens: int
    kind: TextKind


def pack(text: str) -> str | bytes:
    if len(text) < _LONG:
        return text
    packed = zlib.compress(text.encode(), 1)
    return packed if len(packed) < len(text) else text


def to_chunk(row: tuple[int, str, str, int, bytes, int, int, str | bytes]) -> StoredChunk:
    """A row of the fields of a `StoredChunk`, as they are kept."""
    number, document, label, position, digest, near_empty, tokens, kept = row
    text = kept if isinstance(kept, str) else zlib.decompress(kept).decode()
    return StoredChunk(number, document, label, position, digest, bool(near_empty), tokens, text)
