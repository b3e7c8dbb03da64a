"""Charges whose outcome is unknown, compared with the provider's invoice: confirmed or struck, by new entries.

No entry is edited. An unconfirmed charge is open until a `struck` entry of its hold takes it off; confirming appends a
`settled` entry as well. Both count in the windows, and in the quarter-hour of the rollups, of the charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.domain.values import Route
from router.store.balances import add_to_balances, parse_scopes
from router.store.database import Connection, select
from router.store.drilldown import CONFIRMED, STRUCK
from router.store.entries import append_charge

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
    return select(conn, Unconfirmed, f"{_OPEN} ORDER BY c.id DESC")


def reconcile_in(conn: Connection, charge: int, *, confirm: bool, now: float) -> bool:
    """`Ledger.reconcile`, in the caller's transaction."""
    row = conn.execute(f"SELECT c.hold, c.amount, c.scopes, c.request, c.at{_OPEN} AND c.id = ?", (charge,)).fetchone()
    if row is None:
        return False
    hold, amount, scopes, request, at = row
    reason = CONFIRMED if confirm else STRUCK
    for kind in ("struck", "settled") if confirm else ("struck",):
        append_charge(conn, hold, kind, amount, 0, now, reason, texts=0, scopes=scopes, counts_at=at)
    # By this a settlement that comes later sees that the charge was reconciled already.
    conn.execute(
        "UPDATE holds SET state = ? WHERE id = ? AND state = 'unconfirmed'",
        ("settled" if confirm else "released", hold),
    )
    settled = amount if confirm else 0
    add_to_balances(conn, parse_scopes(scopes), settled=settled, unconfirmed=-amount)
    # The request's own row, where it was closed with this charge in it.
    conn.execute(
        "UPDATE requests SET charged = charged + ?, unconfirmed = unconfirmed - ? WHERE id = ? AND unconfirmed >= ?",
        (settled, amount, request, amount),
    )
    return True
