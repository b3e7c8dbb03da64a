"""Jobs against the provider on loopback: every text once, and what stops a job stops it in words."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from router.jobs.worker import Worker
from router.sandbox import Fault, Sandbox
from router.store.jobs import LEASE_S, Job
from tests.faults.ledger_oracle import audit
from tests.libraries import LARGE, SMALL, Clock, Opened, assert_right, billed, jsonl, opened, texts
from tests.waits import noted, until


@pytest.fixture
def rows() -> list[str]:
    """The texts of a small corpus."""
    return texts(230)


@pytest.fixture
def file(tmp_path: Path, rows: list[str]) -> Path:
    """The corpus, one text twice."""
    return jsonl(tmp_path / "letters.jsonl", [*rows, rows[0]])


async def run(here: Opened) -> Job:
    """Run what can be run; the only job."""
    await here.worker.run_all()
    [job] = here.library.jobs.all()
    return here.library.job(job.id)


async def test_a_job_embeds_every_distinct_text_once(
    tmp_path: Path, provider: Sandbox, file: Path, rows: list[str]
) -> None:
    """Done is done: the vectors are right, the bill is what the job says, and a second confirmation pays nothing."""
    async with opened(tmp_path / "data", provider) as here:
        number = await here.embed("letters", file)
        job = here.library.job(number)
        assert (job.state, job.total, job.done, job.failed) == ("done", 230, 230, 0)
        assert billed(provider) == (230, 1)
        assert job.spent == provider.bill().nanodollars > 0
        assert_right(here.router, rows)
        assert await here.library.coverage("letters") == (230, 230)
        again = await here.library.confirm("letters")
        await here.worker.run_all()
        assert again.id != number
        assert here.library.job(again.id).spent == 0
        assert billed(provider) == (230, 1)


async def test_adding_a_file_embeds_only_what_is_new(
    tmp_path: Path, provider: Sandbox, file: Path, rows: list[str]
) -> None:
    """What is cached, from wherever, is not paid for."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        more = jsonl(tmp_path / "more.jsonl", [*rows[:100], *texts(20, "new letter")])
        await here.library.add_files("letters", [more])
        assert (await here.library.quote("letters")).chosen.verdict.cached == 230  # type: ignore[union-attr]  # chosen
        job = await here.library.confirm("letters")
        await here.worker.run_all()
        assert billed(provider) == (250, 1)
        assert here.library.job(job.id).total == 250


async def test_editing_one_document_of_a_thousand_pays_for_its_changed_chunks(
    tmp_path: Path, provider: Sandbox
) -> None:
    """The file is read again; its other chunks, of this document and of the others, cost nothing."""
    documents = [[f"Document {at} says what to do."] for at in range(1_000)]
    documents[500] = [f"Part {n} of a long document says what is to be done about it. " for n in range(8)]
    async with opened(tmp_path / "data", provider, block=1_000) as here:
        await here.library.create("documents", model=SMALL, policy="quality", chunk_tokens=16)
        path = tmp_path / "documents.jsonl"

        async def upload() -> int:
            jsonl(path, ["".join(parts) for parts in documents])
            [report] = await here.library.add_files("documents", [path])
            await here.library.confirm("documents")
            await here.worker.run_all()
            return report.chunks

        chunks = await upload()
        assert chunks >= 1_007
        assert billed(provider) == (chunks, 1)
        documents[500][4] = "This sentence stands there in its place, and says something else. "
        again = await upload()
        assert 1 <= billed(provider)[0] - chunks <= 3
        assert billed(provider)[1] == 1
        assert await here.library.coverage("documents") == (again, again)


async def test_the_price_of_a_query_is_not_the_jobs(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """A search is charged to the collection, and no job's `spent` moves."""
    async with opened(tmp_path / "data", provider) as here:
        number = await here.embed("letters", file)
        before = here.library.job(number).spent
        assert (await here.library.search("letters", "how to mend things")).query.cost > 0
        assert here.library.job(number).spent == before


@pytest.mark.parametrize("rule", ["wait", "refuse", "local"])
async def test_out_of_money_it_waits_or_stops_and_never_changes_space(
    tmp_path: Path, provider: Sandbox, file: Path, rule: str
) -> None:
    """With `wait` it says when it goes on, and does; otherwise it stops until somebody resumes it."""
    clock = Clock(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())
    async with opened(tmp_path / "data", provider, clock=clock) as here:
        await here.allow("0.00004/month", when_exhausted=rule)
        number = await here.embed("letters", file)
        job = here.library.job(number)
        assert 0 < job.done < job.total
        assert 0 < job.spent <= 40_000
        assert "month's" in job.reason
        assert [k.space for k in here.router.cache.keys().values()] == [SMALL]
        if rule == "wait":
            assert job.state == "waiting"
            assert job.wake == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
            assert "1 December" in job.reason
            clock.now = job.wake + 1
            await here.allow("5/month", when_exhausted=rule)
        else:
            assert (job.state, job.wake) == ("paused", None)
            await here.worker.run_all()
            assert here.library.job(number).state == "paused"
            await here.allow("5/month", when_exhausted=rule)
            await here.library.resume(number)
        await here.worker.run_all()
        assert here.library.job(number).state == "done"
        assert billed(provider) == (230, 1)


async def test_the_kill_switch_pauses_the_job(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Nothing is sent; the reason says what to do."""
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters")
        await here.router.policies.set_paid(False)
        await here.worker.run_all()
        assert here.library.job(job.id).state == "paused"
        assert "switched off" in here.library.job(job.id).reason
        assert billed(provider)[0] == 0


async def test_a_provider_that_is_away_is_tried_again_later_by_itself(
    tmp_path: Path, provider: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer and longer pauses, nothing failed, and no text twice on the bill."""
    monkeypatch.setattr("router.dispatch.steps.FIRST_WAIT_S", 0.005)
    monkeypatch.setattr("router.dispatch.steps.LONGEST_WAIT_S", 0.02)
    clock = Clock()
    async with opened(tmp_path / "data", provider, clock=clock) as here:
        provider.faults.add(Fault("refuse", times=None))
        number = await here.embed("letters", file)
        pauses = []
        for _ in range(3):
            job = here.library.job(number)
            assert (job.state, job.done, job.failed) == ("waiting", 0, 0)
            assert job.wake is not None
            pauses.append(job.wake - clock.now)
            clock.now = job.wake
            await here.worker.run_all()
        assert pauses == sorted(pauses)
        assert pauses[0] < pauses[-1]
        assert billed(provider)[0] == 0


async def test_one_bad_text_does_not_stop_the_others(tmp_path: Path, provider: Sandbox, rows: list[str]) -> None:
    """It is named with its reason, and tried again only when somebody asks."""
    rows[77] = "the poisoned letter"
    file = jsonl(tmp_path / "letters.jsonl", rows)
    async with opened(tmp_path / "data", provider) as here:
        provider.faults.add(Fault("poison", match="poisoned", times=None))
        number = await here.embed("letters", file)
        job = here.library.job(number)
        assert (job.state, job.done, job.failed) == ("done", 229, 1)
        assert "1 of 230" in job.reason
        [(chunk, why)] = here.library.failures(number)
        assert chunk.text == "the poisoned letter"
        assert why
        provider.faults.clear()
        await here.library.retry(number)
        await here.worker.run_all()
        job = here.library.job(number)
        assert (job.state, job.done, job.failed) == ("done", 230, 0)
        assert billed(provider) == (230, 1)


async def test_a_rising_price_stops_the_job_and_asks(
    tmp_path: Path, provider: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent at the new price before somebody agrees to it; a falling one is nobody's worry."""
    from decimal import Decimal

    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters")
        prices = {"api": Decimal("0.03")}
        monkeypatch.setattr("router.jobs.errors.current_price", lambda router, model, route: prices[route])
        monkeypatch.setattr("router.jobs.planning.current_price", lambda router, model, route: prices[route])
        await here.worker.run_all()
        paused = here.library.job(job.id)
        assert paused.state == "paused"
        assert "rose from $0.02 to $0.03" in paused.reason
        assert billed(provider)[0] == 0
        await here.library.resume(job.id)
        prices["api"] = Decimal("0.01")
        await here.worker.run_all()
        assert here.library.job(job.id).state == "done"


async def test_a_changed_model_stops_the_job(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Vectors of another space under the same name would poison the collection."""
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters")

        def change(conn: object) -> None:
            conn.execute("UPDATE generations SET space = 'another'")  # type: ignore[attr-defined]  # a Connection

        await here.library.corpora.database.write(change)
        await here.worker.run_all()
        assert here.library.job(job.id).state == "paused"
        assert "must not be mixed" in here.library.job(job.id).reason
        assert billed(provider)[0] == 0


async def test_pause_stops_a_running_job_and_resume_goes_on(tmp_path: Path, provider: Sandbox) -> None:
    """Calls that have left are booked and stored; nothing is lost and nothing is paid twice."""
    rows = texts(1_500)
    file = jsonl(tmp_path / "letters.jsonl", rows)
    provider.configure(latency_ms=20)
    async with opened(tmp_path / "data", provider, block=50) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters")
        here.worker.start()
        await until(lambda: here.library.job(job.id).done >= 100)
        paused = await here.library.pause(job.id)
        assert paused.state == "paused"
        await until(lambda: not here.worker._runs)
        done, _ = billed(provider)
        looks = noted(here.library.jobs, "claim")
        await until(lambda: len(looks) > 2)  # the worker looks for jobs, and passes this one over
        assert billed(provider)[0] <= done + 50
        assert here.library.job(job.id).done < 1_500
        await here.library.resume(job.id)
        await until(lambda: here.library.job(job.id).state == "done")
        assert billed(provider) == (1_500, 1)
        assert_right(here.router, rows)


async def test_a_runner_that_stops_leaves_the_job_to_the_next(tmp_path: Path, provider: Sandbox) -> None:
    """The program ends in good order in the middle: another one goes on at once, where the cache ends."""
    rows = texts(600)
    file = jsonl(tmp_path / "letters.jsonl", rows)
    provider.configure(latency_ms=10)
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters")
        here.worker.start()
        await until(lambda: here.library.job(job.id).done >= 50)
        await here.worker.stop()
        assert here.library.job(job.id).state == "running"
    async with opened(tmp_path / "data", provider) as here:
        await here.worker.run_all()
        job = here.library.job(job.id)
        assert (job.state, job.done) == ("done", 600)
        assert billed(provider) == (600, 1)
        assert job.spent == provider.bill().nanodollars


async def test_a_batch_job_costs_half_and_says_so(
    tmp_path: Path, provider: Sandbox, file: Path, rows: list[str]
) -> None:
    """The same job by the batch tier: half the price to the nanodollar, the same vectors."""
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        candidate = (await here.library.quote("letters")).chosen
        assert candidate is not None
        job = await here.library.confirm("letters", route="batch")
        await here.worker.run_all()
        job = here.library.job(job.id)
        assert (job.state, job.done, job.route) == ("done", 230, "batch")
        assert candidate.now_cost is not None
        assert job.spent * 2 == candidate.now_cost == provider.bill().nanodollars * 2
        assert_right(here.router, rows)


async def test_a_cancelled_batch_job_is_wound_up(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """The batch is cancelled at the provider, and no money stays held."""
    provider.configure(batch_seconds=1e9)
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters", route="batch")
        here.worker.start()
        await until(lambda: audit(here.router.database.reader()).held > 0)
        await until(lambda: any(r.operation == "POST /batches" for r in provider.received()))
        await here.library.cancel(job.id)
        await until(lambda: any(r.operation.endswith("/cancel") for r in provider.received()))
        provider.configure(batch_seconds=0)  # the provider is done with cancelling
        await until(lambda: audit(here.router.database.reader()).held == 0)
        assert here.library.job(job.id).state == "cancelled"
        assert billed(provider)[0] == 0


async def test_a_better_generation_switches_when_it_is_whole(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Until then the old one is searched; when the new one is complete, it is searched from one moment to the next."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        before = await here.library.search("letters", "letter number 7 on how to mend")
        provider.faults.add(Fault("quota", skip=1, times=None))
        job = await here.library.improve("letters", LARGE, route="api")
        await here.worker.run_all()
        assert here.library.job(job.id).state == "paused"
        assert (await here.library.search("letters", "letter number 7 on how to mend")).query.space == SMALL
        provider.faults.clear()
        await here.library.resume(job.id)
        await here.worker.run_all()
        after = await here.library.search("letters", "letter number 7 on how to mend")
        assert (after.query.space, after.searched, after.missing) == (LARGE, 230, 0)
        states = {g.space: g.state for g in here.library.info("letters").generations}
        assert states == {SMALL: "former", LARGE: "active"}
        assert before.query.space == SMALL
        [old] = [g for g in here.library.info("letters").generations if g.state == "former"]
        await here.library.drop(old.id)
        assert [g.space for g in here.library.info("letters").generations] == [LARGE]


async def test_a_fault_of_ours_fails_one_job_and_not_the_others(
    tmp_path: Path, provider: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job says what happened; the worker goes on with the next one."""
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("first", file)
        first = await here.library.confirm("first")
        await here.fill("second", file)
        second = await here.library.confirm("second")
        one = Worker._one

        async def broken(self: Worker, job: Job, *rest: object) -> None:
            if job.id == first.id:
                raise ZeroDivisionError("a fault of ours")
            await one(self, job, *rest)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(Worker, "_one", broken)
        await here.worker.run_all()
        assert here.library.job(first.id).state == "failed"
        assert "ZeroDivisionError" in here.library.job(first.id).reason
        assert here.library.job(second.id).state == "done"


async def test_a_dead_runners_job_is_taken_over(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Its lease runs out; nobody has to do anything."""
    clock = Clock()
    async with opened(tmp_path / "data", provider, clock=clock) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters")
        dead = type(here.library.jobs)(here.router.database, clock, "dead")
        assert await dead.claim([]) is not None
        await here.worker.run_all()
        assert here.library.job(job.id).done == 0
        clock.now += LEASE_S + 1
        await here.worker.run_all()
        assert here.library.job(job.id).state == "done"
