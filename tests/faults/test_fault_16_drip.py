"""Fault 16: an answer of one byte a second. Figure: seconds after the call's deadline at which it ends (under one)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from router.domain.errors import OutcomeUnknown
from router.request.intake import digest
from router.sandbox import Fault, Sandbox
from tests.faults.books import audit_folder
from tests.faults.paid_helpers import PAID, limits, open_router, quick_retries

TIMEOUT_S = 1.0


async def test_a_drip_ends_at_the_deadline(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None]
) -> None:
    """Each byte comes in time for a time-out per read; the clock of the call ends it all the same."""
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.dispatch.paid.MOST_SENDS", 1)
    cases = {f"{name}, a byte each {seconds:g} s": (name, seconds) for name in PAID for seconds in (1.0, 0.02)}
    for text, (_, seconds) in cases.items():
        sandbox.faults.add(Fault("drip", times=None, match=text, seconds=seconds))

    async def one(text: str) -> float:
        name = cases[text][0]
        async with open_router(tmp_path / text, sandbox, limits(name, timeout_s=TIMEOUT_S)) as router:
            with pytest.raises(OutcomeUnknown):
                await router.embed([text], model=PAID[name], policy="quality")
            end = time.monotonic()
            assert router.ledger.totals()[1] > 0
            assert router.ledger.totals()[2] == 0
            assert router.cache.size()[0] == 0
        return end

    ends = dict(zip(cases, await asyncio.gather(*map(one, cases)), strict=True))
    arrivals = {entry.digests[0]: entry.at for entry in sandbox.received()}
    assert len(arrivals) == len(sandbox.received()) == len(cases)
    for text, end in ends.items():
        took = end - arrivals[digest(text).hex()]
        assert TIMEOUT_S / 2 < took < TIMEOUT_S + 1.0
        figure(16, f"{text}: ended {took - TIMEOUT_S:.2f} s after the deadline of the call")
    assert sum([audit_folder(tmp_path / text).unconfirmed for text in cases]) >= sandbox.bill().nanodollars > 0
