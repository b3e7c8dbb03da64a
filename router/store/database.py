"""One SQLite file: opened safely, written by one thread that groups commits, read by a connection a thread.

A transaction starts with `BEGIN IMMEDIATE`: under a plain `BEGIN`, read-then-write fails at once with
"database is locked" as soon as a second program writes, and no busy time-out helps.
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from router.domain.errors import StoreBusy, StoreError, StoreFull

if TYPE_CHECKING:
    import sqlite3

    from _typeshed import DataclassInstance
    from sqlite_utils import Migrations
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

T = TypeVar("T")
Record = TypeVar("Record", bound="DataclassInstance")

Connection = sqlite3.Connection
Error = sqlite3.Error
SQLITE_VERSION: tuple[int, ...] = sqlite3.sqlite_version_info
WAL_RESET_FIXED = (3, 51, 3)
"""The first SQLite whose WAL-reset bug is fixed; `doctor` warns below it."""

GROUP = 512
"""The most writes that share a commit."""
WHEN_DAMAGED = {
    "router.db": "Restore it from a backup.",
    "corpora.db": "Restore it from a backup, or move it away and add the collections' files again.",
    "vectors.db": "Restore it from a backup, or move it away: its vectors are then made, and paid for, again.",
}
"""What to do about a file that SQLite cannot read."""
LOG_TRIES = 10
PATIENCE_S = 5.0
"""How long a write waits for another process's lock before it is refused."""
PART = 500
"""Values a query; more is no faster (measured: 500 keys a query reads 206,000 BLOBs a second)."""


def marks(values: Sized) -> str:
    """A placeholder for each of some values."""
    return ",".join("?" * len(values))


def in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Some values, as many at a time as one query asks for."""
    return (values[start : start + PART] for start in range(0, len(values), PART))


def select(
    conn: Connection, cls: type[Record], rest: str, values: Sequence[object] = (), **computed: str
) -> list[Record]:
    """The rows of `SELECT ... {rest}`, as a dataclass whose fields are columns or, where named, computed."""
    names = [field.name for field in fields(cls)]
    rows = conn.execute(f"SELECT {', '.join(computed.get(name, name) for name in names)} {rest}", tuple(values))
    return [cls(**dict(zip(names, row, strict=True))) for row in rows]


def insert(conn: Connection, table: str, row: Mapping[str, object]) -> int:
    """Insert a row; returns its number."""
    cursor = conn.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks(row)})", tuple(row.values()))
    return cursor.lastrowid or 0


def connect(path: Path, *, page_size: int = 4096, readonly: bool = False, mapped: bool = True) -> Connection:
    """A connection with WAL, `synchronous=FULL`, foreign keys, and explicit transactions only.

    `mapped` is faster for BLOBs; every page that is touched then counts as this process's memory, once a connection.
    """
    conn = sqlite3.connect(str(path), timeout=1.0, isolation_level=None, check_same_thread=False, cached_statements=512)
    conn.execute(f"PRAGMA page_size={page_size}")
    _switch_to_wal(conn)
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute("PRAGMA foreign_keys=ON")
    conn.execute("PRAGMA secure_delete=ON")  # from the first row on: pages that split leave copies as well
    conn.execute(f"PRAGMA mmap_size={(1 << 36) * mapped}")
    conn.execute("PRAGMA temp_store=MEMORY")
    if readonly:
        conn.execute("PRAGMA query_only=ON")
    return conn


def open_readonly(path: Path) -> Connection:
    """A read-only connection to a file that is neither created nor changed."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)


def _switch_to_wal(conn: Connection) -> None:
    """WAL; where several processes create a file at once, SQLite says "locked" without waiting, so it is retried."""
    for attempt in range(200):
        try:
            conn.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if attempt == 199:
                raise
            time.sleep(0.01)


def translate(exc: sqlite3.Error, path: Path) -> StoreError:
    """A SQLite error as one of ours, with what to do."""
    text = str(exc)
    if "full" in text or "disk I/O error" in text:
        return StoreFull(
            f"{path.name} cannot be written: {text}.", "Make room on the disk of the data folder, then try again."
        )
    if "locked" in text or "busy" in text:
        return StoreBusy(f"{path.name} is locked by another program.", "Wait for it to finish, then try again.")
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return StoreError(f"{path.name} is damaged: {text}.", WHEN_DAMAGED.get(path.name, WHEN_DAMAGED["router.db"]))
    return StoreError(f"{path.name}: {text}.", "Run `python -m router doctor`.")


@dataclass(slots=True, eq=False)
class _Item:
    fn: Callable[[Connection], object]
    deadline: float
    future: Future[object] = field(default_factory=Future)


class Database:
    """One SQLite file with its writer thread and its readers."""

    def __init__(
        self, path: Path, migrations: Callable[[], Migrations], names: list[str], *, page_size: int, mapped: bool = True
    ) -> None:
        """Open or create `path`, in a folder that exists, and bring its schema up to date.

        Args:
            path: the file.
            migrations: called only when one of `names` is missing, because importing sqlite-utils is slow.
            names: the names of all migrations, oldest first.
            page_size: bytes a page, for a new file.
            mapped: map the file for reading it, unless `reader` is told otherwise.

        Raises:
            StoreError: the file cannot be opened, or was written by a newer version of this program.
        """
        self.path = path
        self._page_size = page_size
        self._mapped = mapped
        self._local = threading.local()
        self._all: list[Connection] = []
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        with suppress(OSError):  # SQLite says better what is wrong
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # its -wal and -shm get the same rights
        try:
            self._conn = connect(path, page_size=page_size, mapped=False)
            self._migrate(migrations, names)
        except sqlite3.Error as exc:
            raise translate(exc, path) from exc
        self._thread = threading.Thread(target=self._run, name=f"writer-{path.name}", daemon=True)
        self._thread.start()

    # ---- reading ----

    def reader(self, *, mapped: bool | None = None) -> Connection:
        """This thread's read-only connection."""
        mapped = self._mapped if mapped is None else mapped
        conns: dict[bool, Connection] = self._local.__dict__.setdefault("conns", {})
        conn = conns.get(mapped)
        if conn is None:
            conn = conns[mapped] = connect(self.path, page_size=self._page_size, readonly=True, mapped=mapped)
            with self._lock:
                self._all.append(conn)
            # Streamlit runs every page in a thread of its own; its connection goes when the thread does.
            weakref.finalize(threading.current_thread(), self._drop, conn)
        return conn

    def row(self, sql: str, *values: object) -> Any:
        """The first row of a query, or None."""
        return self.reader().execute(sql, values).fetchone()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors while reading into StoreError, which says what to do."""
        try:
            yield
        except sqlite3.Error as exc:
            raise translate(exc, self.path) from exc

    @contextmanager
    def unmapped(self) -> Iterator[None]:
        """Read the whole file without having all of it mapped into memory; for this thread only."""
        conn = self.reader()
        (before,) = conn.execute("PRAGMA mmap_size").fetchone()
        conn.execute("PRAGMA mmap_size = 0")
        try:
            yield
        finally:
            conn.execute(f"PRAGMA mmap_size = {before}")

    def newest(self, table: str) -> int:
        """The highest number that a row of the table (AUTOINCREMENT) was ever given; 0 before the first."""
        row = self.row("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(row[0]) if row else 0

    def _drop(self, conn: Connection) -> None:
        with self._lock:
            if conn in self._all:
                self._all.remove(conn)
                conn.close()

    # ---- writing ----

    def submit(self, fn: Callable[[Connection], T], *, patience_s: float = PATIENCE_S) -> Future[T]:
        """Queue `fn` for the writer thread; the future resolves after its commit.

        `fn` runs under a savepoint of its own: if it raises, only its own changes are undone.

        Raises (in the future):
            StoreBusy: the lock was not had within `patience_s` seconds; nothing was written.
            StoreFull: the disk is full; nothing was written.
        """
        return self.submit_all([fn], patience_s=patience_s)[0]

    def submit_all(
        self, fns: Sequence[Callable[[Connection], T]], *, patience_s: float = PATIENCE_S
    ) -> list[Future[T]]:
        """As `submit` of each; all share a commit."""
        items = [_Item(fn, time.monotonic() + patience_s) for fn in fns]
        self._queue.put(items)
        return [item.future for item in items]  # type: ignore[misc]  # the future carries what fn returns

    async def write(self, fn: Callable[[Connection], T], *, patience_s: float = PATIENCE_S) -> T:
        """`submit`, awaited."""
        return await asyncio.wrap_future(self.submit(fn, patience_s=patience_s))

    async def execute(self, sql: str, *values: object, patience_s: float = PATIENCE_S) -> int:
        """Write by one statement; returns how many rows it changed."""
        return await self.write(lambda conn: conn.execute(sql, values).rowcount, patience_s=patience_s)

    def empty_log(self) -> bool:
        """Write the log into the file and cut it to nothing: deleted bytes are in its older pages.

        False: somebody reads an older state of the file, so the log stays. For worker threads; waits some seconds.
        """
        with closing(connect(self.path)) as conn:
            checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"  # waits a second for the others, then says 1
            return any(conn.execute(checkpoint).fetchone()[0] == 0 for _ in range(LOG_TRIES))

    def close(self) -> None:
        """Write what is queued, then close every connection."""
        self._queue.put(None)
        self._thread.join()
        with self._lock:
            for conn in self._all:
                conn.close()
            self._all.clear()
        self._conn.close()

    def _run(self) -> None:
        while True:
            items = self._queue.get()
            group: list[_Item] = []
            stop = items is None
            while items is not None:
                group += items
                if len(group) >= GROUP:
                    break
                try:
                    items = self._queue.get_nowait()
                except queue.Empty:
                    break
                stop = stop or items is None
            self._commit_group([i for i in group if i.future.set_running_or_notify_cancel()])
            if stop:
                return

    def _commit_group(self, group: list[_Item]) -> None:
        group = self._begin(group)
        if not group:
            return
        ends: list[Callable[[], None]] = []
        try:
            for item in group:
                self._conn.execute("SAVEPOINT item")
                try:
                    ends.append(partial(item.future.set_result, item.fn(self._conn)))
                except sqlite3.Error:
                    raise  # the whole transaction is rolled back
                except BaseException as exc:
                    self._conn.execute("ROLLBACK TO item")
                    ends.append(partial(item.future.set_exception, exc))
                self._conn.execute("RELEASE item")
            self._conn.execute("COMMIT")
        except sqlite3.Error as exc:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
            if len(group) > 1:  # one of them fails: each gets a transaction of its own
                for item in group:
                    self._commit_group([item])
            else:
                group[0].future.set_exception(translate(exc, self.path))
            return
        for end in ends:
            end()

    def _begin(self, group: list[_Item]) -> list[_Item]:
        """Take the write lock; items whose patience ends first are refused. Returns those that still wait."""
        while group:
            try:
                self._conn.execute("BEGIN IMMEDIATE")
                return group
            except sqlite3.Error as exc:
                error = translate(exc, self.path)
            until = time.monotonic() if isinstance(error, StoreBusy) else math.inf
            for item in group:
                if item.deadline <= until:
                    item.future.set_exception(error)
            group = [item for item in group if item.deadline > until]
        return group

    # ---- schema ----

    def _migrate(self, migrations: Callable[[], Migrations], names: list[str]) -> None:
        applied = []
        if self._conn.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
            applied = [name for (name,) in self._conn.execute("SELECT name FROM _sqlite_migrations ORDER BY rowid")]
        unknown = [name for name in applied if name not in names]
        if unknown:
            raise StoreError(
                f"{self.path.name} was written by a newer version of this program ({unknown[-1]}).",
                "Update the program, or use another data folder.",
            )
        if set(applied) == set(names):
            return
        import sqlite_utils

        for attempt in range(60):  # of two processes that start at once, one migrates
            try:
                self._conn.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError:
                if attempt == 59:
                    raise
        try:
            migrations().apply(sqlite_utils.Database(self._conn, recursive_triggers=False))
            self._conn.execute("COMMIT")
        except BaseException:
            self._conn.execute("ROLLBACK")
            raise
