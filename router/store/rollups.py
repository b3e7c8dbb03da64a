"""Sums and latencies at two levels: quarter-hours, of which the days of every time zone are made, and days of UTC.

A stretch is read as whole days with quarter-hours added or taken off at its two ends, so it costs as many rows as it
has days and groups, however many requests there were. All of it runs inside the caller's transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from router.store.database import Connection

QUARTER_S = 900
A_DAY = 86_400 // QUARTER_S
DIMENSIONS = ("policy", "collection", "model", "route")
SUMS = (
    "requests", "texts", "tokens", "charged", "unconfirmed", "avoided_cache", "avoided_repeats", "avoided_dimensions",
    "avoided_local", "avoided_batch", "repeated", "errors",
)  # fmt: skip
ANY = "*"
"""In `latency_days`, a dimension that a histogram is not by."""

Level = Literal["day", "quarter"]
Stretch = tuple[int, Level, int, int]
"""(1 or -1, level, first, end): rows to add or to take off."""
Key = tuple[int, str, str, str, str]
"""(quarter, policy, collection, model, route)"""

_TABLES: Mapping[Level, str] = {"day": "rollup_days", "quarter": "rollups"}


# ---- writing -----------------------------------------------------------------------------------


def add(conn: Connection, key: Key, sums: Mapping[str, int]) -> None:
    """Add to the sums of a quarter-hour and of its day."""
    quarter, *dimensions = key
    names = list(sums)
    tail = (
        f", policy, collection, model, route, {', '.join(names)})"
        f" VALUES (?, ?, ?, ?, ?{', ?' * len(names)}) ON CONFLICT DO UPDATE SET "
        + ", ".join(f"{n} = {n} + excluded.{n}" for n in names)
    )
    conn.execute(f"INSERT INTO rollups (quarter{tail}", (quarter, *dimensions, *sums.values()))
    conn.execute(f"INSERT INTO rollup_days (day{tail}", (quarter // A_DAY, *dimensions, *sums.values()))


def add_latency(conn: Connection, key: Key, bucket: int) -> None:
    """Count a request in its bucket: of its quarter-hour, and of its day by every combination of dimensions."""
    quarter, *dimensions = key
    conn.execute(
        "INSERT INTO latencies VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
        (*key, bucket),
    )
    conn.executemany(
        "INSERT INTO latency_days VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
        [(*some, quarter // A_DAY, bucket) for some in product(*((name, ANY) for name in dimensions))],
    )


# ---- reading -----------------------------------------------------------------------------------


def sums(
    conn: Connection, first: int, end: int, columns: Sequence[str], filters: Mapping[str, str]
) -> dict[tuple[str | int, ...], list[int]]:
    """Sums of the quarter-hours from `first` up to `end`, by some of `DIMENSIONS` or `quarter`, where these are so."""
    stretches: list[Stretch] = [(1, "quarter", first, end)] if "quarter" in columns else _stretches(conn, first, end)
    found: dict[tuple[str | int, ...], list[int]] = {}
    n = len(columns)
    for sign, level, start, stop in stretches:
        where, values = _between(level, start, stop, filters)
        sql = f"SELECT {', '.join([*columns, *(f'sum({c})' for c in SUMS)])} FROM {_TABLES[level]} WHERE {where}"
        if columns:
            sql += f" GROUP BY {', '.join(columns)}"
        for row in conn.execute(sql, values):
            if row[n] is None:  # a sum over nothing
                continue
            total = found.setdefault(tuple(row[:n]), [0] * len(SUMS))
            for place, amount in enumerate(row[n:]):
                total[place] += sign * amount
    return {key: found[key] for key in sorted(found) if any(found[key])}


def histogram(conn: Connection, first: int, end: int, filters: Mapping[str, str]) -> list[tuple[int, int]]:
    """Requests by latency bucket in the quarter-hours from `first` up to `end`, lowest bucket first."""
    counts: Counter[int] = Counter()
    for sign, level, start, stop in _stretches(conn, first, end):
        if level == "day":
            where = " AND ".join(f"{name} = ?" for name in DIMENSIONS) + " AND day >= ? AND day < ?"
            values: tuple[object, ...] = (*(filters.get(name, ANY) for name in DIMENSIONS), start, stop)
            table = "latency_days"
        else:
            where, values = _between(level, start, stop, filters)
            table = "latencies"
        for bucket, n in conn.execute(
            f"SELECT bucket, sum(requests) FROM {table} WHERE {where} GROUP BY bucket", values
        ):
            counts[bucket] += sign * n
    return sorted((bucket, n) for bucket, n in counts.items() if n)


def _between(level: Level, start: int, stop: int, filters: Mapping[str, str]) -> tuple[str, tuple[object, ...]]:
    """The condition for a stretch. A few quarter-hours of one policy are sought one by one, past all others."""
    rest = "".join(f" AND {name} = ?" for name in filters)
    if level == "quarter" and "policy" in filters and stop - start <= A_DAY // 2:
        return f"quarter IN ({', '.join('?' * (stop - start))}){rest}", (*range(start, stop), *filters.values())
    return f"{level} >= ? AND {level} < ?{rest}", (start, stop, *filters.values())


def _stretches(conn: Connection, first: int, end: int) -> list[Stretch]:
    """The quarter-hours from `first` up to `end` as whole days, and as few quarter-hours as do."""
    if end <= first:
        return []
    day, last = first // A_DAY, -(-end // A_DAY)  # days touched: from `day` up to `last`
    before, after = first - day * A_DAY, last * A_DAY - end  # quarter-hours of them that are not asked
    if after and not _any_from(conn, end, last * A_DAY):
        after = 0  # the usual end is now, and nothing comes after it
    if last - day == 1 and (after or before > A_DAY // 2):
        return [(1, "quarter", first, end)]
    edges: list[Stretch] = []
    if before > A_DAY // 2:
        day += 1
        edges.append((1, "quarter", first, day * A_DAY))
    elif before:
        edges.append((-1, "quarter", first - before, first))
    if after > A_DAY // 2:
        last -= 1
        edges.append((1, "quarter", last * A_DAY, end))
    elif after:
        edges.append((-1, "quarter", end, last * A_DAY))
    return [*([(1, "day", day, last)] if day < last else []), *edges]  # type: ignore[list-item]  # "day" is a Level


def _any_from(conn: Connection, first: int, end: int) -> bool:
    return (
        conn.execute("SELECT 1 FROM rollups WHERE quarter >= ? AND quarter < ? LIMIT 1", (first, end)).fetchone()
        is not None
    )
