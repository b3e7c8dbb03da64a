"""What the pages read from the books: no day is missing, sums agree, and a forecast goes by whole days."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Router
from router.domain.values import RouteCounts, Saved, Unit
from router.reporting import figures
from router.reporting.figures import Day, forecast
from router.store.entries import Purpose
from router.store.usage import Outcome, Slice

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC).timestamp()
ZERO = {name: 0 for name in Slice.__dataclass_fields__ if name != "key"}


class Turned:
    """A clock that stands where it is put."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    """A router whose clock can be turned."""
    async with Router.open(tmp_path, env={}, clock=Turned()) as opened:
        yield opened


async def record(router: Router, at: datetime, *, cache: int, local: int = 0, policy: str = "default") -> None:
    """A request at a time."""
    assert isinstance(router.clock, Turned)
    router.clock.now = at.timestamp()
    outcome = Outcome(
        status="done", model="local/all-MiniLM-L6-v2", texts=cache + local + 2, distinct=cache + local, repeated=2,
        routes=RouteCounts(cache=cache, local=local), saved=Saved(cache=cache * 100, repeats=7), latency_ms=40,
    )  # fmt: skip
    await router.usage.record(outcome, policy=policy, version=1, collection="", role="document")
    router.clock.now = NOW


async def test_days_have_no_gaps_and_agree_with_the_figures(router: Router) -> None:
    """A day without requests is there, empty; the days' sums are the figures of the whole stretch."""
    await record(router, datetime(2026, 11, 19, 10, tzinfo=UTC), cache=3, local=5)
    await record(router, datetime(2026, 11, 21, 10, tzinfo=UTC), cache=4)
    first, last = date(2026, 11, 18), date(2026, 11, 21)
    report = figures.days(router.usage, first=first, last=last, zone="UTC")
    assert [d.day for d in report] == [date(2026, 11, n) for n in (18, 19, 20, 21)]
    assert [d.texts for d in report] == [0, 10, 0, 6]
    assert [d.hit_rate for d in report] == [None, 3 / 8, None, 1.0]
    whole = figures.totals(router.usage, since=figures.bounds_of(first, "UTC")[0], until=NOW)
    assert (whole.requests, whole.errors) == (2, 0)
    assert (whole.asked, whole.texts, whole.cached) == (16, 12, 7)
    assert whole.hit_rate == 7 / 12
    assert whole.causes == Saved(cache=700, repeats=14)
    assert whole.saved == sum(d.saved for d in report)
    assert whole.p95_ms >= 40


async def test_a_day_is_the_zones_own(router: Router) -> None:
    """23:30 UTC is the next day in Paris; each day's p95 is of its own requests."""
    await record(router, datetime(2026, 11, 19, 23, 30, tzinfo=UTC), cache=1)
    span = {"first": date(2026, 11, 19), "last": date(2026, 11, 20)}
    assert [d.texts for d in figures.days(router.usage, **span, zone="UTC")] == [3, 0]
    there = figures.days(router.usage, **span, zone="Europe/Paris")
    assert [d.texts for d in there] == [0, 3]
    assert [bool(p) for p in figures.p95s(router.usage, there, zone="Europe/Paris")] == [False, True]


async def test_a_filter_and_a_group_are_passed_on(router: Router) -> None:
    """By policy, and only one policy."""
    await record(router, datetime(2026, 11, 21, 9, tzinfo=UTC), cache=1, policy="a")
    await record(router, datetime(2026, 11, 21, 9, tzinfo=UTC), cache=2, policy="b")
    today = date(2026, 11, 21)
    (by_policy,) = figures.days(router.usage, first=today, last=today, zone="UTC", by="policy")
    assert {name: s.texts for name, s in by_policy.groups.items()} == {"a": 1, "b": 2}
    only = figures.totals(router.usage, since=NOW - 86_400, until=NOW, where={"policy": "b"})
    assert only.texts == 2
    assert figures.totals(router.usage, since=0, until=1).hit_rate is None


async def test_hours_are_those_of_the_day_and_add_up_to_it(router: Router) -> None:
    """23 of them, 24 or 25; in a zone of half an hour too."""
    await record(router, datetime(2026, 10, 25, 0, 30, tzinfo=UTC), cache=1)  # twice half past two in Paris
    await record(router, datetime(2026, 10, 25, 1, 30, tzinfo=UTC), cache=2)
    for zone, day, hours in (
        ("Europe/Paris", date(2026, 10, 25), 25),
        ("Europe/Paris", date(2026, 3, 29), 23),
        ("Asia/Kathmandu", date(2026, 10, 25), 24),
        ("Australia/Lord_Howe", date(2026, 10, 4), 24),  # where the clocks go on by half an hour
    ):
        span = {"first": day, "last": day, "zone": zone}
        report = figures.hours(router.usage, **span)
        assert len(report) == hours
        (whole,) = figures.days(router.usage, **span)
        assert sum(hour.texts for hour in report) == whole.texts
        bars = [figures.bounds_of_bucket(hour.day, zone) for hour in report]
        assert [end for _, end in bars] == [*(start for start, _ in bars[1:]), figures.bounds_of(day, zone)[1]]
    found = [hour for hour in figures.hours(router.usage, first=day, last=day, zone="UTC") if hour.groups]
    assert found == []
    paris = figures.hours(router.usage, first=date(2026, 10, 25), last=date(2026, 10, 25), zone="Europe/Paris")
    assert [(f"{hour.day:%H:%M %z}", hour.texts) for hour in paris if hour.groups] == [
        ("02:00 +0200", 3),
        ("02:00 +0100", 4),
    ]


async def test_a_provider_is_the_models_of_its_name(router: Router) -> None:
    """Added up; the requests behind its bar are those of all of them."""
    clock, ledger = router.clock, router.ledger
    assert isinstance(clock, Turned)
    for n, model in enumerate(("voyage/voyage-4", "voyage/voyage-4-lite", "openai/text-embedding-3-small")):
        who = {"policy": "quality", "version": 1, "collection": "", "role": "document"}
        number = await router.usage.begin(**who)
        unit = Unit(digest=bytes([n]) * 32, text="", tokens=10 + n)
        purpose = Purpose(request=number, policy="quality", model=model, kind=model, route="api")
        opened = await ledger.open([[unit]], purpose, price=lambda t: t, stored=lambda _: set(), sent=True)
        await ledger.settle(opened.holds[0], 10 + n, 10 + n)
        await router.usage.record(Outcome(status="done", model=model, charged=10 + n), request=number, **who)
    today = date(2026, 11, 21)
    (day,) = figures.days(router.usage, first=today, last=today, zone="UTC", by="provider")
    assert {name: (s.charged, s.requests) for name, s in day.groups.items()} == {"voyage": (21, 2), "openai": (12, 1)}
    for of, paid in (("voyage", [11, 10]), ("openai", [12]), ("cohere", [])):
        found = figures.behind(router.usage, today, "UTC", by="provider", of=of, limit=9)
        assert [row["paid"] for row in found] == paid


def test_today_and_the_window_are_the_zones_own() -> None:
    """Late on the last day of a month in UTC, Tokyo is in the next month."""
    late = datetime(2026, 11, 30, 20, tzinfo=UTC).timestamp()
    assert figures.today(late, "UTC") == date(2026, 11, 30)
    assert figures.today(late, "Asia/Tokyo") == date(2026, 12, 1)
    assert figures.window_days("month", late, "UTC") == (date(2026, 11, 1), date(2026, 11, 30))
    assert figures.window_days("month", late, "Asia/Tokyo") == (date(2026, 12, 1), date(2026, 12, 31))
    assert figures.window_days("week", NOW, "UTC") == (date(2026, 11, 16), date(2026, 11, 22))


@given(st.dates(date(2020, 1, 1), date(2035, 12, 31)), st.sampled_from(["UTC", "Europe/Paris", "America/Santiago"]))
def test_days_follow_each_other_without_gap(day: date, zone: str) -> None:
    """Also where the clocks are changed at midnight."""
    assert figures.bounds_of(day, zone)[1] == figures.bounds_of(day + timedelta(days=1), zone)[0]


# ---- forecast ----------------------------------------------------------------------------------


def history(*amounts: int | None) -> list[Day]:
    """Days up to today; None is a day without requests."""
    first = date(2026, 11, 21) - timedelta(days=len(amounts) - 1)
    return [
        Day(day=first + timedelta(days=n), groups={} if a is None else {"api": Slice(key="", **ZERO | {"charged": a})})
        for n, a in enumerate(amounts)
    ]


def ahead(days: Sequence[Day], *, spent: int, limit: int | None = None) -> figures.Forecast | None:
    """The month's forecast at noon UTC of 21 November: nine and a half days are to come."""
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
    return forecast(days, spent=spent, limit=limit, now=noon, window="month", zone="UTC")


def test_a_forecast_adds_the_mean_of_the_last_whole_days() -> None:
    """Steady days: no band; today's half day does not count as a day."""
    found = ahead(history(10, 10, 10, 3), spent=33)
    assert found is not None
    assert (found.expected, found.low, found.high) == (33 + 95, 128, 128)
    assert (found.per_day, found.days, found.ends) == (10, 3, date(2026, 11, 30))


def test_a_forecast_counts_idle_days_but_not_those_before_the_first_request() -> None:
    """A week of two requests costs less a day than its days with requests; more than a week back is forgotten."""
    found = ahead(history(None, None, 30, None, None, 0), spent=30)
    assert found is not None
    assert (found.per_day, found.days) == (10, 3)
    assert found.low < found.expected < found.high
    long_ago = ahead(history(1_000_000, *[10] * 7, 0), spent=0)
    assert long_ago is not None
    assert long_ago.per_day == 10


def test_a_forecast_names_the_day_on_which_the_money_runs_out() -> None:
    """45 left at 10 a day lasts four and a half days from noon; what is spent already runs out today."""
    days = history(10, 10, 0)
    for limit, day in ((65, date(2026, 11, 26)), (20, date(2026, 11, 21)), (116, None), (None, None)):
        found = ahead(days, spent=20, limit=limit)
        assert found is not None
        assert found.runs_out == day


def test_there_is_no_forecast_without_a_whole_day_or_an_end() -> None:
    """On the first day, and for a budget in total."""
    assert ahead(history(5), spent=5) is None
    assert ahead(history(None, 5), spent=5) is None
    assert forecast(history(5, 5), spent=5, limit=9, now=NOW, window="total", zone="UTC") is None


def test_groups_come_with_the_most_money_first() -> None:
    """Ties go by what was saved, then by texts, then by name."""
    slices = {
        "b": Slice(key="", **ZERO | {"texts": 5}), "a": Slice(key="", **ZERO | {"texts": 5}),
        "free": Slice(key="", **ZERO | {"avoided_cache": 9}), "paid": Slice(key="", **ZERO | {"charged": 1}),
    }  # fmt: skip
    assert figures.group_names([Day(day=date(2026, 11, 1), groups=slices)]) == ["paid", "free", "a", "b"]
