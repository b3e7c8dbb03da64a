"""`spend`: where the money went, and what was not spent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.output import Json, emit, say, table
from router.cli.shell import with_router
from router.domain.errors import BadInput
from router.domain.money import show, to_json
from router.domain.policy import EPOCH, find_zone, window_bounds

if TYPE_CHECKING:
    from router.engine import Router
    from router.store.usage import Slice

GROUPS = ("route", "provider", "model", "policy", "collection", "day")
_SINCE = re.compile(r"(\d{1,4})([hdw])")
_SUMS = ("requests", "texts", "tokens", "settled", "unconfirmed", "avoided", "repeated", "errors")
_MONEY = ("settled", "unconfirmed", "avoided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Sums over one group, or one day. Money in nanodollars."""

    key: str
    requests: int = 0
    texts: int = 0
    tokens: int = 0
    settled: int = 0
    unconfirmed: int = 0
    avoided: int = 0
    repeated: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a period cost. `hit_rate` is None where nothing was answered; `held` is now, whatever the period."""

    since: datetime
    until: datetime
    total: Row
    held: int
    hit_rate: float | None
    rows: tuple[Row, ...]


def spend(
    since: Annotated[
        str, typer.Option(metavar="30d|12h|4w|YYYY-MM-DD|all", help="Days and weeks are whole and end today.")
    ] = "30d",
    by: Annotated[str, typer.Option(metavar="|".join(GROUPS))] = "route",
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Whose days, such as Europe/Paris.")] = "UTC",
    as_json: Json = False,
) -> None:
    """What was spent and what was avoided, by route, provider, model, policy, collection or day."""
    if by not in GROUPS:
        raise BadInput(f"Spending cannot be grouped by '{by}'.", f"Choose one of: {', '.join(GROUPS)}.")
    find_zone(timezone)

    async def work(router: Router) -> Spent:
        now = datetime.fromtimestamp(router.clock(), UTC)
        return reckon(router, start_of(since, now, timezone), now, by, timezone)

    spent = with_router(work)
    if as_json:
        emit(_as_json(spent, by, timezone))
    else:
        _tell(spent, by, timezone)


def start_of(since: str, now: datetime, timezone: str) -> datetime:
    """When a period begins: so many hours ago, or the midnight, in the zone, before so many days of which one is today.

    Raises:
        BadInput: not a period, or one that begins in the future.
    """
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
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)  # which, unlike midnight, no clock ever skips
    start, _ = window_bounds("day", noon, timezone)
    if start > now:
        raise BadInput(f"{since} is in the future.", "Name a day that has begun.")
    return start


def reckon(router: Router, since: datetime, until: datetime, by: str, timezone: str) -> Spent:
    """Sum up the books between two times."""

    from router.reporting import figures

    usage, start, end = router.usage, since.timestamp(), until.timestamp() + 1
    routes = figures.groups(usage, since=start, until=end, by="route")
    answered = sum(part.texts for part in routes.values())
    cached = routes["cache"].texts if "cache" in routes else 0
    if by == "day":
        zone = find_zone(timezone)
        begun = since if since != EPOCH else datetime.fromtimestamp(usage.began() or until.timestamp(), UTC)
        first, last = (moment.astimezone(zone).date() for moment in (begun, until))
        report = figures.days(usage, first=first, last=last, zone=timezone, since=start)
        rows = tuple(_row(day.day.isoformat(), day.groups.values()) for day in report)
    else:
        rows = tuple(_row(name, [part]) for name, part in figures.groups(usage, since=start, until=end, by=by).items())
    return Spent(
        since=since,
        until=until,
        total=_row("total", routes.values()),
        held=router.ledger.totals()[2],
        hit_rate=cached / answered if answered else None,
        rows=rows,
    )


def _row(key: str, slices: Iterable[Slice]) -> Row:
    parts = list(slices)
    return Row(
        key=key,
        requests=sum(p.requests for p in parts),
        texts=sum(p.texts for p in parts),
        tokens=sum(p.tokens for p in parts),
        settled=sum(p.charged for p in parts),
        unconfirmed=sum(p.unconfirmed for p in parts),
        avoided=sum(p.avoided for p in parts),
        repeated=sum(p.repeated for p in parts),
        errors=sum(p.errors for p in parts),
    )


def _as_json(spent: Spent, by: str, timezone: str) -> dict[str, object]:
    def sums(row: Row) -> dict[str, object]:
        values = {name: getattr(row, name) for name in _SUMS}
        return {f"{k}_usd" if k in _MONEY else k: to_json(v) if k in _MONEY else v for k, v in values.items()}

    return {
        "settled_usd": to_json(spent.total.settled),
        "unconfirmed_usd": to_json(spent.total.unconfirmed),
        "held_usd": to_json(spent.held),
        "avoided_usd": to_json(spent.total.avoided),
        "texts": spent.total.texts,
        "hit_rate": None if spent.hit_rate is None else round(spent.hit_rate, 6),
        "rows": [{by: row.key, **sums(row)} for row in spent.rows],
        "by": by,
        "since": spent.since.isoformat(),
        "until": spent.until.isoformat(),
        "timezone": timezone,
    }


def _tell(spent: Spent, by: str, timezone: str) -> None:
    zone = find_zone(timezone)
    start = "the beginning" if spent.since == EPOCH else f"{spent.since.astimezone(zone):%Y-%m-%d %H:%M}"
    rate = "–" if spent.hit_rate is None else f"{100 * spent.hit_rate:.1f} %"
    say(f"From {start} to {spent.until.astimezone(zone):%Y-%m-%d %H:%M} ({timezone})")
    say(f"settled      {show(spent.total.settled)}")
    say(f"unconfirmed  {show(spent.total.unconfirmed)}")
    say(f"held now     {show(spent.held)}")
    say(f"avoided      {show(spent.total.avoided)}")
    say(f"texts        {spent.total.texts:,}, {rate} from the cache")
    rows = [
        (
            row.key or "(none)",
            f"{row.requests:,}",
            f"{row.texts:,}",
            f"{row.tokens:,}",
            show(row.settled),
            show(row.unconfirmed),
            show(row.avoided),
        )
        for row in spent.rows
    ]
    if rows:
        headers = (by, "requests", "texts", "tokens billed", "settled", "unconfirmed", "avoided")
        table(headers, rows, right=range(1, 7))
