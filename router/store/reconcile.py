"""Charges whose outcome is unknown, compared with the provider's invoice: confirmed or struck, by new entries.

No entry is edited. An unconfirmed charge is open until a `struck` entry of its hold takes it off; confirming appends a
`settled` entry as well. Both count in the windows, and in the quarter-hour of the rollups, of the charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.domain.values import Route
from router.store.balances import add_to_balances, parse_scopes
from router.store.database import Connection
from router.store.drilldown import CONFIRMED, STRUCK
from router.store.entries import change
from router.store.usage import add_charge

_OPEN = (
    " FROM charges c WHERE c.kind = 'unconfirmed'"
    " AND NOT EXISTS (SELECT 1 FROM charges s WHERE s.hold = c.hold AND s.kind = 'struck')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unconfirmed:
    """A charge that waits for the provider's invoice. `amount` in nanodollars, `at` in epoch seconds."""

    id: int
    at: float
    amount: int
    model: str
    route: Route
    policy: str
    collection: str
    request: int
    reason: str


def unconfirmed(conn: Connection) -> list[Unconfirmed]:
    """The charges that are neither confirmed nor struck, newest first."""
    names = Unconfirmed.__dataclass_fields__
    rows = conn.execute(f"SELECT {', '.join(f'c.{name}' for name in names)}{_OPEN} ORDER BY c.id DESC")
    return [Unconfirmed(**dict(zip(names, row, strict=True))) for row in rows]


def reconcile_in(conn: Connection, charge: int, *, confirm: bool, now: float) -> bool:
    """`Ledger.reconcile`, in the caller's transaction."""
    row = conn.execute(
        "SELECT c.hold, c.amount, c.scopes, c.request, c.policy, c.collection, c.model, c.route, c.at"
        f"{_OPEN} AND c.id = ?",
        (charge,),
    ).fetchone()
    if row is None:
        return False
    hold, amount, scopes, request, policy, collection, model, route, at = row
    settled = amount if confirm else 0
    kinds = ("struck", "settled") if confirm else ("struck",)
    for kind in kinds:
        conn.execute(
            "INSERT INTO charges (hold, kind, amount, tokens, scopes, request, policy, collection, model, route, at,"
            " reason) SELECT hold, ?, amount, 0, scopes, request, policy, collection, model, route, ?, ?"
            " FROM charges WHERE id = ?",
            (kind, now, CONFIRMED if confirm else STRUCK, charge),
        )
    # By this a settlement that comes later sees that the charge was reconciled already.
    change(
        conn,
        "UPDATE holds SET state = ? WHERE id = ? AND state = 'unconfirmed'",
        ("settled" if confirm else "released", hold),
    )
    add_to_balances(conn, parse_scopes(scopes), settled=settled, unconfirmed=-amount)
    add_charge(
        conn, at=at, policy=policy, collection=collection, model=model, route=route, charged=settled,
        unconfirmed=-amount,
    )  # fmt: skip
    # The request's own row, where it was closed with this charge in it.
    conn.execute(
        "UPDATE requests SET charged = charged + ?, unconfirmed = unconfirmed - ? WHERE id = ? AND unconfirmed >= ?",
        (settled, amount, request, amount),
    )
    return True
