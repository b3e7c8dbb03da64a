"""Fault 1: 8 processes, 10,000 holds against one budget. Figures: nanodollars over the limit (0) and
under it (0)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from router.domain.values import Budget
from tests.faults.ledger_oracle import audit_folder, open_database, set_policy
from tests.faults.racers import Racer, all_ask

PROCESSES = 8
AT_ONCE = 50
AMOUNT = 20
"""Nanodollars a hold; divides every limit here."""


def race(folder: Path, tries: int, *, mutant: bool) -> tuple[int, int]:
    """Nanodollars held by all processes together, and the limit: about half of what they try to hold.

    The limit is met in the middle of a process' first tries, so that it races with itself even if no other runs then.
    """
    limit = (tries // 2 + AT_ONCE // 2) * AMOUNT

    async def prepare() -> None:
        with open_database(folder) as database:
            await set_policy(database, time.time, Budget(amount=limit, window="month"))

    asyncio.run(prepare())
    with ExitStack() as stack:
        racers = [stack.enter_context(Racer(folder)) for _ in range(PROCESSES)]
        all_ask(racers, "open_ledger", mutant=mutant)
        done = all_ask(racers, "race", tries=tries // PROCESSES, at_once=AT_ONCE, amount=AMOUNT)
    held = audit_folder(folder).held
    assert sum(d["taken"] + d["refused"] for d in done) == tries
    assert held == AMOUNT * sum(d["taken"] for d in done)
    return held, limit


def exactly_full(held: int, limit: int) -> None:
    """What fault 1 asks for."""
    assert held <= limit, f"{held - limit} nanodollars over the limit"
    assert held == limit, f"{limit - held} nanodollars were not given out"


def test_many_processes_fill_a_budget_exactly(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """However many processes hold at once, the limit is filled to the nanodollar and never passed."""
    tries = count(480, 10_000)
    held, limit = race(tmp_path, tries, mutant=False)
    exactly_full(held, limit)
    figure(1, f"{tries:,} holds from {PROCESSES} processes: {held - limit} nanodollars over, the limit filled exactly")


def test_a_ledger_that_checks_and_then_acts_overshoots(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """The same race with a ledger that looks before it takes, and not as it takes, fails the same assertion."""
    tries = count(480, 10_000)
    held, limit = race(tmp_path, tries, mutant=True)
    with pytest.raises(AssertionError, match="over the limit"):
        exactly_full(held, limit)
    figure(1, f"the mutant that checks, then acts: {held - limit:,} of {limit:,} nanodollars over")
