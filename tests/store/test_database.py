"""The database: commits that are shared, failures that are not, locks and disks that say no."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from router.domain.errors import BadInput, StoreBusy, StoreError, StoreFull
from router.store.database import Connection, Database, connect
from router.store.migrations import NAMES, migrations
from tests.faults.ledger_oracle import open_database


def put(key: str):  # type: ignore[no-untyped-def]  # a write
    """A write of one setting."""
    return lambda conn: conn.execute("INSERT INTO settings VALUES (?, 'x')", (key,)).rowcount


def keys(database: Database) -> set[str]:
    """The settings that are committed."""
    return {key for (key,) in database.reader().execute("SELECT key FROM settings")}


def commits(path: Path) -> int:
    """How often the file was changed, as another connection sees it."""
    conn = connect(path, readonly=True)
    try:
        return int(conn.execute("PRAGMA data_version").fetchone()[0])
    finally:
        conn.close()


def test_a_connection_is_safe_by_its_settings(database: Database) -> None:
    """WAL, FULL and foreign keys are on; readers cannot write."""
    conn = database._conn
    settings = [
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert settings == ["wal", 2, 1]
    with pytest.raises(Exception, match="readonly"):
        database.reader().execute("DELETE FROM settings")


async def test_a_write_is_committed_when_it_is_answered(database: Database) -> None:
    """The value comes back after the commit, and every reader sees it."""
    assert await database.write(put("a")) == 1
    assert keys(database) == {"a"}


async def test_writes_that_arrive_together_share_a_commit(database: Database) -> None:
    """While one write runs, those that wait are gathered, and go in one transaction."""
    gate, inside = threading.Event(), threading.Event()
    transactions: list[int] = []

    def slow(conn: Connection) -> None:
        inside.set()
        assert gate.wait(60)

    def note(conn: Connection) -> None:
        transactions.append(conn.execute("SELECT count(*) FROM settings").fetchone()[0])
        put(f"key {len(transactions)}")(conn)

    watcher = connect(database.path, readonly=True)
    first = asyncio.ensure_future(database.write(slow))
    await asyncio.to_thread(inside.wait, 10)
    rest = [database.submit(note) for _ in range(20)]
    before = watcher.execute("PRAGMA data_version").fetchone()
    seen: list[int] = []
    rest[0].add_done_callback(lambda _: seen.append(watcher_count(database.path)))
    gate.set()
    await first
    await asyncio.gather(*map(asyncio.wrap_future, rest))
    assert transactions == list(range(20))  # each saw what went before it in the same transaction
    assert seen == [20]  # and when the first was answered, all were committed
    assert watcher.execute("PRAGMA data_version").fetchone() != before
    watcher.close()


async def test_writes_that_are_handed_over_together_share_a_commit(database: Database) -> None:
    """The writer has nothing else to do, and takes all of them."""
    seen: list[int] = []
    futures = database.submit_all([put(str(n)) for n in range(20)])
    futures[0].add_done_callback(lambda _: seen.append(watcher_count(database.path)))
    await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert seen == [20]


def watcher_count(path: Path) -> int:
    """How many settings a stranger sees."""
    conn = connect(path, readonly=True)
    try:
        return int(conn.execute("SELECT count(*) FROM settings").fetchone()[0])
    finally:
        conn.close()


async def test_a_write_that_fails_is_undone_alone(database: Database) -> None:
    """An error of ours, of Python or of SQLite undoes its own write; its neighbours in the commit stand."""

    def bad(error: Exception):  # type: ignore[no-untyped-def]  # a write
        def write(conn: Connection) -> None:
            put("half")(conn)
            raise error

        return write

    def twice(conn: Connection) -> None:
        put("twice")(conn)
        put("twice")(conn)

    work = [put("a"), bad(BadInput("no")), put("b"), bad(ZeroDivisionError()), twice, put("c")]
    results = await asyncio.gather(*(database.write(w) for w in work), return_exceptions=True)
    assert [type(r) for r in results] == [int, BadInput, int, ZeroDivisionError, StoreError, int]
    assert keys(database) == {"a", "b", "c"}


async def test_a_lock_that_is_not_given_in_time_is_refused(database: Database) -> None:
    """StoreBusy after the patience of each write; one that has more patience is written when the lock is free."""
    other = connect(database.path)
    other.execute("BEGIN IMMEDIATE")
    patient = asyncio.ensure_future(database.write(put("patient"), patience_s=30))
    with pytest.raises(StoreBusy, match=r"router\.db is locked"):
        await database.write(put("hasty"), patience_s=0)
    assert not patient.done()
    other.execute("ROLLBACK")
    other.close()
    await patient
    assert keys(database) == {"patient"}


async def test_a_full_disk_is_named_and_writes_work_again_after_it(database: Database) -> None:
    """StoreFull, nothing half written; and when there is room again, the next write passes."""

    def big(conn: Connection) -> None:
        conn.execute("INSERT INTO settings VALUES ('big', ?)", ("x" * 1_000_000,))

    (pages,) = database._conn.execute("PRAGMA page_count").fetchone()
    database._conn.execute(f"PRAGMA max_page_count = {pages + 2}")
    small, full = await asyncio.gather(database.write(put("a")), database.write(big), return_exceptions=True)
    assert small == 1
    assert isinstance(full, StoreFull)
    assert "Make room" in full.hint
    database._conn.execute("PRAGMA max_page_count = 1000000")
    await database.write(big)
    assert keys(database) == {"a", "big"}


async def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    """Nothing that was submitted before the end is lost, and the end waits for it."""
    with open_database(tmp_path) as database:
        futures = [database.submit(put(str(n))) for n in range(50)]
    assert [f.result(0) for f in futures] == [1] * 50
    with open_database(tmp_path) as database:
        assert len(keys(database)) == 50


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    """A migration that this program does not know closes the file to it, with what to do."""
    with open_database(tmp_path) as database:
        path = database.path
    conn = connect(path)
    conn.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('router', 'm999_x', '')")
    conn.close()
    with pytest.raises(StoreError, match=r"newer version of this program \(m999_x\)"):
        Database(path, migrations, NAMES, page_size=4096)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """StoreError, and the file is left as it is."""
    path = tmp_path / "router.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"router\.db is damaged: file is not a database"):
        Database(path, migrations, NAMES, page_size=4096)
    assert path.read_bytes() == b"not a database" * 100


def test_a_file_that_is_up_to_date_needs_no_migrations(tmp_path: Path) -> None:
    """The slow import of the migrations happens only where one is missing."""
    with open_database(tmp_path) as database:
        path = database.path

    def never():  # type: ignore[no-untyped-def]  # must not be called
        raise AssertionError

    Database(path, never, NAMES, page_size=4096).close()


def test_two_programs_may_create_a_file_at_once(tmp_path: Path) -> None:
    """One migrates, the others find it done."""
    gate = threading.Barrier(4)
    failures: list[Exception] = []

    def start() -> None:
        gate.wait(60)
        try:
            with open_database(tmp_path):
                pass
        except Exception as error:  # the test is about any
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
