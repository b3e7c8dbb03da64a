"""Fault 10: window edges under a clock that is turned by hand. Figure: double or missed resets (0)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from router.domain.errors import BudgetExceeded
from router.domain.values import Budget, Window
from router.store.ledger import Ledger
from tests.faults.ledger_oracle import audit, hold, open_database, set_policy, unit

LIMIT = 4
AMOUNT = 2

ZONES = {
    "UTC": "2026-12-31",
    "Pacific/Kiritimati": "2026-12-31",  # UTC+14
    "Etc/GMT+12": "2026-12-31",  # UTC-12
    "Europe/Paris": "2026-10-25",  # 25 hours
    "America/New_York": "2027-03-14",  # 23 hours
    "America/Havana": "2027-03-14",  # the clocks skip midnight
    "America/Scoresbysund": "2026-10-24",  # the clocks come back over midnight: 24 October ends twice
    "Australia/Lord_Howe": "2026-10-04",  # half an hour
    "Asia/Kathmandu": "2026-12-31",  # UTC+05:45
}
"""A zone, and a day whose edges are hard in it."""


def day_of(now: datetime, zone: ZoneInfo) -> str:
    """The zone's date, by its calendar alone; a midnight that was passed is not undone by clocks that are set back."""
    return max((now - timedelta(hours=back)).astimezone(zone).date().isoformat() for back in (0, 1, 2))


def window_of(window: Window, now: datetime, zone: ZoneInfo) -> str:
    """A name for the window that runs: what the books must keep apart."""
    day = day_of(now, zone)
    if window == "day":
        return day
    if window == "month":
        return day[:7]
    year, week, _ = datetime.fromisoformat(day).isocalendar()
    return f"{year}-W{week}"


def moments(zone: ZoneInfo, day: str, rng: random.Random, extra: int) -> list[datetime]:
    """Instants about every edge near a day, an hour back and forth about each, and some between; in any order."""
    first = datetime.fromisoformat(day).replace(tzinfo=zone)
    edges = [(first + timedelta(days=n)).astimezone(UTC) for n in (-1, 0, 1, 2)]
    found = [
        edge + timedelta(seconds=s)
        for edge in edges
        for s in (-3_601, -3_600, -1, 0, 1, 1_800, 3_599, 3_600, 7_200)
    ]  # fmt: skip
    found += [edges[0] + timedelta(seconds=rng.uniform(0, 4 * 86_400)) for _ in range(extra)]
    rng.shuffle(found)  # so the clock is set back as often as forth
    return found


@pytest.mark.parametrize("window", ["day", "week", "month"])
async def test_each_window_gives_its_limit_once(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None], window: Window
) -> None:
    """However the clock jumps about an edge, each window of the zone's calendar gives its limit exactly once."""
    resets = 0
    now = 0.0

    def clock() -> float:
        return now

    with open_database(tmp_path) as database:
        ledger = Ledger(database, clock)
        await ledger.renew()
        for seed in range(count(1, 20)):
            for name, day in ZONES.items():
                zone, rng, policy = ZoneInfo(name), random.Random(f"{seed} {name}"), f"{name.replace('/', ' ')} {seed}"
                policy = policy.replace("+", "p")
                await set_policy(
                    database, clock, Budget(amount=LIMIT, window=window), name=policy, timezone=name
                )  # fmt: skip
                spent: Counter[str] = Counter()
                for at in moments(zone, day, rng, count(4, 40)):
                    now = at.timestamp()
                    spent[window_of(window, at, zone)] += await spend(ledger, policy)
                assert set(spent.values()) == {LIMIT}, f"{name}: {spent}"
                resets += len(spent)
        audit(database.reader())
    figure(10, f"{resets} windows of a {window} in {len(ZONES)} zones, the clock set back and forth about their edges:"
           " each gave its limit once")  # fmt: skip


async def spend(ledger: Ledger, policy: str) -> int:
    """Hold and settle until the budget says no, from either side of the lock; what was spent."""
    spent = 0
    while True:
        try:
            opened = await hold(ledger, unit(f"{policy} {ledger.clock()} {spent}", AMOUNT), policy=policy)
        except BudgetExceeded:
            return spent
        assert await ledger.settle(opened.holds[0], AMOUNT, AMOUNT)
        spent += AMOUNT


async def test_money_held_before_an_edge_counts_before_it(tmp_path: Path) -> None:
    """What is held in the last second of a month and settled in the next counts in the month it was held in."""
    end = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    now = end - 1
    with open_database(tmp_path) as database:
        ledger = Ledger(database, lambda: now)
        await ledger.renew()
        await set_policy(database, lambda: now, Budget(amount=LIMIT, window="month"))
        late = (await hold(ledger, unit("late", LIMIT))).holds[0]
        with pytest.raises(BudgetExceeded):
            await hold(ledger, unit("later", 1))
        now = end
        full = (await hold(ledger, unit("new year", LIMIT))).holds[0]
        assert await ledger.settle(late, LIMIT - 1, 1)
        with pytest.raises(BudgetExceeded):
            await hold(ledger, unit("more", 1))
        assert await ledger.release(full)
        now = end - 1
        assert [s.left for s in ledger.states("p")] == [1]
        now = end
        assert [s.left for s in ledger.states("p")] == [LIMIT]
        audit(database.reader())


async def test_pace_is_judged_once_a_day_of_the_zone(tmp_path: Path) -> None:
    """The day's judgement stands until the zone's midnight, and through a clock set back over it."""
    midnight = datetime(2026, 12, 10, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp()
    now = midnight - 3_600
    with open_database(tmp_path) as database:
        ledger = Ledger(database, lambda: now)
        await ledger.renew()
        await set_policy(database, lambda: now, Budget(amount=100, window="month"), timezone="Asia/Tokyo")

        async def pace() -> float | None:
            await ledger.judge_pace("p")
            return ledger.states("p")[0].pace_used

        assert await pace() == 0
        await ledger.settle((await hold(ledger, unit("a", 40))).holds[0], 40, 40)
        now = midnight - 1
        assert await pace() == 0
        now = midnight
        assert await pace() == 0.4
        await ledger.settle((await hold(ledger, unit("b", 40))).holds[0], 40, 40)
        now = midnight - 3_600
        assert await pace() == 0
        now = midnight + 3_600
        assert await pace() == 0.4


async def test_a_zone_moved_does_not_give_a_window_twice(tmp_path: Path) -> None:
    """Editing the zone keeps what the day has spent, wherever the day now begins, also for a name that is not ASCII."""
    now = datetime(2026, 12, 9, 12, tzinfo=UTC).timestamp()
    with open_database(tmp_path) as database:
        ledger = Ledger(database, lambda: now)
        await ledger.renew()
        for name in ("plain", "café", "50_50"):
            budget = Budget(amount=LIMIT, window="month")
            await set_policy(database, lambda: now, budget, name=name)
            assert await spend(ledger, name) == LIMIT
            for zone in ("Asia/Tokyo", "Etc/GMT+12", "UTC"):
                await set_policy(database, lambda: now, budget, name=name, timezone=zone)
                assert await spend(ledger, name) == 0, f"{name} was given its month again by moving to {zone}"
        audit(database.reader())
