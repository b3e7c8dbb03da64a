"""The rows of the ledger: holds, charges and claims, as SQL. Their meaning is in `Ledger`.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from router.domain.values import Model, Role, Route, Unit
from router.store.balances import Scope
from router.store.database import Connection
from router.store.usage import add_charge


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


def change(conn: Connection, sql: str, values: Sequence[object]) -> int:
    return int(conn.execute(sql, tuple(values)).rowcount)


def claimed(conn: Connection, kind: str, digests: Sequence[bytes], *, in_batches: bool = False) -> set[bytes]:
    """Which of these texts are claimed; with `in_batches`, only by batches, which may take a day."""
    taken: set[bytes] = set()
    extra = (
        " AND hold IN (SELECT id FROM holds WHERE state = 'pending' AND process LIKE 'batch %')" if in_batches else ""
    )
    for start in range(0, len(digests), 500):
        part = digests[start : start + 500]
        marks = ",".join("?" * len(part))
        taken.update(
            row[0]
            for row in conn.execute(
                f"SELECT digest FROM claims WHERE digest IN ({marks}) AND kind = ?{extra}", (*part, kind)
            )
        )
    return taken


def insert_hold(
    conn: Connection,
    process: str,
    units: Sequence[Unit],
    amount: int,
    scopes: Sequence[Scope],
    purpose: Purpose,
    sent: bool,
    now: float,
) -> int:
    tokens, likely = sum(u.tokens for u in units), sum(u.likely for u in units)
    cursor = conn.execute(
        "INSERT INTO holds (request, process, state, amount, sent, scopes, policy, collection, model, route, texts,"
        " tokens, at, expected) VALUES (?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            purpose.request,
            process,
            amount,
            int(sent),
            json.dumps(scopes),
            purpose.policy,
            purpose.collection,
            purpose.model,
            purpose.route,
            len(units),
            tokens,
            now,
            amount if likely >= tokens else -(-amount * likely // tokens),
        ),
    )
    return int(cursor.lastrowid or 0)


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
) -> None:
    """Append an entry and add it to the usage rollups, in the caller's transaction.

    `texts`: how many were answered, where that is not all of the hold's. `scopes` (JSON): where the entry corrects
    another, it counts where that one did.
    """
    conn.execute(
        "INSERT INTO charges (hold, kind, amount, tokens, scopes, request, policy, collection, model, route, at,"
        " reason) SELECT id, ?, ?, ?, coalesce(?, scopes), request, policy, collection, model, route, ?, ?"
        " FROM holds WHERE id = ?",
        (kind, amount, tokens, scopes, now, reason, number),
    )
    policy, collection, model, route, all_texts = conn.execute(
        "SELECT policy, collection, model, route, texts FROM holds WHERE id = ?", (number,)
    ).fetchone()
    settled = kind == "settled"
    add_charge(
        conn,
        at=now,
        policy=policy,
        collection=collection,
        model=model,
        route=route,
        texts=0 if not settled else all_texts if texts is None else texts,
        tokens=tokens,
        charged=amount if settled else 0,
        unconfirmed={"unconfirmed": amount, "struck": -amount}.get(kind, 0),
    )
