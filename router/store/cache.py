"""The cache: vectors already made, found by the exact text and by everything that shaped the vector.

A row is found by the digest of the text and by its *kind*: the space, the model that made it, the role where
the model tells roles apart, and what was done with an over-long text. Keyed on less, a cache serves wrong
vectors: a local one under a paid model's name, a query's for a document, a cut text's for a whole one.
The vector is stored at the model's full dimensions; fewer are cut from it, so one paid vector serves every size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import StoreFull
from router.domain.values import Model, Role, Variant
from router.store.database import Connection, Database

if TYPE_CHECKING:
    from sqlite_utils import Database as UtilsDatabase
    from sqlite_utils import Migrations

Floats = NDArray[np.float32]

KEY_VERSION = 1
PROBE = 500
"""Keys a query; more is no faster (measured: 500 keys a query reads 206,000 BLOBs a second)."""
PAGE_SIZE = 8192
"""A vector of 1,536 float32 (6 KiB) fits one page; on 4 KiB pages it overflows."""
STORE_PATIENCE_S = 600.0
"""Vectors that were paid for wait this long for the write lock before they are given up."""

_NAMES = ["m001_create_vectors"]


def _migrations() -> Migrations:
    from sqlite_utils import Migrations as Registry

    migrations = Registry("vectors")

    @migrations()
    def m001_create_vectors(db: UtilsDatabase) -> None:
        db.conn.execute(
            "CREATE TABLE kinds (id INTEGER PRIMARY KEY, space TEXT NOT NULL, model TEXT NOT NULL,"
            " role TEXT NOT NULL, variant TEXT NOT NULL, dimensions INTEGER NOT NULL, key_version INTEGER NOT NULL,"
            " UNIQUE (space, model, role, variant, key_version)) STRICT"
        )
        # A rowid table: WITHOUT ROWID is three to four times slower for BLOBs of this size. AUTOINCREMENT: a
        # number looked up is never given to another text's vector before it is fetched.
        db.conn.execute(
            "CREATE TABLE vectors (id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL,"
            " kind INTEGER NOT NULL REFERENCES kinds (id), tokens INTEGER NOT NULL, vector BLOB NOT NULL) STRICT"
        )
        # `tokens` is in the index so that a look-up never touches the pages of the vectors.
        db.conn.execute("CREATE UNIQUE INDEX vectors_by_digest ON vectors (digest, kind, tokens)")

    return migrations


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What shaped a vector besides its text. `role` is "" where the model does not tell roles apart."""

    space: str
    model: str
    role: str
    variant: Variant
    dimensions: int


Row = tuple[int, int]
"""Where a vector lies (its rowid), and the tokens of its text for the model that made it."""


def kind_of(model: Model, role: Role, variant: Variant) -> Kind:
    """The kind of the vectors that `model` makes for `role`."""
    return Kind(
        space=model.space,
        model=model.id,
        role=role if model.roles else "",
        variant=variant,
        dimensions=model.dimensions,
    )


class Cache:
    """The file `vectors.db`."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, _migrations, _NAMES, page_size=PAGE_SIZE)
        self._ids: dict[Kind, int] = {}
        self._kinds: dict[int, Kind] = {}
        self._full = False

    def close(self) -> None:
        """Write what is queued and close."""
        self.database.close()

    def lookup(self, digests: Sequence[bytes]) -> dict[int, dict[bytes, Row]]:
        """Every vector there is for these texts, in every space at once: by kind, then by digest.

        Reads the index only, never the vectors; in its order, so that no page of it is read twice.
        """
        conn = self.database.reader(mapped=False)
        found: dict[int, dict[bytes, Row]] = {}
        digests = sorted(digests)
        for start in range(0, len(digests), PROBE):
            part = digests[start : start + PROBE]
            marks = ",".join("?" * len(part))
            for digest, kind, tokens, row in conn.execute(
                f"SELECT digest, kind, tokens, id FROM vectors WHERE digest IN ({marks})", part
            ):
                try:
                    found[kind][digest] = (row, tokens)
                except KeyError:
                    found[kind] = {digest: (row, tokens)}
        return found

    def kinds(self) -> Mapping[int, Kind]:
        """Every kind by its number; re-read whenever a number is new."""
        conn = self.database.reader()
        (count,) = conn.execute("SELECT count(*) FROM kinds WHERE key_version = ?", (KEY_VERSION,)).fetchone()
        if count != len(self._kinds):
            self._kinds = {
                row[0]: Kind(space=row[1], model=row[2], role=row[3], variant=row[4], dimensions=row[5])
                for row in conn.execute(
                    "SELECT id, space, model, role, variant, dimensions FROM kinds WHERE key_version = ?",
                    (KEY_VERSION,),
                )
            }
            self._ids = {kind: number for number, kind in self._kinds.items()}
        return self._kinds

    def fetch(self, rows: Sequence[int], dimensions: int) -> Floats:
        """The vectors of these rows, `(len(rows), dimensions)` float32, in the order asked.

        Raises:
            LookupError: a row is gone, or is not of that many dimensions.
        """
        conn = self.database.reader()
        out = np.empty((len(rows), dimensions), dtype="<f4")
        order = sorted(range(len(rows)), key=rows.__getitem__)
        width = dimensions * 4
        for start in range(0, len(order), PROBE):
            part = order[start : start + PROBE]
            marks = ",".join("?" * len(part))
            blobs = [
                blob
                for (blob,) in conn.execute(
                    f"SELECT vector FROM vectors WHERE id IN ({marks}) ORDER BY id", [rows[i] for i in part]
                )
            ]
            joined = b"".join(blobs)
            if len(blobs) != len(part) or len(joined) != width * len(part):
                raise LookupError("a cached vector is gone, or has another size than its kind says")
            out[part] = np.frombuffer(joined, dtype="<f4").reshape(len(part), dimensions)
        return out

    async def store(self, kind: Kind, digests: Sequence[bytes], tokens: Sequence[int], vectors: Floats) -> None:
        """Commit vectors `(n, kind.dimensions)` float32. A text that is there already is left as it is.

        Raises:
            ValueError: the vectors are not of the kind's size.
            StoreError: the file could not be written.
        """
        if vectors.shape != (len(digests), kind.dimensions) or len(tokens) != len(digests):
            raise ValueError(f"{vectors.shape} vectors for {len(digests)} texts of {kind.dimensions} dimensions")
        data = np.ascontiguousarray(vectors, dtype="<f4")

        def write(conn: Connection) -> None:
            number = _number(conn, kind)
            conn.executemany(
                "INSERT OR IGNORE INTO vectors (digest, kind, tokens, vector) VALUES (?, ?, ?, ?)",
                ((d, number, t, memoryview(row)) for d, t, row in zip(digests, tokens, data, strict=True)),
            )

        try:
            await self.database.write(write, patience_s=STORE_PATIENCE_S)
        except StoreFull:
            self._full = True
            raise

    async def require_room(self) -> None:
        """Once the disk was full: try a write again before anything more is paid for.

        Raises:
            StoreFull: it still is.
        """
        if self._full:

            def write(conn: Connection) -> None:
                conn.execute("DROP TABLE IF EXISTS probe")  # of a try that broke off
                conn.execute("CREATE TABLE probe AS SELECT zeroblob(1000000) AS x")

            await self.database.write(write)
            await self.database.write(lambda conn: conn.execute("DROP TABLE IF EXISTS probe"))
            self._full = False

    async def erase(self, digests: Iterable[bytes]) -> int:
        """Delete these texts' vectors in every space. Returns how many there were."""
        keys = [(d,) for d in digests]

        def write(conn: Connection) -> int:
            return int(conn.executemany("DELETE FROM vectors WHERE digest = ?", keys).rowcount)

        return await self.database.write(write, patience_s=STORE_PATIENCE_S)

    def size(self) -> tuple[int, int]:
        """Vectors, and bytes on disk."""
        (rows,) = self.database.reader().execute("SELECT count(*) FROM vectors").fetchone()
        return rows, self.database.path.stat().st_size


def _number(conn: Connection, kind: Kind) -> int:
    key = (kind.space, kind.model, kind.role, kind.variant, KEY_VERSION)
    conn.execute(
        "INSERT OR IGNORE INTO kinds (space, model, role, variant, key_version, dimensions) VALUES (?, ?, ?, ?, ?, ?)",
        (*key, kind.dimensions),
    )
    number, dimensions = conn.execute(
        "SELECT id, dimensions FROM kinds WHERE space = ? AND model = ? AND role = ? AND variant = ?"
        " AND key_version = ?",
        key,
    ).fetchone()
    if dimensions != kind.dimensions:
        raise ValueError(f"{kind.model} is stored at {dimensions} dimensions, not {kind.dimensions}")
    return int(number)
