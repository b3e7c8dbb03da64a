"""Jobs in `router.db`: who runs a job, its progress, and why it stopped.

One runner works on a job at a time, under a lease that it renews; a runner that finds a lapsed lease takes over the
job. A state is only changed from one that allows it, so that two processes, or a person and a runner, never overwrite
each other's changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from router.domain.errors import BadInput
from router.store.batches import close_settled
from router.store.database import Connection, Database

JobState = Literal["queued", "running", "paused", "waiting", "done", "failed", "cancelled"]
JobRoute = Literal["local", "api", "batch"]

OPEN: tuple[JobState, ...] = ("queued", "running", "paused", "waiting")
LEASE_S = 12.0
"""A runner that has not renewed its lease for this long is considered dead."""
MOST_TRIES = 3
"""Tries of a text that fails in a way that may have been billed; then it is failed until `retry`."""
PATIENCE_S = 600.0
_UNDER_WAY = "SELECT 1 FROM batches b WHERE b.job = jobs.id AND b.state IN ('intended', 'uploaded', 'submitted')"
_COLUMNS = (
    "id, collection_id, collection, generation, kind, state, reason, wake, revision, total, done, failed, spent, rate,"
    " policy, model, route, price_checked, created, started, finished, lease_owner, lease_until"
)
# Each charge counts for the latest job of its collection and model that was there when it was booked. Queries, which
# are charged to the collection too, do not count.
_SPENT = (
    "(SELECT coalesce(sum(CASE c.kind WHEN 'struck' THEN -c.amount ELSE c.amount END), 0) FROM charges c"
    " JOIN requests r ON r.id = c.request WHERE c.collection = jobs.collection AND c.collection <> ''"
    " AND c.at >= jobs.created AND c.model = jobs.model AND r.role = 'document' AND c.at < coalesce((SELECT"
    " min(n.created) FROM jobs n WHERE n.id > jobs.id AND n.collection = jobs.collection AND n.model = jobs.model),"
    " 9e99))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is stored. Times in epoch seconds, money in nanodollars.

    Attributes:
        collection: the collection's name; `collection_id` its number in corpora.db, `generation` what is made.
        reason: why it is paused, waiting or failed, in words.
        wake: when a waiting job goes on by itself.
        revision: counts up with every confirmed addition.
        total, done, failed: distinct texts.
        spent: charged, and charged without the provider's word.
        rate: texts a second, lately.
        price_checked: USD per million tokens when the price was last confirmed.
    """

    id: int
    collection_id: int
    collection: str
    generation: int
    kind: str
    state: JobState
    reason: str
    wake: float | None
    revision: int
    total: int
    done: int
    failed: int
    spent: int
    rate: float
    policy: str
    model: str
    route: JobRoute
    price_checked: str
    created: float
    started: float | None
    finished: float | None
    lease_owner: str
    lease_until: float

    @property
    def open(self) -> bool:
        """False once it has ended."""
        return self.state in OPEN

    @property
    def seconds_left(self) -> float | None:
        """At the rate of late; None where there is none."""
        return max(0, self.total - self.done - self.failed) / self.rate if self.rate > 0 else None


class JobStore:
    """Reads and writes jobs."""

    def __init__(self, database: Database, clock: Callable[[], float], owner: str) -> None:
        self.database = database
        self.clock = clock
        self.owner = owner

    # ---- reading ----

    def get(self, number: int) -> Job:
        """A job, with what it has spent by now.

        Raises:
            BadInput: there is none.
        """
        found = self._select("WHERE id = ?", (number,), _COLUMNS.replace("spent", _SPENT))
        if not found:
            raise BadInput(f"There is no job {number}.", "`python -m router jobs list` shows them.")
        return found[0]

    async def _current(self, number: int) -> Job:
        """`get`, off the event loop."""
        return await asyncio.to_thread(self.get, number)

    def all(self, *, collection: int | None = None, open_only: bool = False, limit: int = 200) -> list[Job]:
        """Jobs, newest first."""
        where: list[str] = ["1 = 1"]
        values: list[object] = []
        if collection is not None:
            where.append("collection_id = ?")
            values.append(collection)
        if open_only:
            where.append("state IN ('queued', 'running', 'paused', 'waiting')")
        return self._select(f"WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?", (*values, limit))

    def failures(self, job: int, *, limit: int = 1_000) -> dict[bytes, str]:
        """Why texts of a job failed and are not tried again, by digest."""
        rows = self.database.reader().execute(
            "SELECT digest, reason FROM failures WHERE job = ? AND final = 1 LIMIT ?", (job, limit)
        )
        return dict(rows.fetchall())

    def failed(self, job: int) -> set[bytes]:
        """The texts of a job that are not tried again."""
        rows = self.database.reader().execute("SELECT digest FROM failures WHERE job = ? AND final = 1", (job,))
        return {digest for (digest,) in rows}

    def _select(self, tail: str, values: Sequence[object], columns: str = _COLUMNS) -> list[Job]:
        rows = self.database.reader().execute(f"SELECT {columns} FROM jobs {tail}", tuple(values))
        names = [name.strip() for name in _COLUMNS.split(",")]
        return [Job(**dict(zip(names, row, strict=True))) for row in rows]

    # ---- what people ask ----

    async def create(
        self,
        *,
        collection_id: int,
        collection: str,
        generation: int,
        policy: str,
        model: str,
        route: JobRoute,
        price: str,
        total: int,
        done: int,
    ) -> Job:
        """Queue a job for a generation; if one is open already, it takes on what was added."""
        now = self.clock()

        def write(conn: Connection) -> int:
            row = conn.execute(
                "SELECT id FROM jobs WHERE generation = ? AND state IN ('queued', 'running', 'paused', 'waiting')",
                (generation,),
            ).fetchone()
            if row is not None:
                conn.execute(
                    "UPDATE jobs SET revision = revision + 1, total = ?, done = ?, policy = ?, route = ?,"
                    " price_checked = ?, reason = CASE state WHEN 'running' THEN reason ELSE '' END, wake = NULL,"
                    " state = CASE state WHEN 'running' THEN state ELSE 'queued' END WHERE id = ?",
                    (total, done, policy, route, price, row[0]),
                )
                return int(row[0])
            cursor = conn.execute(
                "INSERT INTO jobs (collection_id, collection, generation, policy, model, route, price_checked, total,"
                " done, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (collection_id, collection, generation, policy, model, route, price, total, done, now),
            )
            return int(cursor.lastrowid or 0)

        return await self._current(await self.database.write(write))

    async def pause(self, number: int) -> Job:
        """Pause a job until it is resumed. Calls under way are still answered and charged.

        Raises:
            BadInput: it has ended, or there is none.
        """
        return await self._move(number, ("queued", "running", "waiting"), "paused", "paused by hand")

    async def resume(self, number: int, *, price: str | None = None) -> Job:
        """Go on with a job that is paused or waits; `price` is what is agreed to now, if it changed.

        Raises:
            BadInput: it has ended, or there is none.
        """
        return await self._move(number, ("paused", "waiting"), "queued", "", price=price)

    async def cancel(self, number: int) -> Job:
        """End a job. What it made stays.

        Raises:
            BadInput: it has ended, or there is none.
        """
        return await self._move(number, OPEN, "cancelled", "cancelled by hand")

    async def retry(self, number: int) -> Job:
        """Try the texts that failed again.

        Raises:
            BadInput: another job works on the same generation, or there is none of this number.
        """
        job = await self._current(number)

        def write(conn: Connection) -> None:
            taken = conn.execute(
                "SELECT id FROM jobs WHERE generation = ? AND id <> ? AND state IN ('queued', 'running', 'paused',"
                " 'waiting')",
                (job.generation, number),
            ).fetchone()
            if taken:
                raise BadInput(f"Job {taken[0]} works on the same collection.", "Wait for it, or cancel it.")
            conn.execute("DELETE FROM failures WHERE job = ?", (number,))
            close_settled(conn, number)
            conn.execute(
                "UPDATE jobs SET state = CASE state WHEN 'running' THEN state ELSE 'queued' END, reason = '',"
                " failed = 0, wake = NULL, finished = NULL, revision = revision + 1 WHERE id = ?",
                (number,),
            )

        await self.database.write(write)
        return await self._current(number)

    async def _move(
        self, number: int, allowed: Sequence[JobState], to: JobState, reason: str, *, price: str | None = None
    ) -> Job:
        job = await self._current(number)
        if job.state == to:
            return job
        now = self.clock()

        def write(conn: Connection) -> int:
            marks = ",".join("?" * len(allowed))
            cursor = conn.execute(
                "UPDATE jobs SET state = ?, reason = ?, wake = NULL, price_checked = coalesce(?, price_checked),"
                f" finished = ? WHERE id = ? AND state IN ({marks})",
                (to, reason, price, now if to == "cancelled" else None, number, *allowed),
            )
            return int(cursor.rowcount)

        if await self.database.write(write) != 1:
            state = (await self._current(number)).state
            if state != to:
                raise BadInput(f"Job {number} is {state}.", "That cannot be done with it now.")
        return await self._current(number)

    # ---- what runners do ----

    async def claim(self, busy: Sequence[int], *, batch_only: bool = False, only: int | None = None) -> Job | None:
        """The next job to work on, leased to this process; None where there is nothing to do just now.

        A job that was paused, cancelled or failed is handed out too while batches of it are at a provider: their
        results are paid for and must be fetched. `busy` are not handed out; with `batch_only`, only those that go by
        batch are; with `only`, no other one is.
        """
        now, owner = self.clock(), self.owner

        def any_ready() -> bool:
            return bool(self._ready(self.database.reader(), busy, now, batch_only, only))

        if not await asyncio.to_thread(any_ready):
            return None

        def write(conn: Connection) -> int | None:
            ready = self._ready(conn, busy, now, batch_only, only)
            if not ready:
                return None
            due = "(state = 'queued' OR state = 'waiting' AND wake <= ?)"
            conn.execute(
                "UPDATE jobs SET lease_owner = ?, lease_until = ?, started = coalesce(started, ?) WHERE id = ?",
                (owner, now + LEASE_S, now, ready[0]),
            )
            conn.execute(
                f"UPDATE jobs SET state = 'running', reason = '', wake = NULL WHERE id = ? AND {due}", (ready[0], now)
            )
            return ready[0]

        number = await self.database.write(write)
        return None if number is None else await self._current(number)

    def _ready(
        self, conn: Connection, busy: Sequence[int], now: float, batch_only: bool, only: int | None
    ) -> list[int]:
        marks = ",".join("?" * len(busy))
        batch = " AND route = 'batch'" if batch_only else ""
        rows = conn.execute(
            f"SELECT id FROM jobs WHERE id NOT IN ({marks}){batch} AND id = coalesce(?, id) AND lease_until < ?"
            f" AND (state IN ('queued', 'running') OR state = 'waiting' AND wake <= ?"
            f" OR state IN ('waiting', 'paused', 'cancelled', 'failed') AND route = 'batch' AND EXISTS ({_UNDER_WAY}))"
            " ORDER BY id LIMIT 1",
            (*busy, only, now, now),
        )
        return [number for (number,) in rows]

    async def renew(self, job: int, *, total: int, done: int, failed: int, rate: float) -> Job | None:
        """Say that the runner lives and how far it is. None: the lease is lost, and it must stop."""
        now, owner = self.clock(), self.owner

        def write(conn: Connection) -> bool:
            cursor = conn.execute(
                f"UPDATE jobs SET lease_until = ?, total = ?, done = ?, failed = ?, rate = ?, spent = {_SPENT}"
                " WHERE id = ? AND lease_owner = ? AND lease_until > 0",
                (now + LEASE_S, total, done, failed, rate, job, owner),
            )
            return int(cursor.rowcount) == 1

        return await self._current(job) if await self.database.write(write, patience_s=LEASE_S / 2) else None

    async def end(
        self,
        job: int,
        state: JobState,
        reason: str = "",
        *,
        wake: float | None = None,
        revision: int | None = None,
    ) -> bool:
        """Give up the lease and, if the job is still running, leave it in this state.

        False: its state was changed meanwhile, or (with `revision`) more was added: then the lease is kept.
        """
        now, owner = self.clock(), self.owner

        def write(conn: Connection) -> bool:
            mine = " WHERE id = ? AND lease_owner = ? AND state = 'running'"
            cursor = conn.execute(
                "UPDATE jobs SET state = ?, reason = ?, wake = ?, finished = ?, lease_until = 0"
                + mine
                + ("" if revision is None else " AND revision = ?"),
                (
                    *(state, reason, wake, now if state in ("done", "failed") else None, job, owner),
                    *(() if revision is None else (revision,)),
                ),
            )
            if cursor.rowcount == 1:
                conn.execute(f"UPDATE jobs SET spent = {_SPENT} WHERE id = ?", (job,))
            return int(cursor.rowcount) == 1

        return await self.database.write(write, patience_s=PATIENCE_S)

    async def let_go(self, job: int) -> None:
        """Give up the lease and leave the job as it is, for the next runner."""

        def write(conn: Connection) -> None:
            conn.execute("UPDATE jobs SET lease_until = 0 WHERE id = ? AND lease_owner = ?", (job, self.owner))

        await self.database.write(write, patience_s=PATIENCE_S)

    async def note_failures(self, job: int, reasons: Mapping[bytes, tuple[str, bool]]) -> None:
        """Note texts that failed: why, and whether for good. Others are tried again, up to `MOST_TRIES` times."""

        def write(conn: Connection) -> None:
            conn.executemany(
                "INSERT INTO failures (job, digest, tries, final, reason) VALUES (?, ?, 1, ?, ?)"
                " ON CONFLICT DO UPDATE SET tries = tries + 1, reason = excluded.reason,"
                " final = max(excluded.final, tries + 1 >= ?)",
                [(job, digest, int(final), reason, MOST_TRIES) for digest, (reason, final) in reasons.items()],
            )

        await self.database.write(write, patience_s=PATIENCE_S)


def forget_texts(conn: Connection, digests: Sequence[bytes]) -> None:
    """Delete what is noted of these texts' failures, in the caller's transaction."""
    conn.executemany("DELETE FROM failures WHERE digest = ?", [(digest,) for digest in digests])
