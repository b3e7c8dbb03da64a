"""The requests with charges in a time bucket (a day or an hour of a report), and how much each adds to its sum.

By charges, not by requests: so the sums are equal to the rollups' to the nanodollar, also where a request began before
midnight and was charged after it, failed, or was answered by a batch hours later. A page of the newest requests takes
the same time however large the bucket is; by cost, every charge of the bucket is read.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from router.store.database import Connection, marks
from router.store.rollups import DIMENSIONS

CONFIRMED, STRUCK = "confirmed by a person", "struck by a person"
"""Reasons of entries that count at the time of the charge that they correct; every other entry counts at its own."""
Place = tuple[float, ...]
"""What the last row of a page is ordered by (time or cost, then number); the next page continues after it."""
Where = Mapping[str, str | Sequence[str]]
_OWN_TIME = f"reason NOT IN ('{CONFIRMED}', '{STRUCK}')"


def newest(
    conn: Connection, span: tuple[float, float], where: Where, limit: int, before: Place | None
) -> list[dict[str, Any]]:
    """`request`, `paid`, `unsure` (nanodollars) and `place` of each request, the one with the newest charge first.

    `span`: epoch seconds, whole quarter-hours. `where`: equality of policy, collection, model or route, or one of
    several.
    """
    filters = _known(where)
    again, more = _among("n", filters)
    # One by one where a name may be several: each is then a walk along an index, newest first.
    several = next((c for c, values in filters.items() if len(values) != 1), None)
    walks = [filters | {several: (value,)} for value in filters[several]] if several else [filters]
    found: list[list[tuple[float, int, int]]] = []  # (time, charge, request) of the last charge of each request
    for walk in walks:
        here, values = _among("c", walk)
        rows = conn.execute(
            f"SELECT c.at, c.id, c.request FROM charges c WHERE c.at >= ? AND c.at < ? AND c.{_OWN_TIME}{here}"
            + (" AND (c.at, c.id) < (?, ?)" if before else "")
            + " AND NOT EXISTS (SELECT 1 FROM charges n INDEXED BY charges_by_request"
            f" WHERE n.request = c.request AND n.id > c.id AND n.at >= ? AND n.at < ? AND n.{_OWN_TIME}{again})"
            " ORDER BY c.at DESC, c.id DESC LIMIT ?",
            (*span, *values, *(before or ()), *span, *more, limit),
        )
        found.append(rows.fetchall())
    page = list(heapq.merge(*found, key=lambda row: (-row[0], -row[1])))[:limit]
    here, values = _among("c", filters)
    amounts = conn.execute(
        f"SELECT c.request, {', '.join(_sums('c'))} FROM charges c INDEXED BY charges_by_request"
        f" LEFT JOIN charges o ON NOT c.{_OWN_TIME} AND o.hold = c.hold AND o.kind = 'unconfirmed'"
        f" WHERE c.request IN ({marks(page)}) AND coalesce(o.at, c.at) >= ?"
        f" AND coalesce(o.at, c.at) < ?{here} GROUP BY c.request",
        (*(request for _, _, request in page), *span, *values),
    )
    shares = {request: {"request": request, "paid": paid, "unsure": unsure} for request, paid, unsure in amounts}
    return [shares[request] | {"place": (at, number)} for at, number, request in page]


def most_expensive(
    conn: Connection, span: tuple[float, float], where: Where, limit: int, before: Place | None
) -> list[dict[str, Any]]:
    """The same as `newest`, the request with the largest share first."""
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
        (*span, *values, *span, *values, *(before or ()), limit),
    )
    return [{"request": r, "paid": p, "unsure": u, "place": (p + u, r)} for r, p, u in rows]


def _sums(table: str) -> tuple[str, str]:
    """The settled and the unconfirmed nanodollars of some entries."""
    kind, amount = f"{table}.kind", f"{table}.amount"
    return (
        f"sum(CASE {kind} WHEN 'settled' THEN {amount} ELSE 0 END)",
        f"sum(CASE {kind} WHEN 'unconfirmed' THEN {amount} WHEN 'struck' THEN -{amount} ELSE 0 END)",
    )


def _known(where: Where) -> dict[str, tuple[str, ...]]:
    return {c: (v,) if isinstance(v, str) else tuple(v) for c, v in where.items() if c in DIMENSIONS}


def _among(table: str, filters: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    sql = ""
    for column, values in filters.items():
        sql += f" AND {table}.{column} IN ({marks(values)})"
        if "" not in values:
            sql += f" AND {table}.{column} <> ''"  # which is what the index by collection asks for
    return sql, [value for values in filters.values() for value in values]
