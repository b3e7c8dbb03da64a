"""Fault 25: the write lock held by another process, for 60 s. Figure: requests refused before anything was sent (all),
and what the provider billed meanwhile (nothing)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from router.domain.errors import StoreBusy
from router.engine import Router
from router.sandbox import Fault, Sandbox
from router.store.database import Database
from tests.faults.ledger_oracle import MODEL, audit_folder
from tests.faults.racers import Racer
from tests.waits import until


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, count: Callable[[int, int], int]) -> None:
    """Writes are refused after 0.3 s (in fact after SQLite's own second), unless the full time is asked for."""
    if count(1, 0):
        for method in (Database.submit, Database.write):
            assert method.__kwdefaults__["patience_s"] == 5.0
            monkeypatch.setitem(method.__kwdefaults__, "patience_s", 0.3)


@pytest.mark.usefixtures("patience")
async def test_a_held_lock_refuses_before_anything_is_sent(
    sandbox: Sandbox, fresh: Callable[[str], Path], count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """While another program holds the lock, every request ends in StoreBusy, unsent and unbilled; then all is well."""
    folder = fresh("data")
    for_s = count(0, 60)
    refused = 0
    async with Router.open(folder, env=sandbox.environment) as router:
        await router.embed(["before"], policy="quality", model=MODEL)
        with Racer(folder) as other:
            other.ask("lock", file="router.db")
            until = time.monotonic() + for_s
            while True:
                for partial in (False, True):
                    with pytest.raises(StoreBusy, match="locked by another program"):
                        await router.embed([f"during {refused}"], policy="quality", model=MODEL, partial=partial)
                    refused += 1
                if time.monotonic() >= until:
                    break
            bill = sandbox.bill()
            assert (bill.requests, bill.texts) == (1, 1)
            other.ask("unlock")
        after = await router.embed([f"during {n}" for n in range(refused)], policy="quality", model=MODEL)
        assert after.counts.api == refused
    books = audit_folder(folder)
    assert (books.settled, books.unconfirmed, books.held) == (sandbox.bill().nanodollars, 0, 0)
    figure(25, f"write lock held for {for_s or 'a few'} s: {refused} of {refused} requests refused, 0 reached the"
           " provider, 0 billed")  # fmt: skip


async def test_a_lock_that_comes_while_a_call_is_under_way_delays_its_charge_and_no_more(
    sandbox: Sandbox, fresh: Callable[[str], Path]
) -> None:
    """What was sent before the lock is stored and booked once the lock is free, in whichever file the lock was."""
    folder = fresh("data")
    async with Router.open(folder, env=sandbox.environment) as router:
        with Racer(folder) as other:
            for number, file in enumerate(("router.db", "vectors.db"), 1):
                sandbox.faults.add(Fault("hang"))
                ask = asyncio.ensure_future(router.embed([f"under way {file}"], policy="quality", model=MODEL))
                await until(lambda number=number: sandbox.bill().calls >= number)  # type: ignore[misc]  # mypy, defaults
                await asyncio.to_thread(other.ask, "lock", file=file)
                sandbox.release()
                done, _ = await asyncio.wait([ask], timeout=0.6)
                assert not done
                assert audit_folder(folder).pending == 1
                await asyncio.to_thread(other.ask, "unlock")
                result = await ask
                assert result.cost > 0
        books = audit_folder(folder)
    assert (books.settled, books.unconfirmed, books.held) == (sandbox.bill().nanodollars, 0, 0)
    assert sandbox.bill().most_often == 1
