"""The requests with charges in a time bucket (a day or an hour of a report), and how much each adds to its sum.

By charges, not by requests: so the sums are equal to the rollups' to the nanodollar, also where a request began before
midnight and was charged after it, failed, or was answered by a batch hours later. A page of the newest requests takes
the same time however large the bucket is; by cost, every charge of the bucket is read.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from router.store.database import Connection

CONFIRMED, STRUCK = "confirmed by a person", "struck by a person"
"""Reasons of entries that count at the time of the charge that they correct; every other entry counts at its own."""
Place = tuple[float, ...]
"""What the last row of a page is ordered by (time or cost, then number); the next page continues after it."""
_COLUMNS = ("policy", "collection", "model", "route")
_OWN_TIME = f"reason NOT IN ('{CONFIRMED}', '{STRUCK}')"


def shares(
    conn: Connection,
    since: float,
    until: float,
    where: Mapping[str, str | Sequence[str]],
    limit: int,
    before: Place | None,
) -> list[dict[str, Any]]:
    """`request`, `paid`, `unsure` (nanodollars) and `place` of each request, the one with the newest charge first.

    `where`: equality of policy, collection, model or route, or one of several.
    """
    filters = _known(where)
    # One by one where a name may be several: each is then a walk along an index, newest first.
    several = next((c for c, values in filters.items() if len(values) != 1), None)
    walks = [filters | {several: (value,)} for value in filters[several]] if several else [filters]
    found = [_newest(conn, since, until, walk, filters, limit, before) for walk in walks]
    newest = list(heapq.merge(*found, key=lambda row: (-row[0], -row[1])))[:limit]
    amounts = _amounts(conn, since, until, filters, [request for _, _, request in newest])
    return [
        {"request": request, "paid": paid, "unsure": unsure, "place": (at, number)}
        for at, number, request in newest
        for paid, unsure in [amounts[request]]
    ]


def most_expensive(
    conn: Connection,
    since: float,
    until: float,
    where: Mapping[str, str | Sequence[str]],
    limit: int,
    before: Place | None,
) -> list[dict[str, Any]]:
    """The same as `shares`, the request with the largest share first."""
    here, values = _among("c", _known(where))
    paid, unsure = _sums("x")
    # A correction by a person counts when the charge does that it corrects.
    rows = conn.execute(
        f"SELECT request, {paid}, {unsure} FROM (SELECT c.request, c.kind, c.amount FROM charges c"
        f" WHERE c.at >= ? AND c.at < ? AND c.{_OWN_TIME}{here} UNION ALL SELECT c.request, c.kind, c.amount"
        " FROM charges o INDEXED BY charges_by_time JOIN charges c INDEXED BY charges_by_hold ON c.hold = o.hold"
        f" WHERE o.kind = 'unconfirmed' AND o.at >= ? AND o.at < ? AND NOT c.{_OWN_TIME}{here}) x"
        " GROUP BY request"
        + (f" HAVING ({paid} + {unsure}, request) < (?, ?)" if before else "")
        + f" ORDER BY {paid} + {unsure} DESC, request DESC LIMIT ?",
        (since, until, *values, since, until, *values, *(before or ()), limit),
    )
    return [{"request": r, "paid": p, "unsure": u, "place": (p + u, r)} for r, p, u in rows]


def _newest(
    conn: Connection,
    since: float,
    until: float,
    walk: Mapping[str, Sequence[str]],
    filters: Mapping[str, Sequence[str]],
    limit: int,
    before: Place | None,
) -> list[tuple[float, int, int]]:
    """(time, charge, request) of the last charge that each request has within the filters, newest first."""
    here, values = _among("c", walk)
    again, more = _among("n", filters)
    return conn.execute(
        f"SELECT c.at, c.id, c.request FROM charges c WHERE c.at >= ? AND c.at < ? AND c.{_OWN_TIME}{here}"
        + (" AND (c.at, c.id) < (?, ?)" if before else "")
        + " AND NOT EXISTS (SELECT 1 FROM charges n INDEXED BY charges_by_request"
        f" WHERE n.request = c.request AND n.id > c.id AND n.at >= ? AND n.at < ? AND n.{_OWN_TIME}{again})"
        " ORDER BY c.at DESC, c.id DESC LIMIT ?",
        (since, until, *values, *(before or ()), since, until, *more, limit),
    ).fetchall()


def _amounts(
    conn: Connection, since: float, until: float, filters: Mapping[str, Sequence[str]], requests: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """(settled, unconfirmed) nanodollars of each request that count between the times."""
    here, values = _among("c", filters)
    rows = conn.execute(
        f"SELECT c.request, {', '.join(_sums('c'))} FROM charges c INDEXED BY charges_by_request"
        f" LEFT JOIN charges o ON NOT c.{_OWN_TIME} AND o.hold = c.hold AND o.kind = 'unconfirmed'"
        f" WHERE c.request IN ({', '.join('?' * len(requests))}) AND coalesce(o.at, c.at) >= ?"
        f" AND coalesce(o.at, c.at) < ?{here} GROUP BY c.request",
        (*requests, since, until, *values),
    )
    return {request: (paid, unsure) for request, paid, unsure in rows}


def _sums(table: str) -> tuple[str, str]:
    """The settled and the unconfirmed nanodollars of some entries."""
    kind, amount = f"{table}.kind", f"{table}.amount"
    return (
        f"sum(CASE {kind} WHEN 'settled' THEN {amount} ELSE 0 END)",
        f"sum(CASE {kind} WHEN 'unconfirmed' THEN {amount} WHEN 'struck' THEN -{amount} ELSE 0 END)",
    )


def _known(where: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {c: (v,) if isinstance(v, str) else tuple(v) for c, v in where.items() if c in _COLUMNS}


def _among(table: str, filters: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    sql = ""
    for column, values in filters.items():
        sql += f" AND {table}.{column} IN ({', '.join('?' * len(values))})"
        if "" not in values:
            sql += f" AND {table}.{column} <> ''"  # which is what the index by collection asks for
    return sql, [value for values in filters.values() for value in values]
