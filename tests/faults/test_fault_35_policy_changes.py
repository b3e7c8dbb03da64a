"""Fault 35: a policy is deleted, narrowed or lowered, or paid calls are switched off, while a request runs.

Figure: paid calls that leave after the change, beyond those in flight (0).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from router.domain.errors import BudgetExceeded, Refused, RouterError
from router.domain.values import Budget, Policy
from router.engine import Router
from router.providers.base import EmbedCall, Reply
from router.providers.batch import BatchClient
from router.sandbox import Fault, Sandbox
from tests.batches.batches import SomeJob, misses_of
from tests.batches.batches import opened as opened_tier
from tests.faults.paid_helpers import SMALL, assert_books, limits, open_router, quick_retries, some_texts
from tests.libraries import jsonl, opened

CAP = Policy(name="cap", goal="quality", budgets=(Budget(amount=300_000, window="total"),), when_exhausted="refuse")
AT_ONCE = 4


async def save(router: Router, **changes: object) -> None:
    """A new version of the policy."""
    await router.policies.save(replace(CAP, **changes), [m.id for m in router.catalog.models])  # type: ignore[arg-type]


CHANGES: dict[str, tuple[Callable[[Router], Awaitable[object]], str]] = {
    "deleted": (lambda router: router.policies.delete("cap"), "policy 'cap' was deleted"),
    "local only": (lambda router: save(router, local_only=True), "allows local models only"),
    "not allowed": (lambda router: save(router, allow=("voyage/*", "local/*")), "not on the allow list"),
    "lowered": (lambda router: save(router, budgets=(Budget(amount=1, window="total"),)), "the total"),
    "account": (lambda router: router.policies.set_account_budgets([Budget(amount=1, window="day")]), "the account"),
    "switched off": (lambda router: router.policies.set_paid(False), "kill switch"),
}
every_change = pytest.mark.parametrize("change", CHANGES)


class Watch:
    """Counts the calls of a router, makes a change in the middle of one, and counts those that leave after it."""

    def __init__(self, router: Router, change: str, *, at: int = 3) -> None:
        self.calls = self.after = 0
        self.changed = False
        provider = router.providers["openai"]
        send, make = provider.embed, CHANGES[change][0]

        async def embed(call: EmbedCall) -> Reply:
            self.calls += 1
            self.after += self.changed
            if self.calls == at:
                await make(router)
                self.changed = True
            return await send(call)

        provider.embed = embed  # type: ignore[method-assign]


@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
@every_change
async def test_a_change_reaches_what_runs(
    sandbox: Sandbox, tmp_path: Path, figure: Callable[[int, str], None], change: str, partial: bool
) -> None:
    """The rest is refused with the reason, whether its money was held already (a request) or not (a file)."""
    texts = some_texts(60)
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=AT_ONCE)) as router:
        await save(router)
        sandbox.configure(latency_ms=10)
        watch = Watch(router, change)
        problems: list[RouterError]
        if partial:
            result = await router.embed(texts, model=SMALL, policy="cap", partial=True)
            problems = list(result.problems.values())
        else:
            with pytest.raises(Refused) as raised:
                await router.embed(texts, model=SMALL, policy="cap")
            problems = [raised.value]
        assert watch.changed
        assert watch.after == 0
        assert watch.calls <= 3 + AT_ONCE
        expected = BudgetExceeded if change in ("lowered", "account") else Refused
        assert {type(error) for error in problems} == {expected}
        assert CHANGES[change][1] in str(problems[0])
        await router.policies.set_account_budgets([Budget(amount=10**10, window="month")])
        await save(router)  # its limit back: what was spent was within it
        books = assert_books(router, sandbox)
        assert books.shown == sandbox.bill().nanodollars
    figure(35, f"{change}, {'file' if partial else 'request'}: {watch.after} calls after it of {60 - watch.calls} left")


@pytest.mark.parametrize("change", ["deleted", "switched off"])
async def test_a_call_that_waits_for_its_turn_does_not_leave(sandbox: Sandbox, tmp_path: Path, change: str) -> None:
    """It was held and made ready long before the rate limit lets it go; nothing is left held."""
    texts = some_texts(8)
    toml = limits(max_texts_per_call=1, max_in_flight=1, requests_per_minute=600)
    async with open_router(tmp_path, sandbox, toml) as router:
        await save(router)
        watch = Watch(router, change, at=1)
        with pytest.raises(Refused, match="7 of 8 texts were not embedded"):
            await router.embed(texts, model=SMALL, policy="cap")
        assert (watch.calls, watch.after, sandbox.bill().texts) == (1, 0, 1)
        await save(router)
        assert_books(router, sandbox)


@every_change
async def test_a_failed_call_is_not_sent_again_after_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What may have been billed is booked; a second send, or the halves, would need what is no longer allowed."""
    quick_retries(monkeypatch)
    for number, fault in enumerate([Fault("status", times=None), Fault("poison", times=None, match="number")]):
        sandbox.reset()
        sandbox.faults.clear()
        async with open_router(tmp_path / str(number), sandbox) as router:
            await save(router)
            sandbox.faults.add(fault)
            watch = Watch(router, change, at=1)
            result = await router.embed(some_texts(4), model=SMALL, policy="cap", partial=True)
            assert (watch.calls, watch.after, len(result.problems)) == (1, 0, 4)
            await router.policies.set_account_budgets([Budget(amount=10**10, window="month")])
            await save(router)
            assert_books(router, sandbox)


async def test_a_deleted_policy_does_not_lift_its_cap(sandbox: Sandbox, tmp_path: Path) -> None:
    """What the policy would have spent in all is never passed, and a policy of the same name goes on under its own."""
    texts = [f"{n} " + "word " * 200 for n in range(146)]
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=4, max_in_flight=2)) as router:
        await save(router)
        Watch(router, "deleted", at=10)
        await router.embed(texts, model=SMALL, policy="cap", partial=True)
        assert sandbox.bill().nanodollars <= 300_000
        await save(router)
        result = await router.embed(texts, model=SMALL, policy="cap", partial=True)
        assert {type(error) for error in result.problems.values()} == {BudgetExceeded}
        assert assert_books(router, sandbox).shown == sandbox.bill().nanodollars <= 300_000


@pytest.mark.parametrize("change", ["deleted", "local only", "not allowed", "switched off"])
async def test_a_job_stops_with_the_reason(sandbox: Sandbox, tmp_path: Path, change: str) -> None:
    """In the middle of a block: it is paused, with what was embedded kept."""
    file = jsonl(tmp_path / "letters.jsonl", some_texts(60, "a letter that is long enough to be a chunk of its own"))
    async with opened(tmp_path / "data", sandbox, block=60) as here:
        here.router.limiters["openai"].endpoint.max_texts_per_call = 5
        here.router.limiters["openai"].endpoint.max_in_flight = 1
        await save(here.router)
        watch = Watch(here.router, change)
        number = await here.embed("letters", file, policy="cap")
        job = here.library.job(number)
        assert (job.state, job.failed, watch.after) == ("paused", 0, 0)
        assert CHANGES[change][1] in job.reason
        await save(here.router)
        assert_books(here.router, sandbox)


@pytest.mark.parametrize("change", ["deleted", "local only", "not allowed", "switched off"])
async def test_a_batch_is_not_submitted_after_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The change comes while its file goes up: no batch is made, and its money and its texts are free again."""
    upload = BatchClient.upload
    texts = some_texts(5)
    async with opened_tier(tmp_path, sandbox) as (router, tier):
        await save(router)

        async def change_then_upload(self: BatchClient, path: Path) -> str:
            await CHANGES[change][0](router)
            return await upload(self, path)

        monkeypatch.setattr(BatchClient, "upload", change_then_upload)
        progress = await tier.step(SomeJob(policy="cap"), misses_of(router, texts))
        assert isinstance(progress.error, Refused)
        assert CHANGES[change][1] in str(progress.error)
        assert not [entry for entry in sandbox.received() if entry.operation == "POST /batches"]
        await save(router)
        assert_books(router, sandbox)


async def test_a_lost_submission_is_not_made_again_after_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """It is surely not there, and the policy is gone: it is withdrawn and not sent a second time."""
    texts = some_texts(5)
    async with opened_tier(tmp_path, sandbox) as (router, tier):
        await save(router)
        sandbox.faults.add(Fault("refuse", on="POST /batches"))
        await tier.step(SomeJob(policy="cap"), misses_of(router, texts))
        made = len([entry for entry in sandbox.received() if entry.operation == "POST /batches"])
        await router.policies.delete("cap")
        progress = await tier.step(SomeJob(policy="cap"), misses_of(router, texts))
        assert progress.open == 0
        assert len([entry for entry in sandbox.received() if entry.operation == "POST /batches"]) == made
        await save(router)
        assert_books(router, sandbox)
