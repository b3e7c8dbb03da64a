"""Jobs as rows: one runner each, states that nobody overwrites, money that is counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.domain.errors import BadInput
from router.engine import Router
from router.store.jobs import LEASE_S, MOST_TRIES, Job, JobStore
from tests.libraries import SMALL, Clock


class Runners:
    """Two programs on one data folder."""

    def __init__(self, router: Router, clock: Clock) -> None:
        self.router = router
        self.clock = clock
        self.one = JobStore(router.database, clock, "one")
        self.two = JobStore(router.database, clock, "two")

    async def job(self, **changes: Any) -> Job:
        """A queued job."""
        values = {
            "collection_id": 1, "collection": "letters", "generation": 1, "policy": "quality", "model": SMALL,
            "route": "api", "price": "0.02", "total": 10, "done": 0,
        } | changes  # fmt: skip
        return await self.one.create(**values)


@pytest.fixture
async def runners(tmp_path: Path) -> AsyncIterator[Runners]:
    """Two programs, and a clock that both go by."""
    clock = Clock()
    async with Router.open(tmp_path, env={}, clock=clock) as router:
        yield Runners(router, clock)


async def test_a_job_has_one_runner(runners: Runners) -> None:
    """Of two that look at once, one gets it; the other only when the lease has run out."""
    await runners.job()
    got = await asyncio.gather(*(store.claim([]) for store in (runners.one, runners.two) * 8))
    assert sum(job is not None for job in got) == 1
    owner = next(job for job in got if job is not None).lease_owner
    mine, other = (runners.one, runners.two) if owner == "one" else (runners.two, runners.one)
    runners.clock.now += LEASE_S - 1
    assert await mine.renew(1, total=10, done=3, failed=0, rate=1.0) is not None
    runners.clock.now += LEASE_S - 1
    assert await other.claim([]) is None
    runners.clock.now += 2
    taken = await other.claim([])
    assert taken is not None
    assert (taken.lease_owner, taken.done) == (other.owner, 3)
    assert await mine.renew(1, total=10, done=4, failed=0, rate=1.0) is None
    assert not await mine.end(1, "done")
    assert runners.one.get(1).state == "running"


async def test_an_orderly_end_leaves_the_job_to_the_next_runner_at_once(runners: Runners) -> None:
    """Nobody waits for the lease of a program that said goodbye."""
    await runners.job()
    assert await runners.one.claim([]) is not None
    await runners.one.let_go(1)
    taken = await runners.two.claim([])
    assert taken is not None
    assert taken.state == "running"


async def test_what_a_person_asks_for_is_not_overwritten_by_the_runner(runners: Runners) -> None:
    """A pause between the last block and its end stands; so does a cancel."""
    await runners.job()
    await runners.one.claim([])
    paused = await runners.two.pause(1)
    assert (paused.state, paused.reason) == ("paused", "paused by hand")
    assert not await runners.one.end(1, "done")
    assert runners.one.get(1).state == "paused"
    await runners.one.let_go(1)
    assert await runners.one.claim([]) is None
    assert (await runners.two.resume(1)).state == "queued"
    assert await runners.one.claim([]) is not None
    cancelled = await runners.two.cancel(1)
    assert (cancelled.state, cancelled.open) == ("cancelled", False)
    with pytest.raises(BadInput, match="is cancelled"):
        await runners.two.pause(1)
    with pytest.raises(BadInput, match="no job 7"):
        await runners.two.pause(7)


async def test_a_waiting_job_goes_on_when_its_time_has_come(runners: Runners) -> None:
    """And not before, unless somebody resumes it."""
    await runners.job()
    await runners.one.claim([])
    assert await runners.one.end(1, "waiting", "no money", wake=runners.clock.now + 100)
    assert await runners.two.claim([]) is None
    runners.clock.now += 99
    assert await runners.two.claim([]) is None
    runners.clock.now += 1
    woken = await runners.two.claim([])
    assert woken is not None
    assert (woken.state, woken.reason, woken.wake) == ("running", "", None)


async def test_a_job_that_more_was_added_to_does_not_end(runners: Runners) -> None:
    """A generation has one open job, which takes on what was added; ending needs the revision that was seen."""
    first = await runners.job()
    claimed = await runners.one.claim([])
    assert claimed is not None
    again = await runners.job(total=20)
    assert (again.id, again.total, again.state) == (first.id, 20, "running")
    assert not await runners.one.end(1, "done", revision=claimed.revision)
    assert await runners.one.end(1, "done", revision=claimed.revision + 1)
    assert (await runners.job()).id != first.id


async def test_a_failure_is_final_after_so_many_tries(runners: Runners) -> None:
    """One that can never pass is final at once; `retry` forgets them all."""
    await runners.job()
    await runners.one.claim([])
    await runners.one.note_failures(1, {b"bad": ("rejected", True)})
    for tries in range(1, MOST_TRIES + 1):
        await runners.one.note_failures(1, {b"odd": ("a broken answer", False)})
        assert runners.one.failed(1) == ({b"bad", b"odd"} if tries == MOST_TRIES else {b"bad"})
    assert runners.one.failures(1) == {b"bad": "rejected", b"odd": "a broken answer"}
    await runners.one.end(1, "done")
    assert (await runners.two.retry(1)).state == "queued"
    assert runners.two.failed(1) == set()


async def test_retrying_beside_another_job_is_refused(runners: Runners) -> None:
    """Two jobs on one generation would be two runners."""
    await runners.job()
    await runners.one.cancel(1)
    second = await runners.job()
    with pytest.raises(BadInput, match=f"Job {second.id} works"):
        await runners.one.retry(1)


async def test_a_paused_job_with_batches_under_way_is_still_followed(runners: Runners) -> None:
    """What a provider has finished is paid for and must be fetched; nothing new is sent, and the state stays."""
    await runners.job(route="batch")
    await runners.one.pause(1)
    assert await runners.one.claim([]) is None

    def submit(conn: Any) -> None:
        conn.execute(
            "INSERT INTO batches (job, key, provider, model, state, hold, texts, tokens, created)"
            " VALUES (1, 'k', 'openai', 'm', 'submitted', 1, 0, 0, 0)"
        )

    await runners.router.database.write(submit)
    followed = await runners.one.claim([])
    assert followed is not None
    assert (followed.state, followed.reason) == ("paused", "paused by hand")
    assert await runners.two.claim([]) is None
