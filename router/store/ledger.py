"""The ledger: money is held before a call is sent, at the most that it can cost, and settled with what was billed.

All SQL for holds, claims, charges, balances and leases is here, so that another database can take its place.
True at every commit, for every hard budget: settled + unconfirmed + held <= limit, unless a provider billed
more than was held (then what was billed is booked and nothing paid passes until the window turns); and every balance
equals the fold of the holds and charges (`fold`).
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

from router.domain.errors import Refused, StoreError
from router.domain.values import BudgetState, Unit
from router.store.balances import (
    ACCOUNT,
    Scope,
    add_to_balances,
    budget_states,
    judge_pace,
    parse_scopes,
    require_permission,
    require_room,
    scopes_of,
    unjudged,
)
from router.store.database import Connection, Database, insert
from router.store.entries import Hold, Opened, Purpose, append_charge, claimed
from router.store.learned import learn_from
from router.store.reconcile import Unconfirmed, reconcile_in, unconfirmed

LEASE_S = 15.0
"""A process that has not renewed its lease for this long is considered dead."""
LEASE_REASON = "its process died"
SETTLE_PATIENCE_S = 600.0
"""A charge that must be written waits this long for the write lock."""
Clock = Callable[[], float]
T = TypeVar("T")
Stored = Callable[[Sequence[bytes]], set[bytes]]
Price = Callable[[int], int]
Weigh = Callable[[Sequence[Unit]], int]


class Ledger:
    """Holds, charges, balances, claims and leases, in `router.db`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """`clock` gives epoch seconds."""
        self.database = database
        self.clock = clock
        self._owed: list[Callable[[Connection], object]] = []
        self.process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    # ---- holds ----

    async def open(
        self, groups: Sequence[Sequence[Unit]], purpose: Purpose, *, price: Price, stored: Stored, sent: bool
    ) -> Opened:
        """Hold the most that these calls, each a group of units, can cost and claim their texts: all of it, or nothing.

        Args:
            groups: the calls.
            purpose: what for; copied to the charges.
            price: nanodollars, rounded up, for a number of tokens.
            stored: which of some digests the cache has by now; asked under the write lock, because another
                request may have stored them since we looked.
            sent: True when the calls leave at once; otherwise `mark_sent` says when.

        Raises:
            BudgetExceeded: a hard budget is too small; nothing is held or claimed.
            Refused: the kill switch is on, or the policy as it is now does not allow the call.
            StoreBusy: the lock was not had; nothing is held.
        """

        def write(conn: Connection) -> Opened:
            return self.open_in(
                conn, groups, purpose, lambda units: price(sum(u.tokens for u in units)), stored=stored, sent=sent
            )

        return await self.database.write(write)

    def open_in(
        self,
        conn: Connection,
        groups: Sequence[Sequence[Unit]],
        purpose: Purpose,
        weigh: Weigh,
        *,
        stored: Stored,
        sent: bool,
        owner: str | None = None,
    ) -> Opened:
        """`open`, in the caller's transaction; `weigh` gives the most that a call of some units can cost.

        A hold with an `owner` belongs to that (a batch at a provider, which outlives every process) and not to this
        process's lease: no sweeper touches it, and its owner must end it (`end_in`).
        """
        now = self.clock()
        # After a long sleep of the machine the lease of this process may have been swept.
        conn.execute("INSERT OR IGNORE INTO processes VALUES (?, ?, ?)", (self.process, now + LEASE_S, now))
        require_permission(conn, purpose.policy, purpose.model)
        digests = [unit.digest for group in groups for unit in group]
        taken = claimed(conn, purpose.kind, digests)
        free = [d for d in digests if d not in taken]
        there = stored(free) if free else set()
        needless = taken | there
        kept = [tuple(u for u in group if u.digest not in needless) for group in groups]
        calls = [(group, weigh(group)) for group in kept if group]
        everything = [unit for group in groups for unit in group]
        holds: tuple[Hold, ...] = ()
        if calls:
            scopes = scopes_of(conn, purpose.policy, purpose.request, self.clock())
            require_room(conn, scopes, sum(amount for _, amount in calls))
            holds = tuple(self._take(conn, group, amount, scopes, purpose, sent, owner) for group, amount in calls)
        return Opened(
            holds=holds,
            stored=tuple(u for u in everything if u.digest in there),
            busy=tuple(u for u in everything if u.digest in taken),
        )

    def _take(
        self,
        conn: Connection,
        units: Sequence[Unit],
        amount: int,
        scopes: Sequence[Scope],
        purpose: Purpose,
        sent: bool,
        owner: str | None = None,
    ) -> Hold:
        tokens, likely = sum(u.tokens for u in units), sum(u.likely for u in units)
        hold = {
            "request": purpose.request, "process": owner or self.process, "state": "pending", "amount": amount,
            "sent": int(sent), "scopes": json.dumps(scopes), "policy": purpose.policy,
            "collection": purpose.collection, "model": purpose.model, "route": purpose.route, "texts": len(units),
            "tokens": tokens, "at": self.clock(),
            "expected": amount if likely >= tokens else -(-amount * likely // tokens),
        }  # fmt: skip
        number = insert(conn, "holds", hold)
        add_to_balances(conn, scopes, held=amount)
        conn.executemany(
            "INSERT INTO claims (digest, kind, hold) VALUES (?, ?, ?)",
            [(u.digest, purpose.kind, number) for u in units],
        )
        return Hold(id=number, amount=amount, units=tuple(units), purpose=purpose)

    async def mark_sent(self, hold: Hold) -> bool:
        """Note that the call is about to be sent. False, or raises (nothing is noted then), as `may_leave` does."""

        def write(conn: Connection) -> bool:
            if not may_leave(conn, hold):
                return False
            conn.execute("UPDATE holds SET sent = 1 WHERE id = ?", (hold.id,))
            return True

        return await self.database.write(write, patience_s=SETTLE_PATIENCE_S)

    def may_leave(self, hold: Hold) -> bool:
        """Whether a call that has waited for its turn may still be sent. False: its hold was swept.

        Raises Refused or BudgetExceeded where its policy, a budget or the kill switch was changed while it waited.
        """
        return may_leave(self.database.reader(), hold)

    def require_permission(self, number: int) -> None:
        """Raise Refused where the kill switch, or the policy as it is now, forbids what this hold was taken for."""
        policy, model = self.database.row("SELECT policy, model FROM holds WHERE id = ?", number)
        require_permission(self.database.reader(), policy, model)

    async def settle(
        self, hold: Hold, amount: int, tokens: int, *, confirmed: bool = False, unconfirmed: int = 0, doubt: str = ""
    ) -> bool:
        """Charge what was billed (nanodollars) and end the hold. False: the hold had been ended by another process.

        Where `confirmed`, the tokens are the provider's figure, and the model's ratios are learned from them.
        Where the sweeper had already turned the hold into an unconfirmed charge, that charge is struck and the billed
        amount charged instead.

        Args:
            unconfirmed: nanodollars that the provider claims in addition, and that cannot be true.
            doubt: why the figures are not the provider's own, for the charges.
        """

        def write(conn: Connection) -> bool:
            if not self._end(
                conn, hold.id, settled=amount, tokens=tokens, unconfirmed=unconfirmed or None, note=doubt, reason=doubt
            ):
                return self._correct(conn, hold.id, amount + unconfirmed, tokens)
            if confirmed:
                learn_from(conn, hold.purpose.model, hold.units, tokens)
            return True

        return await self._write(write, owed=write)

    async def release(self, hold: Hold) -> bool:
        """End a hold whose call is known to be unbilled. False: another process had ended it."""

        def write(conn: Connection) -> bool:
            return self._end(conn, hold.id)

        return await self._write(write, owed=write)

    async def fail(
        self,
        hold: Hold,
        reason: str,
        *,
        billed: int | None,
        tokens: int = 0,
        unconfirmed: int = 0,
        again: Sequence[Sequence[Unit]] = (),
        price: Price,
    ) -> tuple[Hold, ...] | Refused:
        """End the hold of a call that failed and, in the same commit, take new ones to send its texts again.

        Args:
            hold: of the call that failed.
            reason: why, for the charge.
            billed: nanodollars that the provider says it billed; 0 where it is known to be unbilled; None where
                it may have been billed: the whole hold becomes an unconfirmed charge.
            tokens: those that were billed.
            unconfirmed: nanodollars that the provider claims in addition to `billed`, and that cannot be true.
            again: the calls to send instead; they take over the claims.
            price: nanodollars for a number of tokens.

        Returns the new holds, or why there are none: the money or the policy forbids it (the end of
        the failed call is written all the same). Empty where another process had ended the hold.
        """
        doubtful = hold.amount if billed is None else unconfirmed or None

        def end(conn: Connection) -> bool:
            if self._end(
                conn, hold.id, settled=billed or None, tokens=tokens, unconfirmed=doubtful, note=reason, reason=reason
            ):
                return True
            if billed is not None:
                self._correct(conn, hold.id, billed + unconfirmed, tokens)
            return False

        def write(conn: Connection) -> tuple[Hold, ...] | Refused:
            if not end(conn) or not again:
                return ()
            purpose = hold.purpose
            scopes = scopes_of(conn, purpose.policy, purpose.request, self.clock())
            amounts = [price(sum(u.tokens for u in units)) for units in again]
            try:
                require_permission(conn, purpose.policy, purpose.model)
                require_room(conn, scopes, sum(amounts))
            except Refused as refused:  # not raised: the end of the failed call is to be committed
                return refused
            return tuple(
                self._take(conn, units, amount, scopes, purpose, True)
                for units, amount in zip(again, amounts, strict=True)
            )

        return await self._write(write, owed=end)

    async def _write(self, write: Callable[[Connection], T], *, owed: Callable[[Connection], object]) -> T:
        """Write now; where the disk is full, keep `owed` for `renew` to write as soon as it can."""
        try:
            return await self.database.write(write, patience_s=SETTLE_PATIENCE_S)
        except StoreError:
            self._owed.append(owed)
            raise

    def end_in(
        self, conn: Connection, number: int, *, billed: int, tokens: int, texts: int, unconfirmed: int, reason: str
    ) -> bool:
        """End a hold in the caller's transaction: a part was billed, a part may have been, the rest was not.

        Args:
            billed, unconfirmed: nanodollars; each that is not zero becomes a charge.
            tokens, texts: of the part that was billed.
            reason: of the unconfirmed charge.

        False: another process had ended it.
        """
        settled = billed if billed or tokens else None
        return self._end(
            conn, number, settled=settled, tokens=tokens, texts=texts, unconfirmed=unconfirmed or None, reason=reason
        )

    def _end(
        self,
        conn: Connection,
        number: int,
        *,
        settled: int | None = None,
        tokens: int = 0,
        texts: int | None = None,
        unconfirmed: int | None = None,
        note: str = "",
        reason: str = "",
    ) -> bool:
        """End a hold; `note` goes with the settled charge, `reason` with the unconfirmed one. None: no such charge."""
        state = "settled" if settled is not None else "released" if unconfirmed is None else "unconfirmed"
        ended = "UPDATE holds SET state = ? WHERE id = ? AND state = 'pending' RETURNING amount, scopes"
        row = conn.execute(ended, (state, number)).fetchone()
        if row is None:
            return False
        held, scopes = row
        add_to_balances(conn, parse_scopes(scopes), held=-held, settled=settled or 0, unconfirmed=unconfirmed or 0)
        if settled is not None:
            append_charge(conn, number, "settled", settled, tokens, self.clock(), note, texts=texts)
        if unconfirmed is not None:
            append_charge(conn, number, "unconfirmed", unconfirmed, 0, self.clock(), reason)
        conn.execute("DELETE FROM claims WHERE hold = ?", (number,))
        return True

    def _correct(self, conn: Connection, number: int, amount: int, tokens: int) -> bool:
        row = conn.execute(
            "SELECT c.amount, c.scopes, c.reason, h.state FROM charges c JOIN holds h ON h.id = c.hold"
            " WHERE h.id = ? AND h.state IN ('unconfirmed', 'released') AND c.kind = 'unconfirmed'",
            (number,),
        ).fetchone()
        if row is None or row[2] != LEASE_REASON:
            return False
        conn.execute("UPDATE holds SET state = 'settled' WHERE id = ?", (number,))
        add_to_balances(conn, parse_scopes(row[1]), settled=amount)
        if row[3] == "unconfirmed":  # not struck by a person in the meantime
            add_to_balances(conn, parse_scopes(row[1]), unconfirmed=-row[0])
            append_charge(conn, number, "struck", row[0], 0, self.clock(), "settled late", scopes=row[1])
        append_charge(conn, number, "settled", amount, tokens, self.clock(), "", scopes=row[1])
        return True

    def busy(self, kind: str, digests: Sequence[bytes], *, in_batches: bool = False) -> set[bytes]:
        """Which of these texts are claimed by other requests now; with `in_batches`, by batches only."""
        return claimed(self.database.reader(), kind, digests, in_batches=in_batches)

    # ---- the provider's invoice ----

    def unconfirmed(self) -> list[Unconfirmed]:
        """The charges that are neither confirmed nor struck, newest first."""
        return unconfirmed(self.database.reader())

    async def reconcile(self, charge: int, *, confirm: bool) -> bool:
        """Confirm an unconfirmed charge by the provider's invoice, or strike it where the invoice does not have it.

        False: there is no such charge, or it was reconciled before.
        """
        return await self.database.write(lambda conn: reconcile_in(conn, charge, confirm=confirm, now=self.clock()))

    # ---- leases ----

    async def renew(self) -> None:
        """Renew this process's lease; to be called well within `LEASE_S`. Writes what a full disk left unwritten."""

        def write(conn: Connection) -> None:
            now = self.clock()  # not before: the write lock may have been waited for
            conn.execute(
                "INSERT INTO processes (id, lease_until, started) VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until",
                (self.process, now + LEASE_S, now),
            )

        await self.database.write(write, patience_s=LEASE_S)
        while self._owed:
            await self.database.write(self._owed[0])
            self._owed.pop(0)

    async def sweep(self) -> tuple[int, int]:
        """End the holds of dead processes: unconfirmed charges where sent, released where not.

        Returns (unconfirmed, released). Each hold is ended once, whoever sweeps.
        """
        lapsed, values = "SELECT id FROM processes WHERE lease_until < ? AND id <> ?", (self.clock(), self.process)
        if await asyncio.to_thread(self.database.row, lapsed, *values) is None:
            return 0, 0

        def write(conn: Connection) -> tuple[int, int]:
            ended = {True: 0, False: 0}
            for (process,) in conn.execute(lapsed, values).fetchall():
                orphans = conn.execute(
                    "SELECT id, amount, sent FROM holds WHERE process = ? AND state = 'pending'", (process,)
                ).fetchall()
                for number, amount, sent in orphans:
                    self._end(conn, number, unconfirmed=amount if sent else None, reason=LEASE_REASON)
                    ended[bool(sent)] += 1
                conn.execute("DELETE FROM processes WHERE id = ?", (process,))
            return ended[True], ended[False]

        return await self.database.write(write)

    async def leave(self) -> None:
        """Give up this process's lease, unless it still has holds."""
        await self.database.execute(
            "DELETE FROM processes WHERE id = ? AND NOT EXISTS"
            " (SELECT 1 FROM holds WHERE process = processes.id AND state = 'pending')",
            self.process,
        )

    # ---- balances ----

    def states(self, policy: str) -> tuple[BudgetState, ...]:
        """Every budget over this policy, its own and the account's, with what its running window has used."""
        return budget_states(self.database.reader(), policy, self.clock())

    def pace_is_due(self, policy: str) -> bool:
        """True where nobody has judged the pace of this policy's budgets, or the account's, today."""
        return bool(unjudged(self.database.reader(), policy, self.clock()))

    async def judge_pace(self, policy: str) -> None:
        """Note, once a day in the owner's zone, how much of each window was used: `balanced` goes by it."""
        await self.database.write(lambda conn: judge_pace(conn, policy, self.clock()))

    def totals(self) -> tuple[int, int, int]:
        """All money ever: (settled, unconfirmed, held), in nanodollars."""
        sql = "SELECT settled, unconfirmed, held FROM balances WHERE owner = ? AND window = 'total'"
        found: tuple[int, int, int] = self.database.row(sql, ACCOUNT) or (0, 0, 0)
        return found


def may_leave(conn: Connection, hold: Hold) -> bool:
    """`Ledger.may_leave`, by this connection."""
    row = conn.execute("SELECT scopes FROM holds WHERE id = ? AND state = 'pending'", (hold.id,)).fetchone()
    if row is None:
        return False
    require_permission(conn, hold.purpose.policy, hold.purpose.model)
    require_room(conn, parse_scopes(row[0]), 0)
    return True
