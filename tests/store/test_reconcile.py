"""Unconfirmed charges against the provider's invoice: confirmed or struck, once, by entries of their own."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.values import Budget
from router.store.database import Database
from router.store.ledger import LEASE_S, Hold, Ledger
from router.store.usage import Outcome, Usage
from tests.faults.ledger_oracle import MODEL, audit, hold, one_each, open_database, set_policy, unit
from tests.store.conftest import Clock


async def lost(ledger: Ledger, name: str, amount: int, request: int = 1) -> Hold:
    """A call of one nanodollar a token whose answer never came."""
    one = (await hold(ledger, unit(name, amount), request=request)).holds[0]
    await ledger.fail(one, f"{name} timed out", billed=None, price=one_each)
    return one


def entries(database: Database) -> list[tuple[str, int, str]]:
    """(kind, amount, reason) of every charge, in order."""
    return database.reader().execute("SELECT kind, amount, reason FROM charges ORDER BY id").fetchall()


async def test_what_waits_for_the_invoice_is_listed(ledger: Ledger, clock: Clock) -> None:
    """Newest first, with whose it is and why; settled charges are not among them."""
    await lost(ledger, "a", 30)
    clock.now += 60
    await lost(ledger, "b", 50, request=2)
    await ledger.settle((await hold(ledger, unit("c", 9))).holds[0], 9, 9)
    newest, oldest = ledger.unconfirmed()
    assert (newest.amount, newest.request, newest.reason, newest.at) == (50, 2, "b timed out", clock.now)
    assert (oldest.amount, oldest.model, oldest.policy, oldest.route) == (30, MODEL, "p", "api")


async def test_a_charge_is_confirmed_or_struck_by_entries_of_their_own(ledger: Ledger, database: Database) -> None:
    """Confirmed money is settled, struck money is free again; the first entry stays as it was written."""
    await set_policy(database, ledger.clock, Budget(amount=100, window="month"))
    await lost(ledger, "a", 60)
    await lost(ledger, "b", 40)
    b, a = ledger.unconfirmed()
    assert await ledger.reconcile(a.id, confirm=True)
    assert await ledger.reconcile(b.id, confirm=False)
    assert entries(database) == [
        ("unconfirmed", 60, "a timed out"), ("unconfirmed", 40, "b timed out"),
        ("struck", 60, "confirmed by a person"), ("settled", 60, "confirmed by a person"),
        ("struck", 40, "struck by a person"),
    ]  # fmt: skip
    books = audit(database.reader())
    assert (books.settled, books.unconfirmed, books.held) == (60, 0, 0)
    assert ledger.unconfirmed() == []
    await hold(ledger, unit("c", 40))  # there is room for it again


async def test_a_charge_is_reconciled_once_whoever_asks(ledger: Ledger, database: Database) -> None:
    """Sixteen clicks at once, of both kinds: one wins. A charge that is none is not reconciled."""
    await lost(ledger, "a", 60)
    (one,) = ledger.unconfirmed()
    clicks = (ledger.reconcile(one.id, confirm=bool(n % 2)) for n in range(16))
    assert sorted(await asyncio.gather(*clicks)) == [False] * 15 + [True]
    assert not await ledger.reconcile(one.id, confirm=True)
    assert not await ledger.reconcile(99, confirm=True)
    settled = (await hold(ledger, unit("b", 5))).holds[0]
    await ledger.settle(settled, 5, 5)
    assert not any([await ledger.reconcile(n, confirm=False) for n in range(1, 10)])
    assert audit(database.reader()).unconfirmed == 0


async def test_it_counts_when_the_charge_did(ledger: Ledger, database: Database, clock: Clock) -> None:
    """Reconciled a month later: the old month's balance, the old day's rollup and the request's row change."""
    usage = Usage(database, clock)
    who = {"policy": "p", "version": 1, "collection": "", "role": "document"}
    number = await usage.begin(**who)
    then = clock.now
    await lost(ledger, "a", 60, request=number)
    await lost(ledger, "b", 7, request=number)
    await usage.record(Outcome(status="failed", model=MODEL, unconfirmed=67), **who, request=number)
    clock.now += 40 * 86_400
    b, a = ledger.unconfirmed()
    await ledger.reconcile(a.id, confirm=True)
    await ledger.reconcile(b.id, confirm=False)
    total = usage.total(since=then, until=then + 1)
    assert (total.charged, total.unconfirmed) == (60, 0)
    assert usage.total(since=then + 86_400, until=clock.now + 1).charged == 0
    row = usage.request(number)
    assert row is not None
    assert (row["charged"], row["unconfirmed"]) == (60, 0)
    assert all(not s.used for s in ledger.states("p"))
    audit(database.reader())


async def test_a_settlement_that_comes_after_all_is_booked(ledger: Ledger, database: Database, clock: Clock) -> None:
    """The provider's word counts even where a person struck the charge before; a confirmed one stays confirmed."""
    for confirm, shown in ((False, 15), (True, 20)):
        clock.now += LEASE_S + 1
        await ledger.renew()
        one = (await hold(ledger, unit("late", 20))).holds[0]
        clock.now += LEASE_S + 1
        other = Ledger(database, clock)
        await other.renew()
        await other.sweep()
        before = audit(database.reader()).settled
        (open_charge,) = other.unconfirmed()
        await other.reconcile(open_charge.id, confirm=confirm)
        assert await ledger.settle(one, 15, 1) is not confirm
        books = audit(database.reader())
        assert (books.settled - before, books.unconfirmed) == (shown, 0)


steps = st.lists(
    st.tuples(st.sampled_from(["settled", "lost", "late", "confirm", "strike"]), st.integers(0, 5), st.integers(0, 90)),
    max_size=25,
)


@settings(max_examples=40)
@given(steps)
def test_balances_are_the_fold_of_the_entries_whatever_is_reconciled(
    steps: list[tuple[str, int, int]],
) -> None:
    """Holds that end in every way, people who confirm and strike, old charges and new: nothing is lost or doubled."""

    async def play(folder: Path) -> None:
        with open_database(folder) as database:
            clock = Clock()
            ledger = Ledger(database, clock)
            await set_policy(database, clock, Budget(amount=10**6, window="month"))
            sums = {"settled": 0, "open": 0}
            for name, (what, which, amount) in enumerate(steps):
                clock.now += amount * 3_600
                waiting = ledger.unconfirmed()
                if what == "settled":
                    await ledger.settle((await hold(ledger, unit(str(name), amount))).holds[0], amount, amount)
                    sums["settled"] += amount
                elif what in ("lost", "late"):
                    await lost(ledger, str(name), amount)
                    sums["open"] += amount
                elif waiting:
                    charge = waiting[which % len(waiting)]
                    assert await ledger.reconcile(charge.id, confirm=what == "confirm")
                    sums["open"] -= charge.amount
                    sums["settled"] += charge.amount if what == "confirm" else 0
                books = audit(database.reader())
                assert (books.settled, books.unconfirmed, books.held) == (sums["settled"], sums["open"], 0)
            rolled = Usage(database, clock).total(since=0, until=clock.now + 1)
            assert (rolled.charged, rolled.unconfirmed) == (sums["settled"], sums["open"])

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))
