"""The batch tier against the provider on loopback: half the price, its states, its budgets, the way back to it."""

from __future__ import annotations

import threading
import time
import traceback
from pathlib import Path

import pytest

from router.batches.states import LOOKS
from router.batches.texts import BatchLimits
from router.domain.errors import BudgetExceeded, KeyRejected, NotConfigured, QuotaExhausted, Refused
from router.domain.values import Budget, BudgetState, Policy
from router.engine import Router
from router.providers.batch import BatchClient
from router.sandbox import Fault, Sandbox
from router.store.batches import UNDER_WAY
from router.store.database import Connection, Database
from tests.batches.batches import (
    SMALL,
    TEXTS,
    SomeJob,
    advance,
    assert_right,
    batches_made,
    finish,
    misses_of,
    opened,
    sandbox,
    stored,
)
from tests.faults.ledger_oracle import audit

__all__ = ["sandbox"]  # the provider, whose batches move by hand

LARGE = "openai/text-embedding-3-large"


async def set_budget(router: Router, amount: int) -> None:
    """Let the policy `quality` spend so many nanodollars a month."""
    policy = Policy(name="quality", goal="quality", budgets=(Budget(amount=amount, window="month"),))
    await router.policies.save(policy, [m.id for m in router.catalog.models])


@pytest.mark.parametrize(
    ("model", "share"), [(SMALL, 0.5), (LARGE, 0.5), ("voyage/voyage-4", 0.67), ("voyage/voyage-3-lite", 0.67)]
)
async def test_a_job_costs_its_batch_price_to_the_nanodollar(
    tmp_path: Path, sandbox: Sandbox, model: str, share: float
) -> None:
    """Charged is what the provider billed, which is the share of what the same texts cost now; the rest is saved."""
    job = SomeJob(model=model)
    async with opened(tmp_path, sandbox) as (router, tier):
        progress = await tier.step(job, misses_of(router, TEXTS, model))
        assert (progress.open, progress.done, progress.spent, progress.moved) == (1, 0, 0, True)
        held = router.ledger.totals()[2]
        assert (await tier.step(job, misses_of(router, TEXTS, model))).moved is False
        advance(router, sandbox)
        progress = await finish(router, tier, sandbox, TEXTS, job)
        assert (progress.open, progress.done, progress.failed, progress.error) == (0, 40, 0, None)
        assert_right(router, TEXTS, model)
        bill, sums = sandbox.bill(), audit(router.database.reader())
        assert bill.nanodollars == sums.settled == progress.spent
        assert (sums.unconfirmed, sums.held, sums.pending, bill.most_often) == (0, 0, 0, 1)
        assert bill.nanodollars <= held
        total = router.usage.total(since=0, until=time.time() + 900)
        assert (total.texts, total.tokens, total.charged) == (40, bill.tokens, bill.nanodollars)
        assert total.avoided_batch > 0
        (request,) = router.usage.requests(since=0, until=time.time() + 1)
        assert (request["status"], request["batch"], request["charged"]) == ("done", 40, bill.nanodollars)
        assert request["avoided"] == total.avoided_batch

        price_now = {SMALL: 20, LARGE: 130, "voyage/voyage-4": 60, "voyage/voyage-3-lite": 20}[model]
        now = bill.tokens * price_now
        assert total.avoided_batch == now - bill.nanodollars
        if share == 0.5:
            assert bill.nanodollars * 2 == now
        else:
            assert now * share <= bill.nanodollars < now * share + len(TEXTS)
        assert batches_made(sandbox) == 1


async def test_half_of_what_the_same_texts_cost_now(tmp_path: Path, sandbox: Sandbox) -> None:
    """The same corpus through calls and through a batch: exactly twice and once."""
    async with opened(tmp_path / "now", sandbox) as (router, _):
        paid = await router.embed(TEXTS, policy="quality", model=SMALL)
    bill_now = sandbox.bill().nanodollars
    sandbox.reset()
    async with opened(tmp_path / "batch", sandbox) as (router, tier):
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
    assert bill_now == paid.cost
    assert 2 * sandbox.bill().nanodollars == 2 * progress.spent == bill_now


async def test_a_restart_finds_the_batch_again(tmp_path: Path, sandbox: Sandbox) -> None:
    """Stopped between submission and completion: no second batch, and the money stays held meanwhile."""
    job = SomeJob()
    async with opened(tmp_path, sandbox) as (router, tier):
        await tier.step(job, misses_of(router, TEXTS))
        held = router.ledger.totals()[2]
        assert held > 0
    later = time.time() + 3_600  # long after the lease of the first program
    async with opened(tmp_path, sandbox, clock=lambda: later) as (router, tier):
        await router.ledger.sweep()
        assert router.ledger.totals() == (0, 0, held)
        assert [batch.state for batch in tier.store.of_job(job.id)] == ["submitted"]
        progress = await finish(router, tier, sandbox, TEXTS, job)
        assert (progress.done, progress.spent) == (40, sandbox.bill().nanodollars)
        assert_right(router, TEXTS)
        assert tier.store.of_job(job.id, *UNDER_WAY) == []
    assert batches_made(sandbox) == 1


async def test_many_batches_of_limited_size(tmp_path: Path, sandbox: Sandbox) -> None:
    """Limits of lines and of bytes divide a job; every text is billed once; nothing is left at the provider."""
    for limits in (BatchLimits(lines=7), BatchLimits(bytes=1_000)):
        sandbox.reset()
        async with opened(tmp_path / str(limits.lines), sandbox, limits=limits) as (router, tier):
            progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
            assert progress.done == 40
            assert_right(router, TEXTS)
            assert progress.spent == sandbox.bill().nanodollars
            for row in router.database.reader().execute("SELECT texts FROM batches"):
                assert row[0] <= 7
        assert batches_made(sandbox) >= 6
        assert sandbox.bill().most_often == 1
        assert sandbox._batches.files == {}
        assert list((tmp_path / str(limits.lines) / "batches").iterdir()) == []


async def test_texts_of_a_batch_are_claimed(tmp_path: Path, sandbox: Sandbox) -> None:
    """Another job, and another model of the job's own, do not pay for what is under way."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS[:20]))
        other = await tier.step(SomeJob(id=2), misses_of(router, TEXTS[:30]))
        assert (other.open, other.waiting) == (1, 20)
        await finish(router, tier, sandbox, TEXTS[:20], SomeJob())
        progress = await finish(router, tier, sandbox, TEXTS[:30], SomeJob(id=2))
        assert progress.done == 10
    assert (sandbox.bill().texts, sandbox.bill().most_often) == (30, 1)


async def test_a_budget_takes_what_fits_and_says_what_does_not(tmp_path: Path, sandbox: Sandbox) -> None:
    """A part goes as a batch; the next step submits nothing and names the budget; more money, and the rest goes."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await set_budget(router, 1_500)
        job = SomeJob()
        progress = await finish(router, tier, sandbox, TEXTS, job)
        assert isinstance(progress.error, BudgetExceeded)
        assert "month" in progress.reason
        assert 0 < progress.done < 40
        assert progress.spent == sandbox.bill().nanodollars <= 1_500
        made = batches_made(sandbox)
        assert not (await tier.step(job, misses_of(router, TEXTS))).moved
        assert batches_made(sandbox) == made
        await set_budget(router, 1_000_000)
        progress = await finish(router, tier, sandbox, TEXTS, job)
        assert (progress.done, progress.error) == (40, None)
        assert progress.spent == sandbox.bill().nanodollars


async def test_a_budget_a_request_limits_each_batch(tmp_path: Path, sandbox: Sandbox) -> None:
    """Its whole room is there for every batch anew; a job needs more batches and no more money."""
    budget = Budget(amount=1_500, window="request")
    assert BudgetState(owner="policy/quality", budget=budget, used=1_400).left == 1_500
    async with opened(tmp_path, sandbox) as (router, tier):
        policy = Policy(name="quality", goal="quality", budgets=(budget,))
        await router.policies.save(policy, [m.id for m in router.catalog.models])
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert (progress.done, progress.error) == (40, None)
        for (amount,) in router.database.reader().execute("SELECT amount FROM holds"):
            assert 0 < amount <= 1_500
    assert batches_made(sandbox) > 1
    assert sandbox.bill().most_often == 1


@pytest.mark.parametrize(("maker", "model", "pays"), [("large", "lite", False), ("lite", "large", True)])
async def test_a_better_member_of_the_family_has_paid_already(
    tmp_path: Path, sandbox: Sandbox, maker: str, model: str, pays: bool
) -> None:
    """Its vectors of documents answer for a lesser one, under the ledger's lock as everywhere; never the other way.

    The job's own look came before they were stored, so that only the lock keeps it from paying.
    """
    job = SomeJob(model=f"voyage/voyage-4-{model}")
    async with opened(tmp_path, sandbox) as (router, tier):
        misses = misses_of(router, TEXTS[:12], job.model)
        await router.embed(TEXTS[:10], model=f"voyage/voyage-4-{maker}", policy="quality")
        paid = sandbox.bill().texts
        assert paid == 10
        progress = await tier.step(job, misses)
        assert (progress.open, progress.error) == (1, None)
        [(texts,)] = router.database.reader().execute("SELECT texts FROM batches")
        assert texts == (12 if pays else 2)
        advance(router, sandbox)
        await tier.step(job, lambda n: {})
        assert sandbox.bill().texts == paid + texts
        if not pays:
            progress = await tier.step(job, misses_of(router, TEXTS[:10], job.model))
            assert (progress.open, progress.moved) == (0, False)


async def test_sqlite_is_not_read_on_the_loop(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 50,000 texts takes a moment to read; meanwhile the loop answers others."""
    here, plain, calls = threading.get_ident(), Database.reader, []

    def reader(self: Database, **options: bool | None) -> Connection:
        walked = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)]
        if any("/router/batches/" in name for name in walked):
            calls.append(threading.get_ident())
        return plain(self, **options)

    async with opened(tmp_path, sandbox, limits=BatchLimits(lines=20)) as (router, tier):
        misses = [misses_of(router, TEXTS) for _ in range(2)]
        monkeypatch.setattr(Database, "reader", reader)
        for more in misses:
            await tier.step(SomeJob(), more)
        await tier.cancel(SomeJob())
        advance(router, sandbox, "cancelled", 10)
        assert (await tier.step(SomeJob(), lambda n: {})).done == 20
    assert calls
    assert here not in calls


async def test_a_budget_without_room_sends_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    """Not even a file goes up; no request is noted."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await set_budget(router, 1)
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, BudgetExceeded)
        assert (progress.open, progress.moved) == (0, False)
        assert router.usage.requests(since=0, until=time.time() + 1) == []
    assert sandbox.received() == []


async def test_the_kill_switch_stops_submissions_and_not_results(tmp_path: Path, sandbox: Sandbox) -> None:
    """Nothing new is sent; what is under way is collected."""
    async with opened(tmp_path, sandbox, limits=BatchLimits(lines=20)) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        await router.policies.set_paid(False)
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert isinstance(progress.error, Refused)
        assert (progress.done, batches_made(sandbox)) == (20, 1)
        await router.policies.set_paid(True)
        assert (await finish(router, tier, sandbox, TEXTS, SomeJob())).done == 40


async def test_the_kill_switch_counts_until_the_batch_is_made(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turned while the file goes up: the file is deleted again, and the money released."""
    upload = BatchClient.upload
    async with opened(tmp_path, sandbox) as (router, tier):

        async def slow(self: BatchClient, path: Path) -> str:
            file = await upload(self, path)
            await router.policies.set_paid(False)
            return file

        monkeypatch.setattr(BatchClient, "upload", slow)
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, Refused)
        assert (progress.open, router.ledger.totals()) == (0, (0, 0, 0))
    assert batches_made(sandbox) == 0
    assert sandbox._batches.files == {}


@pytest.mark.parametrize(("kind", "error"), [("quota", QuotaExhausted), ("key_revoked", KeyRejected)])
@pytest.mark.parametrize("on", ["POST /files", "POST /batches"])
async def test_a_refused_submission_releases_everything(
    tmp_path: Path, sandbox: Sandbox, kind: str, error: type[Exception], on: str
) -> None:
    """No hold, no claim, no batch; the error says why, so that the job can pause; then it goes on."""
    async with opened(tmp_path, sandbox) as (router, tier):
        sandbox.faults.add(Fault(kind, on=on))
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, error)
        assert (progress.open, progress.spent) == (0, 0)
        conn = router.database.reader()
        assert audit(conn).held == 0
        assert conn.execute("SELECT count(*) FROM claims").fetchone() == (0,)
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert (progress.done, batches_made(sandbox)) == (40, 1)


async def test_without_a_key_nothing_is_held(tmp_path: Path, sandbox: Sandbox) -> None:
    """The error says which key is missing."""
    async with opened(tmp_path, sandbox, env={"OPENAI_BASE_URL": f"{sandbox.url}/openai/v1"}) as (router, tier):
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, NotConfigured)
        assert router.ledger.totals() == (0, 0, 0)


async def test_a_model_without_a_batch_price_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    """Cohere sells no batches; nothing is sent."""
    job = SomeJob(model="cohere/embed-v4.0")
    async with opened(tmp_path, sandbox) as (router, tier):
        progress = await tier.step(job, misses_of(router, TEXTS, job.model))
        assert isinstance(progress.error, Refused)
        assert "no batch tier" in progress.reason
    assert sandbox.received() == []


@pytest.mark.parametrize("fault", [Fault("reset", on="POST /batches"), Fault("half_json", on="POST /batches"),
                                   Fault("html", on="POST /batches")])  # fmt: skip
async def test_a_submission_whose_answer_is_lost_is_found_again(tmp_path: Path, sandbox: Sandbox, fault: Fault) -> None:
    """The batch exists all the same: it is found by its key, and not made twice."""
    async with opened(tmp_path, sandbox) as (router, tier):
        sandbox.faults.add(fault)
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert (progress.open, progress.error) == (1, None)
        assert progress.reason
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert progress.done == 40
    assert len(sandbox._batches.batches) == 1
    assert sandbox.bill().most_often == 1


async def test_a_submission_that_never_arrived_is_made_after_the_grace(tmp_path: Path, sandbox: Sandbox) -> None:
    """Not in the list: it may yet come for a while; then the same file is submitted, under the same key."""
    now = [time.time()]
    async with opened(tmp_path, sandbox, clock=lambda: now[0], grace_s=30.0) as (router, tier):
        sandbox.faults.add(Fault("status", status=503, on="POST /batches"))
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        for _ in range(3):
            assert not (await tier.step(SomeJob(), misses_of(router, TEXTS))).moved
        assert batches_made(sandbox) == 0
        now[0] += 31
        assert (await tier.step(SomeJob(), misses_of(router, TEXTS))).moved
        assert batches_made(sandbox) == 1
        assert (await finish(router, tier, sandbox, TEXTS, SomeJob())).done == 40
    assert sum(entry.operation == "POST /files" for entry in sandbox.received()) == 1


async def test_passing_trouble_is_waited_out(tmp_path: Path, sandbox: Sandbox) -> None:
    """A 503 while polling, and while downloading: told, waited for longer each time, and over."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        sandbox.faults.add(Fault("status", status=503, on="GET /batches/", times=2))
        first = await tier.step(SomeJob(), misses_of(router, TEXTS))
        second = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert "503" in first.reason
        assert first.error is None
        assert second.next_poll_s > first.next_poll_s > 0
        advance(router, sandbox)
        for kind in ("status", "reset", "half_json", "html"):
            sandbox.faults.add(Fault(kind, on="GET /files/"))
            progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
            assert (progress.open, progress.spent, progress.error) == (1, 0, None), kind
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert (progress.done, progress.spent) == (40, sandbox.bill().nanodollars)
        assert_right(router, TEXTS)


async def test_results_that_do_not_end_are_given_up(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file longer than its texts explain is looked at three times; what was billed is unconfirmed, never less."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        advance(router, sandbox)
        with monkeypatch.context() as patch:
            patch.setattr("router.batches.states.results_limit", lambda model, texts: 2_000)
            reasons = [(await tier.step(SomeJob(), misses_of(router, []))).reason for _ in range(LOOKS)]
        assert all("incomplete" in reason for reason in reasons[:-1])
        sums = audit(router.database.reader())
        assert (sums.settled, sums.held) == (0, 0)
        assert sums.unconfirmed >= sandbox.bill().nanodollars > 0
        downloads = [entry for entry in sandbox.received() if entry.operation.endswith("/content")]
        assert len(downloads) == LOOKS
        assert list((tmp_path / "batches").iterdir()) == []
        assert (await finish(router, tier, sandbox, TEXTS, SomeJob())).done == 40
        assert_right(router, TEXTS)


async def test_polls_grow_apart_to_a_minute(tmp_path: Path, sandbox: Sandbox) -> None:
    """Short at first, a tenth of the batch's age, at most a minute."""
    start = time.time()
    now = [start]
    async with opened(tmp_path, sandbox, clock=lambda: now[0], first_poll_s=2.0) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        waits = []
        for age in (0, 60, 300, 7_200):
            now[0] = start + age
            waits.append((await tier.step(SomeJob(), misses_of(router, TEXTS))).next_poll_s)
    assert waits == pytest.approx([2.0, 6.0, 30.0, 60.0])


async def test_cancelling_keeps_what_is_finished(tmp_path: Path, sandbox: Sandbox) -> None:
    """The finished part is stored and charged; the rest is released, and a later job pays for it alone."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        advance(router, sandbox, "in_progress", 15)
        assert (await tier.cancel(SomeJob())).open == 1
        advance(router, sandbox, "cancelled", 15)
        progress = await tier.step(SomeJob(), lambda n: {})
        assert (progress.open, progress.done) == (0, 15)
        assert progress.spent == sandbox.bill().nanodollars
        assert audit(router.database.reader()).held == 0
        assert len(stored(router, TEXTS)) == 15
        assert router.usage.total(since=0, until=time.time() + 900).texts == 15
        assert (await tier.cancel(SomeJob())).open == 0
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert progress.done == 40
    assert sandbox.bill().most_often == 1


async def test_cancelling_what_may_not_have_arrived(tmp_path: Path, sandbox: Sandbox) -> None:
    """A submission whose fate is unknown is found and stopped, or never made."""
    for arrived in (True, False):
        sandbox.reset()
        fault = Fault("reset", on="POST /batches") if arrived else Fault("status", status=503, on="POST /batches")
        async with opened(tmp_path / str(arrived), sandbox) as (router, tier):
            sandbox.faults.add(fault)
            await tier.step(SomeJob(), misses_of(router, TEXTS))
            asked = sum(entry.operation == "POST /batches" for entry in sandbox.received())
            progress = await tier.cancel(SomeJob())
            assert progress.open == int(arrived)
            advance(router, sandbox, "cancelled")
            progress = await tier.step(SomeJob(), lambda n: {})
            assert (progress.open, progress.spent) == (0, 0)
            assert audit(router.database.reader()).held == 0
        assert len(sandbox._batches.batches) == int(arrived)
        assert asked == sum(entry.operation == "POST /batches" for entry in sandbox.received())


async def test_a_full_queue_is_waited_for(tmp_path: Path, sandbox: Sandbox) -> None:
    """The provider's limit on what is queued fails a batch at validation; it is no fault of its texts."""
    from router.sandbox.batches import _flaw

    async with opened(tmp_path, sandbox, limits=BatchLimits(lines=20)) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        for _ in range(4):
            last = list(sandbox._batches.batches.values())[-1]
            last.errors.append(_flaw("token_limit_exceeded", "Enqueued token limit reached.", None))
            sandbox.advance(last.id, "failed")
            progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
            assert "full" in progress.reason
            assert (progress.open, progress.error) == (1, None)
            await tier.step(SomeJob(), misses_of(router, TEXTS))
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert (progress.done, progress.failed) == (40, 0)
    assert sandbox.bill().most_often == 1
