"""The cache: vectors already made, found by the exact text and by everything that shaped the vector.

A row is found by the digest of the text and by its *vector key*: the space, the model that made it, the role where
the model tells roles apart, what was put before the text, and what was done with an over-long one. Keyed on less, a
cache serves wrong vectors: a local one under a paid model's name, a query's for a document, a cut text's for a whole
one.
The vector is stored at the model's full dimensions; fewer are cut from it, so one paid vector serves every size.

Every row has a checksum over the vector and over what it is found by (the digest, the vector key as it reads, the
tokens), so that a bit that flips on the disk, in the row or its index, makes the row a miss and never a wrong answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from router.domain.errors import StoreFull
from router.domain.values import Model, Role, Variant
from router.store.database import Connection, Database, Error, in_parts, marks

if TYPE_CHECKING:
    from sqlite_utils import Database as UtilsDatabase
    from sqlite_utils import Migrations

Floats = NDArray[np.float32]
logger = logging.getLogger("router")

KEY_VERSION = 1
PAGE_SIZE = 8192
"""A vector of 1,536 float32 (6 KiB) fits one page; on 4 KiB pages it overflows."""
STORE_PATIENCE_S = 600.0
"""Vectors that were paid for wait this long for the write lock before they are given up."""

_NAMES = ["m001_create_vectors", "m002_add_checksums"]
LENGTH_TOLERANCE = 1e-3
"""How far from one the length of a vector without a checksum may be; all that was stored has unit length."""


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

    @migrations()
    def m002_add_checksums(db: UtilsDatabase) -> None:
        # NULL in rows from before, which `add_checksums` fills in bit by bit: reading all of a large cache takes long.
        db.conn.execute("ALTER TABLE vectors ADD COLUMN checksum INTEGER")
        db.conn.execute("CREATE TABLE unchecked (next INTEGER NOT NULL, last INTEGER NOT NULL) STRICT")
        db.conn.execute("INSERT INTO unchecked SELECT 0, coalesce(max(id), 0) FROM vectors")
        # What was found damaged and removed; numbers and names only, since an erased text leaves no digest behind.
        db.conn.execute("CREATE TABLE damages (at REAL NOT NULL, model TEXT NOT NULL, vectors INTEGER NOT NULL) STRICT")

    return migrations


@dataclass(frozen=True, slots=True)
class VectorKey:
    """What shaped a vector besides its text. `role` is that of `Model.role_key`: a prefix has a mark in it."""

    space: str
    model: str
    role: str
    variant: Variant
    dimensions: int


Row = tuple[int, int, int, bytes]
"""Where a vector lies (its rowid), the tokens of its text for the model that made it, its kind's number, its digest."""


class Damaged(LookupError):
    """Vectors that are gone, or not what was stored: to be removed (`Cache.remove`) and their texts looked up again."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(f"{len(rows)} cached vectors are gone or damaged")
        self.rows = rows


def vector_key(model: Model, role: Role, variant: Variant) -> VectorKey:
    """The kind of the vectors that `model` makes for `role`."""
    return VectorKey(model.space, model.id, model.role_key(role), variant, model.dimensions)


class Cache:
    """The file `vectors.db`."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, _migrations, _NAMES, page_size=PAGE_SIZE)
        self._keys: dict[int, VectorKey] = {}
        self._full = False
        self._salts: dict[int, int] = {}
        self._bad: set[int] = set()

    def close(self) -> None:
        """Write what is queued and close."""
        self.database.close()

    def lookup(self, digests: Sequence[bytes]) -> dict[int, dict[bytes, Row]]:
        """Every vector there is for these texts, in every space at once: by kind, then by digest.

        Reads the index only, never the vectors; in its order, so that no page of it is read twice.
        """
        found: dict[int, dict[bytes, Row]] = {}
        digests = sorted(digests)
        asked = set(digests)
        with self.database.errors():
            conn = self.database.reader(mapped=False)
            for part in in_parts(digests):
                for digest, kind, tokens, row in conn.execute(
                    f"SELECT digest, kind, tokens, id FROM vectors WHERE digest IN ({marks(part)})", part
                ):
                    if row in self._bad or digest not in asked:  # a damaged index may say another than was asked
                        continue
                    if type(tokens) is not int or not 0 <= tokens < 1 << 32:  # nor need this be a count any more
                        continue
                    try:
                        found[kind][digest] = (row, tokens, kind, digest)
                    except KeyError:
                        found[kind] = {digest: (row, tokens, kind, digest)}
        return found

    def keys(self) -> Mapping[int, VectorKey]:
        """Every kind by its number; re-read whenever a number is new."""
        with self.database.errors():
            return self._read_keys()

    def _read_keys(self) -> Mapping[int, VectorKey]:
        (count,) = self.database.row("SELECT count(*) FROM kinds WHERE key_version = ?", KEY_VERSION)
        if count != len(self._keys):
            rows = self.database.reader().execute(
                "SELECT id, space, model, role, variant, dimensions FROM kinds WHERE key_version = ?", (KEY_VERSION,)
            )
            self._keys = {number: VectorKey(*about) for number, *about in rows}
            self._salts = {number: salt_of(kind) for number, kind in self._keys.items()}
        return self._keys

    def fetch(self, rows: Sequence[Row], dimensions: int) -> Floats:
        """The vectors of these rows, `(len(rows), dimensions)` float32, in the order asked, each as it was stored.

        Raises Damaged where some are gone, or are not what was stored, and StoreError where the file cannot be read.
        """
        out = np.empty((len(rows), dimensions), dtype="<f4")
        bad: list[Row] = []
        with self.database.errors():
            conn = self.database.reader()
            if not {row[2] for row in rows} <= self._salts.keys():
                self._read_keys()
            order = sorted(range(len(rows)), key=lambda i: rows[i][0])
            sealed = seals(rows, self._salts)
            for part in in_parts(order):
                found = conn.execute(
                    f"SELECT vector, checksum FROM vectors WHERE id IN ({marks(part)}) ORDER BY id",
                    [rows[i][0] for i in part],
                ).fetchall()
                blobs = [blob for blob, _ in found]
                told = [checksum for _, checksum in found]
                with suppress(TypeError, ValueError):  # something else than bytes, or another size: found below
                    if len(found) == len(part) and told == checksums(blobs, sealed[part]):
                        joined = b"".join(blobs)
                        out[part] = np.frombuffer(joined, dtype="<f4").reshape(len(part), dimensions)
                        continue
                for i in part:
                    vector = self._read_one(conn, rows[i], dimensions)
                    if vector is None:
                        bad.append(rows[i])
                    else:
                        out[i] = vector
        if bad:
            raise Damaged(bad)
        return out

    def _read_one(self, conn: Connection, row: Row, dimensions: int) -> Floats | None:
        """The vector of one row; None where it is gone or not what was stored (without a checksum: not of length 1)."""
        found = conn.execute("SELECT vector, checksum FROM vectors WHERE id = ?", (row[0],)).fetchone()
        if found is None or not isinstance(found[0], bytes) or len(found[0]) != 4 * dimensions:
            return None
        blob, checksum = found
        sound = _unit(blob) if checksum is None else checksums([blob], seals([row], self._salts)) == [checksum]
        return np.frombuffer(blob, dtype="<f4") if sound else None

    async def remove(self, rows: Sequence[Row]) -> None:
        """Take gone and damaged rows out: from now on they are misses, here and in other programs."""
        self._bad.update(row[0] for row in rows)
        await self.database.write(lambda conn: self._remove(conn, rows), patience_s=STORE_PATIENCE_S)

    def remove_now(self, rows: Sequence[Row]) -> None:
        """`remove`, for a worker thread: returns when it is written."""
        self._bad.update(row[0] for row in rows)
        self.database.submit(lambda conn: self._remove(conn, rows), patience_s=STORE_PATIENCE_S).result()

    def _remove(self, conn: Connection, rows: Sequence[Row]) -> None:
        keys = [(row[0],) for row in rows]
        there = {row for key in keys for (row,) in conn.execute("SELECT id FROM vectors WHERE id = ?", key)}
        with suppress(Error):  # a row may not say any more where it stands in the index
            conn.executemany("DELETE FROM vectors WHERE id = ?", keys)
        left = {
            row[0]
            for row in rows
            if conn.execute(
                "SELECT 1 FROM vectors INDEXED BY vectors_by_digest WHERE digest = ? AND kind = ? AND id = ?",
                (row[3], row[2], row[0]),
            ).fetchone()
        }
        if left:  # the index and the table do not agree: as it is, the text could not be stored anew
            conn.execute("REINDEX vectors_by_digest")
            conn.executemany("DELETE FROM vectors WHERE id = ?", keys)
        damaged = [row for row in rows if row[0] in there | left]  # the others were erased by somebody
        if damaged:
            names = Counter(kind.model if (kind := self._keys.get(row[2])) else "" for row in damaged)
            conn.executemany("INSERT INTO damages VALUES (?, ?, ?)", [(time.time(), *item) for item in names.items()])
            logger.warning(
                "%s: %d damaged vectors were found and removed; their texts are embedded again when asked for.",
                self.database.path.name, len(damaged),
            )  # fmt: skip

    def damages(self) -> dict[str, int]:
        """How many damaged vectors were ever found and removed, by model."""
        with self.database.errors():
            rows = self.database.reader().execute("SELECT model, sum(vectors) FROM damages GROUP BY model")
            return {model: int(count) for model, count in rows}

    async def add_checksums(self, most: int = 500) -> bool:
        """Give rows from before there were checksums theirs, `most` at a time. False: none is left.

        Rows that are visibly not what was stored (of another size, or not of unit length) are removed.
        """

        def look() -> tuple[Any, Mapping[int, VectorKey]]:
            with self.database.errors():
                return self.database.row("SELECT next, last FROM unchecked WHERE next < last"), self._read_keys()

        left, kinds = await asyncio.to_thread(look)
        if left is None:
            return False
        start, end = left[0], min(left[1], left[0] + most)

        def write(conn: Connection) -> list[Row]:
            good, bad = [], []
            for number, tokens, kind, digest, blob in conn.execute(
                "SELECT id, tokens, kind, digest, vector FROM vectors WHERE id > ? AND id <= ? AND checksum IS NULL",
                (start, end),
            ):
                one: Row = (number, tokens, kind, digest)
                typed = type(tokens) is int and tokens >= 0 and type(digest) is type(blob) is bytes
                sized = typed and kind in kinds and len(digest) == 32 and len(blob) == 4 * kinds[kind].dimensions
                if sized and _unit(blob):
                    good.append((checksums([blob], seals([one], self._salts))[0], number))
                else:
                    bad.append(one)
            conn.executemany("UPDATE vectors SET checksum = ? WHERE id = ?", good)
            conn.execute("UPDATE unchecked SET next = ?", (end,))
            return bad

        if bad := await self.database.write(write, patience_s=STORE_PATIENCE_S):
            await self.remove(bad)
        return True

    async def store(self, kind: VectorKey, digests: Sequence[bytes], tokens: Sequence[int], vectors: Floats) -> None:
        """Commit vectors `(n, kind.dimensions)` float32. A text that is there already is left as it is.

        Raises ValueError where the vectors are of another size, and StoreError where the file could not be written.
        """
        if vectors.shape != (len(digests), kind.dimensions) or len(tokens) != len(digests):
            raise ValueError(f"{vectors.shape} vectors for {len(digests)} texts of {kind.dimensions} dimensions")
        data = np.ascontiguousarray(vectors, dtype="<f4")

        def write(conn: Connection) -> None:
            number = _number(conn, kind)
            blobs = [memoryview(row) for row in data]
            rows = [(0, t, number, d) for d, t in zip(digests, tokens, strict=True)]
            sums = checksums(blobs, seals(rows, {number: salt_of(kind)}))
            conn.executemany(
                "INSERT OR IGNORE INTO vectors (digest, kind, tokens, vector, checksum) VALUES (?, ?, ?, ?, ?)",
                zip(digests, [number] * len(blobs), tokens, blobs, sums, strict=True),
            )

        try:
            await self.database.write(write, patience_s=STORE_PATIENCE_S)
        except StoreFull:
            self._full = True
            raise

    async def require_room(self) -> None:
        """Once the disk was full: try a write again before anything more is paid for; StoreFull where it still is."""
        if self._full:

            def write(conn: Connection) -> None:
                conn.execute("DROP TABLE IF EXISTS probe")  # of a try that broke off
                conn.execute("CREATE TABLE probe AS SELECT zeroblob(1000000) AS x")

            await self.database.write(write)
            await self.database.execute("DROP TABLE IF EXISTS probe")
            self._full = False

    async def erase(self, digests: Iterable[bytes]) -> int:
        """Delete these texts' vectors in every space. Returns how many there were."""
        keys = [(d,) for d in digests]

        def write(conn: Connection) -> int:
            return conn.executemany("DELETE FROM vectors WHERE digest = ?", keys).rowcount

        return await self.database.write(write, patience_s=STORE_PATIENCE_S)

    def size(self) -> tuple[int, int]:
        """Vectors, and bytes on disk."""
        (rows,) = self.database.row("SELECT count(*) FROM vectors")
        return rows, self.database.path.stat().st_size


def salt_of(kind: VectorKey) -> int:
    """What a kind adds to the checksums of its vectors: 64 bits of all that it says."""
    return xxh3_64_intdigest("\0".join(map(str, astuple(kind))).encode())


def seals(rows: Sequence[Row], salts: Mapping[int, int]) -> NDArray[np.uint64]:
    """What each row is found by (digest, kind, tokens) in 64 bits, `(n,)`, to be mixed into its checksum."""
    digests = np.frombuffer(b"".join([row[3] for row in rows]), dtype="<u8").reshape(len(rows), 4)[:, 0]
    kinds = np.array([salts.get(row[2], 0) for row in rows], dtype=np.uint64)
    tokens = np.array([row[1] for row in rows], dtype=np.uint64) << np.uint64(32)
    sealed: NDArray[np.uint64] = digests ^ kinds ^ tokens
    return sealed


def checksums(blobs: Sequence[bytes | memoryview], sealed: NDArray[np.uint64]) -> list[int]:
    """XXH3 (64 bits) of each vector, mixed with what it is found by; signed, as SQLite has it."""
    made = np.array([xxh3_64_intdigest(blob) for blob in blobs], dtype=np.uint64)
    found: list[int] = (made ^ sealed).view(np.int64).tolist()
    return found


def _unit(blob: bytes) -> bool:
    vector = np.frombuffer(blob, dtype="<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(abs(float(np.linalg.norm(vector.astype(np.float64))) - 1.0) <= LENGTH_TOLERANCE)


def _number(conn: Connection, kind: VectorKey) -> int:
    *key, dimensions = astuple(kind)
    conn.execute(
        "INSERT OR IGNORE INTO kinds (space, model, role, variant, dimensions, key_version) VALUES (?, ?, ?, ?, ?, ?)",
        (*key, dimensions, KEY_VERSION),
    )
    number, stored = conn.execute(
        "SELECT id, dimensions FROM kinds WHERE space = ? AND model = ? AND role = ? AND variant = ?"
        " AND key_version = ?",
        (*key, KEY_VERSION),
    ).fetchone()
    if stored != dimensions:
        raise ValueError(f"{kind.model} is stored at {stored} dimensions, not {dimensions}")
    return int(number)
