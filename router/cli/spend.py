"""`spend`: where the money went, and what was saved."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.output import Json, emit, pick, say, table
from router.cli.shell import with_router
from router.domain.errors import BadInput
from router.domain.money import show, to_json
from router.domain.policy import EPOCH, find_zone

if TYPE_CHECKING:
    from router.engine import Router
    from router.reporting.figures import Figures
    from router.store.usage import Slice

GROUPS = ("route", "provider", "model", "policy", "collection", "day")
_SINCE = re.compile(r"(\d{1,4})([hdw])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a period cost, in all and by group or day. `held` is what is held now, whatever the period, nanodollars."""

    since: datetime
    until: datetime
    total: Figures
    held: int
    parts: Sequence[Slice]


def spend(
    since: Annotated[
        str, typer.Option(metavar="30d|12h|4w|YYYY-MM-DD|all", help="Days and weeks are whole and end today.")
    ] = "30d",
    by: Annotated[str, typer.Option(metavar="|".join(GROUPS))] = "route",
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Whose days, such as Europe/Paris.")] = "UTC",
    as_json: Json = False,
) -> None:
    """What was spent and what was saved, by route, provider, model, policy, collection or day."""
    if by not in GROUPS:
        raise BadInput(f"Spending cannot be grouped by '{by}'.", f"Choose one of: {', '.join(GROUPS)}.")
    find_zone(timezone)

    def read(router: Router) -> Spent:
        now = datetime.fromtimestamp(router.clock(), UTC)
        return sum_up(router, start_of(since, now, timezone), now, by, timezone)

    spent = with_router(lambda router: asyncio.to_thread(read, router))
    if as_json:
        emit(spent_as_json(spent, by, timezone))
    else:
        _tell(spent, by, timezone)


def start_of(since: str, now: datetime, timezone: str) -> datetime:
    """When a period begins: so many hours ago, or the midnight, in the zone, before so many days of which one is today.

    Raises:
        BadInput: not a period, or one that begins in the future.
    """
    from router.reporting import figures

    if since == "all":
        return EPOCH
    zone = find_zone(timezone)
    if match := _SINCE.fullmatch(since):
        number, unit = int(match[1]), match[2]
        if unit == "h":
            return now - timedelta(hours=number)
        day = now.astimezone(zone).date() - timedelta(days=max(0, number * (7 if unit == "w" else 1) - 1))
    else:
        try:
            day = date.fromisoformat(since)
        except ValueError:
            message = f"'{since}' is not a period."
            raise BadInput(message, "Write it like 30d, 12h, 4w, 2026-11-01 or all.") from None
    start = datetime.fromtimestamp(figures.bounds_of(day, timezone)[0], UTC)
    if start > now:
        raise BadInput(f"{since} is in the future.", "Name a day that has begun.")
    return start


def sum_up(router: Router, since: datetime, until: datetime, by: str, timezone: str) -> Spent:
    """What was spent between two times, by one of `GROUPS`; days are those of the time zone."""
    from router.reporting import figures
    from router.store.rollups import SUMS
    from router.store.usage import Slice

    usage, start, end = router.usage, since.timestamp(), until.timestamp() + 1
    if by == "day":
        zone = find_zone(timezone)
        begun = since if since != EPOCH else datetime.fromtimestamp(usage.began() or until.timestamp(), UTC)
        first, last = (moment.astimezone(zone).date() for moment in (begun, until))
        report = figures.days(usage, first=first, last=last, zone=timezone, since=start)
        none = dict.fromkeys(SUMS, 0)
        parts = [reduce(Slice.plus, day.groups.values(), Slice(key=day.day.isoformat(), **none)) for day in report]
    else:
        groups = figures.groups(usage, since=start, until=end, by=by)
        parts = [replace(part, key=name) for name, part in groups.items()]
    total = figures.totals(usage, since=start, until=end)
    return Spent(since=since, until=until, total=total, held=router.totals()[2], parts=parts)


def spent_as_json(spent: Spent, by: str, timezone: str) -> dict[str, object]:
    """A period for machines."""
    return {
        "settled_usd": to_json(spent.total.charged),
        "unconfirmed_usd": to_json(spent.total.unconfirmed),
        "held_usd": to_json(spent.held),
        "avoided_usd": to_json(spent.total.saved),
        "texts": spent.total.texts,
        "hit_rate": None if spent.total.hit_rate is None else round(spent.total.hit_rate, 6),
        "rows": [
            {
                by: part.key,
                **pick(part, "requests texts tokens"),
                "settled_usd": to_json(part.charged),
                "unconfirmed_usd": to_json(part.unconfirmed),
                "avoided_usd": to_json(part.saved),
                **pick(part, "repeated errors"),
            }
            for part in spent.parts
        ],
        "by": by,
        "since": spent.since.isoformat(),
        "until": spent.until.isoformat(),
        "timezone": timezone,
    }


def _tell(spent: Spent, by: str, timezone: str) -> None:
    zone = find_zone(timezone)
    start = "the beginning" if spent.since == EPOCH else f"{spent.since.astimezone(zone):%Y-%m-%d %H:%M}"
    rate = "–" if spent.total.hit_rate is None else f"{100 * spent.total.hit_rate:.1f} %"
    say(f"From {start} to {spent.until.astimezone(zone):%Y-%m-%d %H:%M} ({timezone})")
    say(f"settled      {show(spent.total.charged)}")
    say(f"unconfirmed  {show(spent.total.unconfirmed)}")
    say(f"held now     {show(spent.held)}")
    say(f"saved        {show(spent.total.saved)}")
    say(f"texts        {spent.total.texts:,}, {rate} from the cache")
    rows = [
        (p.key or "(none)", p.requests, p.texts, p.tokens, show(p.charged), show(p.unconfirmed), show(p.saved))
        for p in spent.parts
    ]
    if rows:
        headers = (by, "requests", "texts", "tokens billed", "settled", "unconfirmed", "saved")
        table(headers, rows, right=range(1, 7))
