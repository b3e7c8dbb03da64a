"""Fault 5: 16 racers settle, release or fail one hold. Figure: trials in which not exactly one won (0 of 10,000)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from router.domain.values import Budget
from router.store.ledger import Hold, Ledger
from tests.faults.ledger_oracle import audit, hold, one_each, open_database, set_policy, unit

RACERS = 16
PROGRAMS = 4
TOGETHER = 50
"""Holds that are raced for at the same time."""
AMOUNT = 1_000


async def finish(ledger: Ledger, one: Hold, way: str, number: int) -> str:
    """End a hold in a way; `way` if this racer won, else ""."""
    if way == "settle":
        won = await ledger.settle(one, number, number)
    elif way == "release":
        won = await ledger.release(one)
    else:
        billed = number if way == "fail, billed" else None
        again = await ledger.fail(one, "raced", billed=billed, again=(one.units,), price=one_each)
        assert isinstance(again, tuple)
        won = bool(again)
        for other in again:
            assert await ledger.release(other)
    return f"{way} {number}" if won else ""


async def race(ledgers: list[Ledger], seed: int) -> list[tuple[Hold, list[str]]]:
    """`TOGETHER` holds, each with `RACERS` racers; who won each."""
    rng = random.Random(seed)
    names = [unit(f"{seed} {n}", AMOUNT) for n in range(TOGETHER)]
    opened = await hold(ledgers[0], *names, apart=True)
    racers: list[tuple[int, Coroutine[Any, Any, str]]] = []
    for place, one in enumerate(opened.holds):
        for number in range(1, RACERS + 1):
            way = rng.choice(["settle", "release", "fail", "fail, billed"])
            racers.append((place, finish(ledgers[number % PROGRAMS], one, way, number)))
    rng.shuffle(racers)
    ends = await asyncio.gather(*(racer for _, racer in racers))
    winners: list[list[str]] = [[] for _ in opened.holds]
    for (place, _), end in zip(racers, ends, strict=True):
        if end:
            winners[place].append(end)
    return list(zip(opened.holds, winners, strict=True))


async def test_exactly_one_racer_ends_a_hold(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """Of 16 racers over four connections exactly one ends the hold, and the books show its end and no other."""
    trials = count(100, 10_000)
    settled = unconfirmed = 0
    ways: Counter[str] = Counter()
    with ExitStack() as stack:
        databases = [stack.enter_context(open_database(tmp_path)) for _ in range(PROGRAMS)]
        ledgers = [Ledger(database, time.time) for database in databases]
        await set_policy(databases[0], time.time, Budget(amount=10**15, window="month"))
        for seed in range(trials // TOGETHER):
            for one, winners in await race(ledgers, seed):
                assert len(winners) == 1, f"{len(winners)} racers ended hold {one.id}"
                way, _, number = winners[0].rpartition(" ")
                ways[way] += 1
                settled += int(number) if way in ("settle", "fail, billed") else 0
                unconfirmed += AMOUNT if way == "fail" else 0
        books = audit(databases[0].reader())
    assert (books.settled, books.unconfirmed, books.held, books.pending) == (settled, unconfirmed, 0, 0)
    assert len(ways) == 4  # every way of ending a hold has won somewhere
    figure(5, f"{trials:,} trials of {RACERS} racers: exactly one winner in each ({dict(ways)})")
