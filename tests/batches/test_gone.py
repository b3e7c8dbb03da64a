"""Batches that their provider no longer knows, or lets nobody see: waited for, then booked as unconfirmed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from router.domain.errors import KeyRejected, NotConfigured
from router.sandbox import Fault, Sandbox
from tests.batches.batches import (
    TEXTS,
    SomeJob,
    advance,
    assert_right,
    batches_made,
    finish,
    misses_of,
    opened,
    sandbox,
)
from tests.faults.ledger_oracle import audit

__all__ = ["sandbox"]  # the provider, whose batches move by hand


async def test_a_batch_that_the_provider_does_not_know_is_given_up_in_the_end(tmp_path: Path, sandbox: Sandbox) -> None:
    """A key of another project: the money stays held until a day after the window, then all of it is unconfirmed;
    nothing is paid anew before somebody says so."""
    now = [time.time()]
    async with opened(tmp_path, sandbox, clock=lambda: now[0]) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        held = router.ledger.totals()[2]
        theirs = dict(sandbox._batches.batches)
        sandbox._batches.batches.clear()
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, NotConfigured)
        assert "another project" in progress.reason
        assert router.ledger.totals() == (0, 0, held)

        now[0] += 47 * 3_600  # the key is mended in time: it goes on as if nothing had been
        sandbox._batches.batches.update(theirs)
        assert (await tier.step(SomeJob(), misses_of(router, TEXTS))).error is None
        sandbox._batches.batches.clear()
        now[0] += 2 * 3_600
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, NotConfigured)
        assert "unconfirmed" in progress.reason
        assert (progress.open, progress.spent, router.ledger.totals()) == (0, held, (0, held, 0))
        assert batches_made(sandbox) == 1
        assert audit(router.database.reader()).pending == 0
        [charge] = router.ledger.unconfirmed()
        assert "cannot be found" in charge.reason
        progress = await finish(router, tier, sandbox, TEXTS, SomeJob())
        assert (progress.done, progress.failed, batches_made(sandbox)) == (40, 0, 2)
        assert_right(router, TEXTS)
        assert progress.spent == held + sandbox.bill().nanodollars


@pytest.mark.parametrize("mended", [True, False])
async def test_a_batch_behind_a_revoked_key_waits_as_long_as_results_are_kept(
    tmp_path: Path, sandbox: Sandbox, mended: bool
) -> None:
    """It may have been done and billed, so its results are worth waiting for; after a month they are gone."""
    now = [time.time()]
    async with opened(tmp_path, sandbox, clock=lambda: now[0]) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        held = router.ledger.totals()[2]
        sandbox.configure(key="another")
        now[0] += 30 * 86_400
        for _ in range(2):
            assert isinstance((await tier.step(SomeJob(), misses_of(router, TEXTS))).error, KeyRejected)
        assert router.ledger.totals() == (0, 0, held)
        if mended:
            sandbox.configure(key=None)
            advance(router, sandbox)
        else:
            now[0] += 86_400
        progress = await tier.step(SomeJob(), lambda n: {})
        assert progress.open == 0
        settled, unconfirmed, left = router.ledger.totals()
        assert left == 0
        assert (settled, unconfirmed) == ((sandbox.bill().nanodollars, 0) if mended else (0, held))


async def test_a_file_of_a_submission_in_doubt_that_is_gone(tmp_path: Path, sandbox: Sandbox) -> None:
    """Neither the batch nor its file can be seen: the submission may be another project's, so its money is kept."""
    async with opened(tmp_path, sandbox) as (router, tier):
        sandbox.faults.add(Fault("reset", on="POST /batches"))
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        held = router.ledger.totals()[2]
        sandbox._batches.batches.clear()
        sandbox._batches.files.clear()
        progress = await tier.step(SomeJob(), misses_of(router, TEXTS))
        assert isinstance(progress.error, NotConfigured)
        assert router.ledger.totals() == (0, held, 0)


async def test_results_that_were_deleted_are_charged_without_their_vectors(tmp_path: Path, sandbox: Sandbox) -> None:
    """Somebody emptied the provider's storage: what was done is unconfirmed, and the texts are sent again."""
    async with opened(tmp_path, sandbox) as (router, tier):
        await tier.step(SomeJob(), misses_of(router, TEXTS))
        advance(router, sandbox)
        bill = sandbox.bill().nanodollars
        sandbox._batches.files.clear()
        for _ in range(3):
            progress = await tier.step(SomeJob(), lambda n: {})
            assert progress.error is None
        settled, unconfirmed, held = router.ledger.totals()
        assert (settled, held) == (0, 0)
        assert bill <= unconfirmed < bill + len(TEXTS)  # each rounded up
        assert (await finish(router, tier, sandbox, TEXTS, SomeJob())).done == 40
