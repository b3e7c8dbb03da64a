"""Fault 23: a batch expires, is cancelled or fails at validation; SIGKILL around its submission and its download.

Figures: finished parts lost or not charged (0); batches made twice (0 in 200 kills); texts billed twice (0).
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.providers.batch import BatchClient
from router.sandbox import Fault, Sandbox
from router.store.batches import close_settled
from tests.batches.batches import SomeJob, advance, assert_right, finish, misses_of, opened, stored
from tests.faults.batch_kills import DOWNLOAD, LINES, SUBMIT, Recovery, recover
from tests.faults.ledger_oracle import audit
from tests.faults.racers import Racer

Count = Callable[[int, int], int]
Figure = Callable[[int, str], None]
Fresh = Callable[[str], Path]


@pytest.fixture(scope="module")
def forks() -> Iterator[Racer]:
    """The program that forks the children that die."""
    with Racer(None) as racer:
        yield racer


async def killed_and_recovered(forks: Racer, sandbox: Sandbox, folder: Path, moment: str, number: int) -> Recovery:
    """One job of two batches, killed at a moment of one of them, and finished by another program."""
    sandbox.reset()
    sandbox.configure(batch_seconds=0)
    texts = [f"{moment} {number} text {n}" for n in range(2 * LINES)]
    # Twice in a job: `noting` is met twice a batch (uploaded, submitted); files are deleted two a batch.
    ended = forks.ask(
        "killed_batch", folder=str(folder), env=sandbox.environment, texts=texts, moment=moment,
        nth=random.Random(f"{moment} {number}").randint(1, 2),
    )  # fmt: skip
    assert ended == signal.SIGKILL, "the child ended before it came to the moment"
    return await recover(folder, sandbox, texts)


@pytest.mark.parametrize("around", ["submit", "download"])
async def test_no_batch_is_made_twice_and_nothing_is_lost(
    forks: Racer, sandbox: Sandbox, fresh: Fresh, count: Count, figure: Figure, around: str
) -> None:
    """Killed anywhere, the job is finished with as many batches as it needs, each text billed once."""
    moments = SUBMIT if around == "submit" else DOWNLOAD
    kills = count(len(moments), 100)
    open_ones = 0
    for number in range(kills):
        moment = moments[number % len(moments)]
        done = await killed_and_recovered(forks, sandbox, fresh(f"{number}"), moment, number)
        assert done.batches == done.needed, f"killed {moment}: {done.batches} batches for {done.needed}"
        assert done.billed_again == 0, f"killed {moment}"
        open_ones += done.open_when_killed
    assert open_ones > 0  # else no kill came while money was held
    figure(
        23, f"SIGKILL around {around}, {kills} kills: 0 batches made twice, 0 texts billed twice, 0 lost,"
        f" {open_ones} open holds taken over",
    )  # fmt: skip


async def test_a_tier_that_does_not_look_makes_batches_twice(
    forks: Racer, sandbox: Sandbox, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: after a crash it submits without looking for its key; the same trial finds it out."""

    async def find(self: BatchClient, key: str, since: float) -> None: ...

    monkeypatch.setattr(BatchClient, "find", find)
    with pytest.raises(AssertionError, match="billed more than the ledger shows"):
        await killed_and_recovered(forks, sandbox, fresh("mutant"), "created", 0)
    assert len(sandbox._batches.batches) > 2


async def test_the_finished_part_is_kept_and_charged(
    sandbox: Sandbox, fresh: Fresh, count: Count, figure: Figure
) -> None:
    """Expired, cancelled by another hand, failed at validation, in any mixture: finished work is never done again."""
    trials = count(6, 60)
    kept_parts = 0
    for number in range(trials):
        rng = random.Random(number)
        sandbox.reset()
        sandbox.configure(batch_seconds=1e9)
        texts = [f"trial {number} text {n} {'and more ' * rng.randrange(4)}" for n in range(rng.randint(1, 15))]
        job = SomeJob()
        async with opened(fresh(str(number)), sandbox) as (router, tier):
            for _ in range(2):  # a third batch in vain would report the texts as failed
                status = rng.choice(["expired", "cancelled", "failed"])
                done = rng.randint(0, len(texts))
                await tier.step(job, misses_of(router, texts))
                advance(router, sandbox, status, done)
                before = len(stored(router, texts))
                progress = await tier.step(job, lambda n: {})
                bill = sandbox.bill()
                assert progress.spent == bill.nanodollars
                assert progress.done == len(stored(router, texts))
                assert progress.done == before + (0 if status == "failed" else min(done, len(texts) - before))
                kept_parts += 0 < progress.done < len(texts)
                assert audit(router.database.reader()).held == 0
            progress = await finish(router, tier, sandbox, texts, job)
            assert (progress.done, progress.failed) == (len(texts), 0)
            assert_right(router, texts)
            assert progress.spent == sandbox.bill().nanodollars
            assert audit(router.database.reader()).unconfirmed == 0
        assert sandbox.bill().most_often == 1
    assert kept_parts > 0
    figure(23, f"{trials} jobs through expired, cancelled and failed batches: {kept_parts} finished parts kept and"
           f" charged, 0 texts billed twice")  # fmt: skip


@pytest.mark.parametrize("status", ["expired", "failed"])
async def test_a_text_is_given_up_after_three_batches(sandbox: Sandbox, fresh: Fresh, status: str) -> None:
    """Then it is reported, with the reason, and not sent a fourth time until somebody says so."""
    sandbox.configure(batch_seconds=1e9)
    texts = ["one", "two"]
    async with opened(fresh("given up"), sandbox) as (router, tier):
        for tries in (1, 2, 3):
            assert (await tier.step(SomeJob(), misses_of(router, texts))).open == 1
            advance(router, sandbox, status)
            progress = await tier.step(SomeJob(), lambda n: {})
            assert progress.failed == (0 if tries < 3 else 2)
        progress = await tier.step(SomeJob(), misses_of(router, texts))
        assert (progress.open, progress.moved, progress.failed) == (0, False, 2)
        why = tier.store.failures(SomeJob().id)
        assert len(why) == 2
        assert all(("expired" if status == "expired" else "refused its batch") in reason for reason in why.values())
        await router.database.write(lambda conn: close_settled(conn, SomeJob().id))
        progress = await finish(router, tier, sandbox, texts, SomeJob())
        assert (progress.done, progress.failed) == (2, 0)
    assert sandbox.bill().most_often == 1


async def test_a_line_that_fails_validation_does_not_take_the_others_along(
    sandbox: Sandbox, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that the provider names is reported; the others go in the next batch."""
    from router.sandbox.batches import _flaw

    sandbox.configure(batch_seconds=1e9)
    texts = ["one", "two", "three"]
    async with opened(fresh("line"), sandbox) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, texts))
        (batch,) = sandbox._batches.batches.values()
        batch.errors.append(_flaw("invalid_request", "This line is not to be had.", 2))
        advance(router, sandbox, "completed")
        progress = await finish(router, tier, sandbox, texts, SomeJob())
        assert (progress.done, progress.failed) == (2, 1)
        assert stored(router, texts) == {"one", "three"}
        assert "not to be had" in next(iter(tier.store.failures(SomeJob().id).values()))


async def test_a_batch_fails_at_validation_and_goes_again(sandbox: Sandbox, fresh: Fresh) -> None:
    """Nothing was done, nothing is charged, and the next batch is a new one."""
    sandbox.configure(batch_seconds=0)
    sandbox.faults.add(Fault("batch_failed"))
    async with opened(fresh("again"), sandbox) as (router, tier):
        progress = await finish(router, tier, sandbox, ["one", "two"], SomeJob())
        assert (progress.done, progress.spent) == (2, sandbox.bill().nanodollars)
    assert len(sandbox._batches.batches) == 2
