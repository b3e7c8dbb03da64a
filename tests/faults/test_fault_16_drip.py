"""Fault 16: an answer of one byte a second. Figure: seconds after the call's deadline at which it ends (under one)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from router.domain.errors import OutcomeUnknown
from router.pipeline.validate import digest
from router.sandbox import Fault, Sandbox
from tests.faults.ledger_oracle import audit_folder
from tests.faults.paid_helpers import PAID, connected, open_router, quick_retries

TIMEOUT_S = 1.0


async def test_a_drip_ends_at_the_deadline(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """Each byte comes in time for a time-out per read; the clock of the call ends it all the same."""
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.dispatch.steps.MOST_SENDS", 1)
    late_s = count(20, 1)  # each drip lasts for minutes, and a busy machine is late for a deadline too
    cases = {f"{name}, a byte each {seconds:g} s": (name, seconds) for name in PAID for seconds in (1.0, 0.02)}
    async with AsyncExitStack() as stack:
        routers = {n: await stack.enter_async_context(open_router(tmp_path / n, sandbox)) for n in PAID}
        for name, router in routers.items():
            await connected(router, sandbox, name)
            router.settings.endpoints[name].timeout_s = TIMEOUT_S
        for text, (_, seconds) in cases.items():
            sandbox.faults.add(Fault("drip", times=None, match=text, seconds=seconds))

        async def one(text: str) -> float:
            name = cases[text][0]
            with pytest.raises(OutcomeUnknown, match=r"did not answer in time|timed out"):
                await routers[name].embed([text], model=PAID[name], policy="quality")
            return time.monotonic()

        ends = dict(zip(cases, await asyncio.gather(*map(one, cases)), strict=True))
        for router in routers.values():
            assert router.ledger.totals()[1] > 0
            assert router.ledger.totals()[2] == 0
            assert router.cache.size()[0] == 0
    arrivals = {entry.digests[0]: entry.at for entry in sandbox.received()}
    assert len(arrivals) == len(sandbox.received()) == len(cases)
    for text, end in ends.items():
        took = end - arrivals[digest(text).hex()]
        assert took < TIMEOUT_S + late_s
        figure(16, f"{text}: ended {took - TIMEOUT_S:.2f} s after the deadline of the call")
    assert sum([audit_folder(tmp_path / name).unconfirmed for name in PAID]) >= sandbox.bill().nanodollars > 0
