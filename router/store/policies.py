"""Policies with their versions, the account budget, and the kill switch, in `router.db`.

Saving a policy writes a new version and, in the same commit, the limits that every hold reads. What a policy's
windows have spent is the ledger's and stays.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from router.domain.errors import BadInput
from router.domain.policy import ACCOUNT_BUDGET, BUILT_IN, from_dict, to_dict, validate
from router.domain.values import Budget, Policy
from router.store.balances import (
    ACCOUNT,
    Scope,
    add_to_balances,
    budgets_of,
    paid_enabled,
    parse_scopes,
    window_starts,
    zone_of,
)
from router.store.database import Connection, Database


class Policies:
    """Policies, budgets in force, and the kill switch."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database = database
        self.clock = clock

    async def ensure_defaults(self) -> None:
        """On first start, write the built-in policies and the account budget."""

        any_policy = "SELECT 1 FROM policies LIMIT 1"
        if await asyncio.to_thread(self.database.row, any_policy):
            return

        def write(conn: Connection) -> None:
            if conn.execute(any_policy).fetchone():
                return
            for policy in BUILT_IN:
                self._save(conn, policy)
            _set_budgets(conn, ACCOUNT, (ACCOUNT_BUDGET,))

        await self.database.write(write)

    def get(self, name: str) -> Policy:
        """The policy in force; BadInput where there is none of that name, which names those that there are."""
        row = self.database.row(
            "SELECT version, body, deleted FROM policies WHERE name = ? ORDER BY version DESC LIMIT 1", name
        )
        if row is None or row[2]:
            names = ", ".join(p.name for p in self.all())
            raise BadInput(f"There is no policy '{name}'.", f"Choose one of: {names}; or create it.")
        return replace(from_dict(json.loads(row[1])), version=row[0])

    def all(self) -> list[Policy]:
        """Every policy in force, by name."""
        rows = self.database.reader().execute(
            "SELECT version, body, deleted, max(version) FROM policies GROUP BY name ORDER BY name"
        )
        return [replace(from_dict(json.loads(body)), version=v) for v, body, deleted, _ in rows if not deleted]

    def versions(self, name: str) -> list[tuple[Policy, float, bool]]:
        """Every version of a policy, oldest first: (policy, epoch seconds when saved, deleted)."""
        rows = self.database.reader().execute(
            "SELECT version, body, at, deleted FROM policies WHERE name = ? ORDER BY version", (name,)
        )
        return [(replace(from_dict(json.loads(b)), version=v), at, bool(gone)) for v, b, at, gone in rows]

    async def save(self, policy: Policy, model_ids: Iterable[str]) -> Policy:
        """Write a new version; its budgets count from the next hold on. BadInput, and nothing written, if not valid."""
        validate(policy, model_ids)
        return await self.database.write(lambda conn: self._save(conn, policy))

    def _save(self, conn: Connection, policy: Policy) -> Policy:
        (last,) = conn.execute(
            "SELECT coalesce(max(version), 0) FROM policies WHERE name = ?", (policy.name,)
        ).fetchone()
        saved = replace(policy, version=last + 1)
        conn.execute(
            "INSERT INTO policies (name, version, at, body) VALUES (?, ?, ?, ?)",
            (policy.name, saved.version, self.clock(), json.dumps(to_dict(saved))),
        )
        owner = f"policy/{policy.name}"
        _set_zone(conn, owner, policy.timezone, self.clock())
        _set_budgets(conn, owner, policy.budgets)
        return saved

    async def delete(self, name: str) -> None:
        """End a policy. What it spent stays in the ledger, and counts again if the name comes back.

        Raises BadInput where there is no such policy, or it is the default.
        """
        await asyncio.to_thread(self.get, name)
        if name == "default":
            raise BadInput(
                "The policy 'default' cannot be deleted.", "It serves requests that name none; edit it instead."
            )

        def write(conn: Connection) -> None:
            conn.execute(
                "INSERT INTO policies (name, version, at, body, deleted) SELECT name, version + 1, ?, body, 1"
                " FROM policies WHERE name = ? ORDER BY version DESC LIMIT 1",
                (self.clock(), name),
            )
            _set_budgets(conn, f"policy/{name}", ())

        await self.database.write(write)

    def account_budgets(self) -> tuple[Budget, ...]:
        """The budgets that stand over all policies together."""
        return budgets_of(self.database.reader(), ACCOUNT)

    def zone(self, name: str) -> str:
        """The time zone that a policy's days, weeks and months are counted in."""
        return zone_of(self.database.reader(), f"policy/{name}")

    def account_zone(self) -> str:
        """The time zone that the account's days, weeks and months are counted in."""
        return zone_of(self.database.reader(), ACCOUNT)

    async def set_account_budgets(self, budgets: Sequence[Budget], timezone: str | None = None) -> None:
        """Replace the budgets over all policies; none means no limit but the policies' own.

        `timezone`: whose windows they are from now on; None leaves it as it is. Raises BadInput, and nothing is
        written, where a budget or the zone is not valid.
        """
        validate(Policy(name=ACCOUNT, budgets=tuple(budgets), timezone=timezone or "UTC"), ["any/model"])

        def write(conn: Connection) -> None:
            if timezone is not None:
                _set_zone(conn, ACCOUNT, timezone, self.clock())
            _set_budgets(conn, ACCOUNT, budgets)

        await self.database.write(write)

    def paid_enabled(self) -> bool:
        """False while the kill switch stops all paid calls."""
        return paid_enabled(self.database.reader())

    async def set_paid(self, enabled: bool) -> None:
        """Turn paid calls on or off, for every process on this data folder, from the next hold on."""
        await self.set_setting("paid", "on" if enabled else "off")

    async def set_setting(self, key: str, value: str) -> None:
        """Note a setting of the whole data folder."""
        await self.database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", key, value)


def _set_budgets(conn: Connection, owner: str, budgets: Sequence[Budget]) -> None:
    conn.execute("DELETE FROM budgets WHERE owner = ?", (owner,))
    conn.executemany(
        "INSERT INTO budgets (owner, window, hard, amount) VALUES (?, ?, ?, ?)",
        [(owner, b.window, int(b.hard), b.amount) for b in budgets],
    )


def _set_zone(conn: Connection, owner: str, timezone: str, now: float) -> None:
    """Set the zone that an owner's windows are counted in; if it moves, the running windows are counted anew.

    Entries keep the windows they were booked in. For the new windows, each entry is added to the window of the
    new zone that its time falls in, and its scopes are extended, so that balances stay the fold of the entries.
    """
    before = zone_of(conn, owner)
    conn.execute("INSERT OR REPLACE INTO zones VALUES (?, ?)", (owner, timezone))
    if before == timezone:
        return
    for window, start in window_starts(conn, owner, now).items():
        if window != "total":
            _recount(conn, (owner, window, start))


def _recount(conn: Connection, scope: Scope) -> None:
    owner, _, start = scope
    places = {"settled": "settled", "unconfirmed": "unconfirmed", "struck": "unconfirmed", "pending": "held"}
    held = "SELECT id, state, amount, scopes FROM holds h WHERE state = 'pending'"
    booked = "SELECT c.id, c.kind, c.amount, c.scopes FROM charges c JOIN holds h ON h.id = c.hold WHERE 1"
    whose, names = ("", ()) if owner == ACCOUNT else (" AND h.policy = ?", (owner.removeprefix("policy/"),))
    for table, select in (("holds", held), ("charges", booked)):
        # By the time of the hold: all entries of one hold go the same way.
        rows = conn.execute(f"{select} AND h.at >= ?{whose}", (start, *names)).fetchall()
        for number, what, amount, body in rows:
            scopes = parse_scopes(body)
            if scope not in scopes:
                add_to_balances(conn, [scope], **{places[what]: -amount if what == "struck" else amount})
                conn.execute(f"UPDATE {table} SET scopes = ? WHERE id = ?", (json.dumps([*scopes, scope]), number))
