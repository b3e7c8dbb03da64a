"""The rows of the ledger: holds, charges and claims, as SQL. Their meaning is in `Ledger`.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.domain.values import Model, Role, Route, Unit
from router.store import rollups
from router.store.database import Connection, in_parts, marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a hold is for; copied to its charges."""

    request: int
    policy: str
    model: str
    kind: str
    route: Route
    collection: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Money set aside for one call. `amount` in nanodollars; `units` are claimed until it ends."""

    id: int
    amount: int
    units: tuple[Unit, ...]
    purpose: Purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The result of `Ledger.open`: holds for the calls to send, and the texts that need no call.

    `stored` were found in the cache under the write lock; `busy` are claimed by another request.
    """

    holds: tuple[Hold, ...]
    stored: tuple[Unit, ...]
    busy: tuple[Unit, ...]


def claim_kind(model: Model, role: Role) -> str:
    """What a text is claimed for: its space and role, not its model, so that it is not paid for twice in a space."""
    return f"{model.space}|{model.role_key(role)}"


def claimed(conn: Connection, kind: str, digests: Sequence[bytes], *, in_batches: bool = False) -> set[bytes]:
    """Which of these texts are claimed; with `in_batches`, only by batches, which may take a day."""
    taken: set[bytes] = set()
    extra = (
        " AND hold IN (SELECT id FROM holds WHERE state = 'pending' AND process LIKE 'batch %')" if in_batches else ""
    )
    for part in in_parts(digests):
        sql = f"SELECT digest FROM claims WHERE digest IN ({marks(part)}) AND kind = ?{extra}"
        taken.update(digest for (digest,) in conn.execute(sql, (*part, kind)))
    return taken


def append_charge(
    conn: Connection,
    number: int,
    kind: str,
    amount: int,
    tokens: int,
    now: float,
    reason: str,
    *,
    texts: int | None = None,
    scopes: str | None = None,
    counts_at: float | None = None,
) -> None:
    """Append an entry of a hold and add it to the usage rollups, in the caller's transaction.

    `texts`: how many were answered, where that is not all of the hold's. `scopes` (JSON) and `counts_at`: where the
    entry corrects another, it counts where, and when, that one did.
    """
    *key, all_texts = conn.execute(
        "INSERT INTO charges (hold, kind, amount, tokens, scopes, request, policy, collection, model, route, at,"
        " reason) SELECT id, ?, ?, ?, coalesce(?, scopes), request, policy, collection, model, route, ?, ?"
        " FROM holds WHERE id = ?"
        " RETURNING policy, collection, model, route, (SELECT texts FROM holds WHERE id = hold)",
        (kind, amount, tokens, scopes, now, reason, number),
    ).fetchone()
    settled = kind == "settled"
    sums = {
        "texts": 0 if not settled else all_texts if texts is None else texts,
        "tokens": tokens,
        "charged": amount if settled else 0,
        "unconfirmed": {"unconfirmed": amount, "struck": -amount}.get(kind, 0),
    }
    rollups.add(conn, (int(now if counts_at is None else counts_at) // rollups.QUARTER_S, *key), sums)
