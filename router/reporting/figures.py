"""Figures from the usage rollups: sums of a time range, days without gaps, and the forecast of a budget.

Everything is computed from the quarter-hour rollups, so it costs the same over ten requests as over ten million.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta, timezone
from functools import reduce
from typing import Any

from router.domain.policy import find_zone, window_bounds
from router.domain.values import Saved, Window
from router.store.rollups import SUMS
from router.store.usage import Order, Place, Slice, Usage

Where = Mapping[str, str]

LOOK_BACK = 7
"""Whole days before today that a forecast is based on, or those since the first request where these are fewer."""
HOUR_S = 3_600
Z80 = 1.2816
"""Standard deviations around the mean within which four of five outcomes of a normal distribution are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures(Slice):
    """Sums over a time range; `texts` counts each text once a request.

    Attributes:
        cached: those of `texts` that came from the cache.
        p95_ms: 95 of 100 requests ended within so many milliseconds (the upper bound of a histogram's bucket).
    """

    cached: int
    p95_ms: float

    @property
    def asked(self) -> int:
        """Texts asked and answered, repeats included."""
        return self.texts + self.repeated

    @property
    def spent(self) -> int:
        """Billed, and possibly billed."""
        return self.charged + self.unconfirmed

    @property
    def hit_rate(self) -> float | None:
        """Share (0-1) of the texts that the cache answered; None where none was answered."""
        return self.cached / self.texts if self.texts else None

    @property
    def causes(self) -> Saved:
        """What was not spent, by cause."""
        return Saved(**{cause.name: getattr(self, f"avoided_{cause.name}") for cause in fields(Saved)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of a report, or one hour: the sums of each group that has any, by the group's name.

    An hour's `day` is a datetime of the zone.
    """

    day: date
    groups: Mapping[str, Slice]

    @property
    def spent(self) -> int:
        """Nanodollars billed, and possibly billed, by all groups."""
        return sum(s.charged + s.unconfirmed for s in self.groups.values())

    @property
    def saved(self) -> int:
        """Nanodollars not spent, in all groups."""
        return sum(s.saved for s in self.groups.values())

    @property
    def texts(self) -> int:
        """Texts asked and answered, repeats included."""
        return sum(s.texts + s.repeated for s in self.groups.values())

    @property
    def hit_rate(self) -> float | None:
        """Share of distinct texts that the cache answered; only where the groups are routes."""
        distinct = sum(s.texts for s in self.groups.values())
        return _cached(self.groups) / distinct if distinct else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a budget will have used at the end of its window, by the days before. Money in nanodollars.

    Attributes:
        expected, low, high: spent by `ends`; four times of five it is between low and high.
        per_day, days: the mean of the days that it is based on, and how many these are.
        runs_out: the day on which the limit is reached, if that is before `ends`.
    """

    expected: int
    low: int
    high: int
    per_day: int
    days: int
    ends: date
    runs_out: date | None


# ---- reading -----------------------------------------------------------------------------------


def totals(usage: Usage, *, since: float, until: float, where: Where | None = None) -> Figures:
    """The sums between two times (epoch seconds)."""
    routes = groups(usage, since=since, until=until, by="route", where=where)
    whole = reduce(Slice.plus, routes.values(), Slice(key="", **dict.fromkeys(SUMS, 0)))
    return Figures(
        **asdict(whole),
        cached=_cached(routes),
        p95_ms=usage.latency(since=since, until=until, share=0.95, where=where),
    )


def _cached(routes: Mapping[str, Slice]) -> int:
    return routes["cache"].texts if "cache" in routes else 0


def groups(usage: Usage, *, since: float, until: float, by: str, where: Where | None = None) -> dict[str, Slice]:
    """The sums of each group between two times; by route, model, policy, collection or provider."""
    found = usage.sums(since=since, until=until, by=("model" if by == "provider" else by,), where=where)
    out: dict[str, Slice] = {}
    for (name, *_), s in found:
        group = provider_of(str(name)) if by == "provider" else str(name)
        out[group] = out[group].plus(s) if group in out else s
    return out


def provider_of(model: str) -> str:
    """The provider of a model's id; "" where a request ended before a model was chosen."""
    return model.partition("/")[0]


def days(
    usage: Usage,
    *,
    first: date,
    last: date,
    zone: str,
    by: str = "route",
    where: Where | None = None,
    since: float = 0.0,
) -> list[Day]:
    """Every day from `first` to `last`, both included, in the zone; a day without requests has no groups.

    `since`: what came before this time is left out of the first day.
    """
    starts = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return _report(usage, starts, zone, by, where, since)


def hours(
    usage: Usage, *, first: date, last: date, zone: str, by: str = "route", where: Where | None = None
) -> list[Day]:
    """Every hour from the first to the last day, in the zone, of which a day has 23, 24 or 25."""
    start, end = bounds_of(first, zone)[0], bounds_of(last, zone)[1]
    starts = [hour_at(start + n * HOUR_S, zone) for n in range(math.ceil((end - start) / HOUR_S))]
    return _report(usage, starts, zone, by, where)


def _report(
    usage: Usage, starts: Sequence[date], zone: str, by: str, where: Where | None, since: float = 0.0
) -> list[Day]:
    bounds = [bounds_of_bucket(start, zone) for start in starts]
    return [
        Day(day=day, groups=groups(usage, since=max(start, since), until=end, by=by, where=where))
        for day, (start, end) in zip(starts, bounds, strict=True)
    ]


def hour_at(start: float, zone: str) -> datetime:
    """A moment by the zone's clock, with its offset of then: an hour that comes twice is two that are not equal."""
    moment = datetime.fromtimestamp(start, find_zone(zone))
    return moment.replace(tzinfo=timezone(moment.utcoffset() or timedelta()), fold=0)


def bounds_of_bucket(start: date, zone: str) -> tuple[float, float]:
    """Start and end, in epoch seconds, of a time bucket: a report's day or hour."""
    if isinstance(start, datetime):
        return start.timestamp(), min(start.timestamp() + HOUR_S, bounds_of(start.date(), zone)[1])
    return bounds_of(start, zone)


def behind(
    usage: Usage,
    start: date,
    zone: str,
    *,
    by: str,
    of: str,
    where: Where | None = None,
    limit: int,
    before: Place | None = None,
    order: Order = "newest",
) -> list[dict[str, Any]]:
    """The requests that paid for the group `of` in a report's day or hour; see `Usage.behind`."""
    since, until = bounds_of_bucket(start, zone)
    names: str | list[str] = of
    if by == "provider":
        models = groups(usage, since=since, until=until, by="model", where=where)
        by, names = "model", [model for model in models if provider_of(model) == of]
    asked = {**(where or {}), by: names}
    return usage.behind(since=since, until=until, where=asked, limit=limit, before=before, order=order)


def p95s(usage: Usage, report: Iterable[Day], *, zone: str, where: Where | None = None) -> list[float]:
    """The 95th percentile of latency of each day or hour of a report, in ms; 0.0 where there were no requests."""
    buckets = [bounds_of_bucket(d.day, zone) for d in report]
    return [usage.latency(since=since, until=until, share=0.95, where=where) for since, until in buckets]


def today(now: float, zone: str) -> date:
    """The day that it is in the zone."""
    return window_days("day", now, zone)[0]


def bounds_of(day: date, zone: str) -> tuple[float, float]:
    """Start and end of a day in the zone, in epoch seconds."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=find_zone(zone)).astimezone(UTC)
    start, end = window_bounds("day", noon, zone)
    assert end is not None  # only `total` has no end
    return start.timestamp(), end.timestamp()


def window_days(window: Window, now: float, zone: str) -> tuple[date, date]:
    """First and last day of the day, week or month that runs now."""
    start, end = window_bounds(window, datetime.fromtimestamp(now, UTC), zone)
    if end is None:
        raise ValueError("the window 'total' has no last day")
    here = find_zone(zone)
    return start.astimezone(here).date(), (end - timedelta(seconds=1)).astimezone(here).date()


# ---- computing ---------------------------------------------------------------------------------


def group_names(report: Iterable[Day]) -> list[str]:
    """Every group of a report, those with the most money first."""
    weights: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for day in report:
        for name, s in day.groups.items():
            for n, amount in enumerate((s.charged + s.unconfirmed, s.saved, s.texts)):
                weights[name][n] -= amount
    return sorted(weights, key=lambda name: (weights[name], name))


def forecast(
    history: Sequence[Day], *, spent: int, limit: int | None, now: float, window: Window, zone: str
) -> Forecast | None:
    """Where the window that runs now ends, going by the last whole days of `history` (its last day is today).

    What the rest of today and every day after it costs is the mean of those days; the band widens with the square
    root of the days ahead. None where there is not one whole day to go by, or the window has no end.
    """
    _, end = window_bounds(window, datetime.fromtimestamp(now, UTC), zone)
    if end is None:
        return None
    whole = list(history[:-1])
    began = next((i for i, day in enumerate(whole) if day.groups), None)
    if began is None:
        return None
    amounts = [day.spent for day in whole[began:]][-LOOK_BACK:]
    mean = statistics.fmean(amounts)
    ahead = (end.timestamp() - now) / 86_400
    spread = Z80 * statistics.pstdev(amounts) * math.sqrt(ahead)
    rest = mean * ahead
    return Forecast(
        expected=spent + round(rest),
        low=spent + max(0, round(rest - spread)),
        high=spent + round(rest + spread),
        per_day=round(mean),
        days=len(amounts),
        ends=(end - timedelta(seconds=1)).astimezone(find_zone(zone)).date(),
        runs_out=_runs_out(spent, limit, mean, now, end.timestamp(), zone),
    )


def _runs_out(spent: int, limit: int | None, per_day: float, now: float, end: float, zone: str) -> date | None:
    if limit is None or per_day <= 0:
        return None
    at = now + max(0.0, (limit - spent) / per_day) * 86_400
    return datetime.fromtimestamp(at, find_zone(zone)).date() if at < end else None
