"""Fault 16: an answer of one byte a second. Figure: seconds after the call's deadline at which it ends (under one)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from router.domain.errors import OutcomeUnknown
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import PAID, assert_books, every_provider, limits, open_router, quick_retries

TIMEOUT_S = 1.0


@pytest.mark.parametrize("seconds", [1.0, 0.02], ids=["a byte a second", "fifty bytes a second"])
@every_provider
async def test_a_drip_ends_at_the_deadline(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None], name: str,
    seconds: float,
) -> None:  # fmt: skip
    """Each byte comes in time for a time-out per read; the clock of the call ends it all the same."""
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.dispatch.paid.MOST_SENDS", 1)
    sandbox.faults.add(Fault("drip", times=None, seconds=seconds))
    async with open_router(tmp_path, sandbox, limits(name, timeout_s=TIMEOUT_S)) as router:
        await router.quote(["a text"], model=PAID[name], policy="quality")  # the vocabulary is loaded
        start = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await router.embed(["a text"], model=PAID[name], policy="quality")
        end = time.monotonic()
        sent = sandbox.received()[0].at
        assert TIMEOUT_S - 0.1 <= end - sent < TIMEOUT_S + 1.0
        books = assert_books(router, sandbox)
        assert books.unconfirmed >= sandbox.bill().nanodollars > 0
        assert router.cache.size()[0] == 0
    figure(16, f"{name}, a byte each {seconds:g} s: ended {end - sent - TIMEOUT_S:.2f} s after the deadline of the call"
           f" ({end - start:.2f} s in all)")  # fmt: skip
