"""Sums and latencies that add up: by quarter-hour, of which the days of every time zone are made, by hour and by day.

Each is kept by several groups of dimensions ("grains"), so that a chart reads one row a bar: a time range is read as
whole days of UTC with hours or quarter-hours added or taken off at its two ends, in the coarsest grain that tells
apart what is asked. So it costs the same, however many requests there were. Everything runs inside the
caller's transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from router.store.database import Connection, marks

QUARTER_S = 900
A_DAY: Literal[96] = 96
"""Quarter-hours of a day."""
SPANS = (1, 4, A_DAY)
"""What a row stands for, in quarter-hours."""
DIMENSIONS = ("policy", "collection", "model", "route")
SUMS = (
    "requests", "texts", "tokens", "charged", "unconfirmed", "avoided_cache", "avoided_repeats", "avoided_dimensions",
    "avoided_local", "avoided_batch", "repeated", "errors",
)  # fmt: skip

GRAINS: Mapping[int, tuple[str, ...]] = {
    1: ("route",),
    2: ("model",),
    3: ("collection",),
    4: ("policy", "route"),
    5: ("policy", "model"),
    6: ("policy", "collection"),
    0: DIMENSIONS,
}
"""The dimensions of a grain's rows; the others are empty. Coarsest first. The numbers are stored."""

Span = Literal[1, 4, 96]
Range = tuple[int, Span, int, int]
"""(1 or -1, span, first, end): rows to add or to take off; counted in spans since 1970."""
Key = tuple[int, str, str, str, str]
"""(quarter, policy, collection, model, route)"""


# ---- writing -----------------------------------------------------------------------------------


def add(conn: Connection, key: Key, sums: Mapping[str, int]) -> None:
    """Add to the sums of a quarter-hour, its hour and its day, in every grain."""
    names = list(sums)
    conn.executemany(
        f"INSERT INTO rollups (span, grain, start, policy, collection, model, route, {', '.join(names)})"
        f" VALUES (?, ?, ?, ?, ?, ?, ?{', ?' * len(names)}) ON CONFLICT DO UPDATE SET "
        + ", ".join(f"{n} = {n} + excluded.{n}" for n in names),
        [(*row, *sums.values()) for row in _rows(key)],
    )


def add_latency(conn: Connection, key: Key, bucket: int) -> None:
    """Count a request in its latency bucket, of the quarter-hour, its hour and its day, in every grain."""
    conn.executemany(
        "INSERT INTO latencies (span, grain, start, policy, collection, model, route, bucket, requests)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
        [(*row, bucket) for row in _rows(key)],
    )


def _rows(key: Key) -> Iterator[tuple[int | str, ...]]:
    quarter, *names = key
    for grain, told in GRAINS.items():
        known = [name if dimension in told else "" for dimension, name in zip(DIMENSIONS, names, strict=True)]
        for span in SPANS:
            yield span, grain, quarter // span, *known


# ---- reading -----------------------------------------------------------------------------------


def sums(
    conn: Connection, first: int, end: int, columns: Sequence[str], filters: Mapping[str, str]
) -> dict[tuple[str | int, ...], list[int]]:
    """Sums of the quarter-hours from `first` up to `end`, by `DIMENSIONS` or `quarter`, filtered by equality."""
    by_quarter = "quarter" in columns
    ranges: list[Range] = [(1, 1, first, end)] if by_quarter else _ranges(conn, first, end)
    named = ["start" if column == "quarter" else column for column in columns]
    select = ", ".join([*named, *(f"sum({c})" for c in SUMS)])
    group = f" GROUP BY {', '.join(named)}" if named else ""
    grain = _grain({*columns, *filters} - {"quarter"})
    found: dict[tuple[str | int, ...], list[int]] = {}
    n = len(columns)
    for sign, span, start, stop in ranges:
        where, values = _where(span, grain, start, stop, filters)
        for row in conn.execute(f"SELECT {select} FROM rollups WHERE {where}{group}", values):
            if row[n] is None:  # a sum over nothing
                continue
            total = found.setdefault(tuple(row[:n]), [0] * len(SUMS))
            for place, amount in enumerate(row[n:]):
                total[place] += sign * amount
    return {key: found[key] for key in sorted(found) if any(found[key])}


def histograms(
    conn: Connection, first: int, end: int, filters: Mapping[str, str], *, by_route: bool = False
) -> dict[str, list[tuple[int, int]]]:
    """Requests by latency bucket in the quarter-hours from `first` up to `end`, lowest bucket first; of each route, or
    of all together under ""."""
    counts: Counter[tuple[str, int]] = Counter()
    grain = _grain({*filters, *(["route"] if by_route else [])})
    route = "route" if by_route else "''"
    for sign, span, start, stop in _ranges(conn, first, end):
        where, values = _where(span, grain, start, stop, filters)
        for name, bucket, n in conn.execute(
            f"SELECT {route}, bucket, sum(requests) FROM latencies WHERE {where} GROUP BY 1, 2", values
        ):
            counts[name, bucket] += sign * n
    found: dict[str, list[tuple[int, int]]] = {}
    for (name, bucket), n in sorted(counts.items()):
        if n:
            found.setdefault(name, []).append((bucket, n))
    return found


def _grain(asked: set[str]) -> int:
    return next(grain for grain, told in GRAINS.items() if asked <= set(told))


def _where(span: Span, grain: int, start: int, stop: int, filters: Mapping[str, str]) -> tuple[str, tuple[object, ...]]:
    """The condition for a range. A few rows of one policy are looked up one by one, past those of all others."""
    rest = "".join(f" AND {name} = ?" for name in filters)
    if filters and stop - start <= A_DAY:
        starts = range(start, stop)
        return f"span = ? AND grain = ? AND start IN ({marks(starts)}){rest}", (span, grain, *starts, *filters.values())
    return f"span = ? AND grain = ? AND start >= ? AND start < ?{rest}", (span, grain, start, stop, *filters.values())


def _ranges(conn: Connection, first: int, end: int) -> list[Range]:
    """The quarter-hours from `first` up to `end` as whole days, and as few hours or quarter-hours as possible."""
    if end <= first:
        return []
    day, last = first // A_DAY, -(-end // A_DAY)  # days touched: from `day` up to `last`
    before, after = first - day * A_DAY, last * A_DAY - end  # quarter-hours of them that are not asked
    later = "SELECT 1 FROM rollups WHERE span = 1 AND grain = 1 AND start >= ? AND start < ? LIMIT 1"
    if after and conn.execute(later, (end, last * A_DAY)).fetchone() is None:
        after = 0  # the usual end is now, and nothing comes after it
    if last - day == 1 and (after or before > A_DAY // 2):
        return [_edge(1, first, end)]
    found: list[Range] = []
    if before > A_DAY // 2:
        day += 1
        found.append(_edge(1, first, day * A_DAY))
    elif before:
        found.append(_edge(-1, first - before, first))
    if after > A_DAY // 2:
        last -= 1
        found.append(_edge(1, last * A_DAY, end))
    elif after:
        found.append(_edge(-1, end, last * A_DAY))
    if day < last:
        found.append((1, A_DAY, day, last))
    return found


def _edge(sign: int, first: int, end: int) -> Range:
    """A part of a day: in hours where these are whole, as in nearly every time zone."""
    return (sign, 1, first, end) if first % 4 or end % 4 else (sign, 4, first // 4, end // 4)
