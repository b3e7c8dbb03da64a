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
from router.store.database import Connection, Database, insert, marks, select

JobState = Literal["queued", "running", "paused", "waiting", "done", "failed", "cancelled"]
JobRoute = Literal["local", "api", "batch"]

OPEN: tuple[JobState, ...] = ("queued", "running", "paused", "waiting")
LEASE_S = 12.0
"""A runner that has not renewed its lease for this long is considered dead."""
MOST_TRIES = 3
"""Tries of a text that fails in a way that may have been billed; then it is failed until `retry`."""
PATIENCE_S = 600.0
_UNDER_WAY = "SELECT 1 FROM batches b WHERE b.job = jobs.id AND b.state IN ('intended', 'uploaded', 'submitted')"
_IS_OPEN = "state IN ('queued', 'running', 'paused', 'waiting')"
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
    """A job as it is stored. Times in epoch seconds, money in nanodollars, progress in distinct texts.

    Attributes:
        collection: the collection's name; `collection_id` its number in corpora.db, `generation` what is made.
        reason: why it is paused, waiting or failed, in words.
        wake: when a waiting job goes on by itself.
        revision: counts up with every confirmed addition.
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
        """A job, with what it has spent by now; BadInput where there is none."""
        found = select(self.database.reader(), Job, "FROM jobs WHERE id = ?", (number,), spent=_SPENT)
        if not found:
            raise BadInput(f"There is no job {number}.", "`python -m router jobs list` shows them.")
        return found[0]

    async def _current(self, number: int) -> Job:
        """`get`, off the event loop."""
        return await asyncio.to_thread(self.get, number)

    def all(self, *, collection: int | None = None, open_only: bool = False, limit: int = 200) -> list[Job]:
        """Jobs, newest first."""
        where = "? IS NULL" if collection is None else "collection_id = ?"
        rest = f"FROM jobs WHERE {where}{f' AND {_IS_OPEN}' * open_only} ORDER BY id DESC LIMIT ?"
        return select(self.database.reader(), Job, rest, (collection, limit))

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
        job = {
            "collection_id": collection_id, "collection": collection, "generation": generation, "policy": policy,
            "model": model, "route": route, "price_checked": price, "total": total, "done": done,
            "created": self.clock(),
        }  # fmt: skip

        def write(conn: Connection) -> int:
            row = conn.execute(f"SELECT id FROM jobs WHERE generation = ? AND {_IS_OPEN}", (generation,)).fetchone()
            if row is not None:
                conn.execute(
                    "UPDATE jobs SET revision = revision + 1, total = ?, done = ?, policy = ?, route = ?,"
                    " price_checked = ?, reason = CASE state WHEN 'running' THEN reason ELSE '' END, wake = NULL,"
                    " state = CASE state WHEN 'running' THEN state ELSE 'queued' END WHERE id = ?",
                    (total, done, policy, route, price, row[0]),
                )
                return int(row[0])
            return insert(conn, "jobs", job)

        return await self._current(await self.database.write(write))

    async def pause(self, number: int) -> Job:
        """Pause a job until it is resumed. Calls under way are still answered and charged.

        As `resume` and `cancel`, raises BadInput where it has ended, or there is none.
        """
        return await self._move(number, ("queued", "running", "waiting"), "paused", "paused by hand")

    async def resume(self, number: int, *, price: str | None = None) -> Job:
        """Go on with a job that is paused or waits; `price` is what is agreed to now, if it changed."""
        return await self._move(number, ("paused", "waiting"), "queued", "", price=price)

    async def cancel(self, number: int) -> Job:
        """End a job. What it made stays."""
        return await self._move(number, OPEN, "cancelled", "cancelled by hand")

    async def retry(self, number: int) -> Job:
        """Try the texts that failed again.

        Raises BadInput where another job works on the same generation, or there is none of this number.
        """
        job = await self._current(number)

        def write(conn: Connection) -> None:
            others = f"SELECT id FROM jobs WHERE generation = ? AND id <> ? AND {_IS_OPEN}"
            taken = conn.execute(others, (job.generation, number)).fetchone()
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
        moved = await self.database.execute(
            "UPDATE jobs SET state = ?, reason = ?, wake = NULL, price_checked = coalesce(?, price_checked),"
            f" finished = ? WHERE id = ? AND state IN ({marks(allowed)})",
            to, reason, price, self.clock() if to == "cancelled" else None, number, *allowed,
        )  # fmt: skip
        job = await self._current(number)
        if moved != 1 and job.state != to:
            raise BadInput(f"Job {number} is {job.state}.", "That cannot be done with it now.")
        return job

    # ---- what runners do ----

    async def claim(self, busy: Sequence[int], *, batch_only: bool = False, only: int | None = None) -> Job | None:
        """The next job to work on, leased to this process; None where there is nothing to do just now.

        A job that was paused, cancelled or failed is handed out too while batches of it are at a provider: their
        results are paid for and must be fetched. `busy` are not handed out; with `batch_only`, only those that go by
        batch are; with `only`, no other one is.
        """
        now, owner = self.clock(), self.owner
        batch = " AND route = 'batch'" if batch_only else ""
        ready = (
            f"SELECT id FROM jobs WHERE id NOT IN ({marks(busy)}){batch} AND id = coalesce(?, id) AND lease_until < ?"
            f" AND (state IN ('queued', 'running') OR state = 'waiting' AND wake <= ?"
            f" OR state IN ('waiting', 'paused', 'cancelled', 'failed') AND route = 'batch' AND EXISTS ({_UNDER_WAY}))"
            " ORDER BY id LIMIT 1"
        )
        values = (*busy, only, now, now)
        if await asyncio.to_thread(self.database.row, ready, *values) is None:
            return None

        def write(conn: Connection) -> int | None:
            row = conn.execute(ready, values).fetchone()
            if row is None:
                return None
            number = int(row[0])
            conn.execute(
                "UPDATE jobs SET lease_owner = ?, lease_until = ?, started = coalesce(started, ?) WHERE id = ?",
                (owner, now + LEASE_S, now, number),
            )
            conn.execute(
                "UPDATE jobs SET state = 'running', reason = '', wake = NULL WHERE id = ?"
                " AND (state = 'queued' OR state = 'waiting' AND wake <= ?)",
                (number, now),
            )
            return number

        number = await self.database.write(write)
        return None if number is None else await self._current(number)

    async def renew(self, job: int, *, total: int, done: int, failed: int, rate: float) -> Job | None:
        """Say that the runner lives and how far it is. None: the lease is lost, and it must stop."""
        renewed = await self.database.execute(
            f"UPDATE jobs SET lease_until = ?, total = ?, done = ?, failed = ?, rate = ?, spent = {_SPENT}"
            " WHERE id = ? AND lease_owner = ? AND lease_until > 0",
            self.clock() + LEASE_S, total, done, failed, rate, job, self.owner, patience_s=LEASE_S / 2,
        )  # fmt: skip
        return await self._current(job) if renewed == 1 else None

    async def end(
        self, job: int, state: JobState, reason: str = "", *, wake: float | None = None, revision: int | None = None
    ) -> bool:
        """Give up the lease and, if the job is still running, leave it in this state.

        False: its state was changed meanwhile, or (with `revision`) more was added: then the lease is kept.
        """
        finished = self.clock() if state in ("done", "failed") else None
        ended = await self.database.execute(
            f"UPDATE jobs SET state = ?, reason = ?, wake = ?, finished = ?, lease_until = 0, spent = {_SPENT}"
            " WHERE id = ? AND lease_owner = ? AND state = 'running' AND revision = coalesce(?, revision)",
            state, reason, wake, finished, job, self.owner, revision, patience_s=PATIENCE_S,
        )  # fmt: skip
        return ended == 1

    async def let_go(self, job: int) -> None:
        """Give up the lease and leave the job as it is, for the next runner."""
        sql = "UPDATE jobs SET lease_until = 0 WHERE id = ? AND lease_owner = ?"
        await self.database.execute(sql, job, self.owner, patience_s=PATIENCE_S)

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
