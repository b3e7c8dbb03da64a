"""The ledger: what a hold takes, how it ends, whose texts are claimed, and what becomes of the dead."""

from __future__ import annotations

import pytest

from router.domain.errors import BudgetExceeded, Refused
from router.domain.values import Budget
from router.store.balances import balances
from router.store.database import Database
from router.store.ledger import LEASE_S, Ledger
from router.store.policies import Policies
from tests.faults.ledger_oracle import KIND, audit, hold, one_each, purpose, set_policy, unit
from tests.store.conftest import Clock


def charges(database: Database) -> list[tuple[str, int, int, str]]:
    """(kind, amount, tokens, reason) of every entry, in order."""
    return database.reader().execute("SELECT kind, amount, tokens, reason FROM charges ORDER BY id").fetchall()


def states(database: Database) -> list[str]:
    """The state of every hold, in order."""
    return [state for (state,) in database.reader().execute("SELECT state FROM holds ORDER BY id")]


async def test_a_hold_ends_in_one_of_three_ways(ledger: Ledger, database: Database) -> None:
    """Settled at less, at as much and at more than was held; released; failed: the books show just that."""
    for billed in (60, 100, 130):
        opened = await hold(ledger, unit(f"{billed}", 100))
        assert ledger.totals()[2] == 100
        assert await ledger.settle(opened.holds[0], billed, billed)
    assert await ledger.release((await hold(ledger, unit("r", 100))).holds[0])
    failed = (await hold(ledger, unit("f", 100))).holds[0]
    assert await ledger.fail(failed, "time-out", billed=None, price=one_each) == ()
    known = (await hold(ledger, unit("k", 100))).holds[0]
    assert await ledger.fail(known, "bad reply", billed=70, tokens=7, price=one_each) == ()
    unbilled = (await hold(ledger, unit("u", 100))).holds[0]
    assert await ledger.fail(unbilled, "refused", billed=0, price=one_each) == ()
    assert charges(database) == [
        ("settled", 60, 60, ""), ("settled", 100, 100, ""), ("settled", 130, 130, ""),
        ("unconfirmed", 100, 0, "time-out"), ("settled", 70, 7, "bad reply"),
    ]  # fmt: skip
    books = audit(database.reader())
    assert (books.settled, books.unconfirmed, books.held, books.pending) == (360, 100, 0, 0)
    assert ledger.totals() == (360, 100, 0)


async def test_a_request_is_held_whole_or_not_at_all(ledger: Ledger, database: Database, clock: Clock) -> None:
    """Where the last call does not fit, none is held and no text is claimed; the error says by how much."""
    await set_policy(database, clock, Budget(amount=100, window="day"))
    with pytest.raises(BudgetExceeded, match=r"today's .* for policy 'p'") as caught:
        await hold(ledger, unit("a", 60), unit("b", 41), apart=True)
    assert caught.value.shortfall == 1
    assert states(database) == []
    assert ledger.busy(KIND, [unit("a", 60).digest]) == set()
    assert balances(database.reader()) == {}
    await hold(ledger, unit("a", 60), unit("b", 40), apart=True)
    assert audit(database.reader()).held == 100


@pytest.mark.parametrize("window", ["request", "day", "week", "month", "total"])
async def test_every_window_and_both_owners_can_refuse(
    ledger: Ledger, database: Database, clock: Clock, window: str
) -> None:
    """A hard budget of any window, of the policy or of the account, stops what a soft one lets pass."""
    await set_policy(database, clock, Budget(amount=10, window=window), Budget(amount=1, window=window, hard=False))  # type: ignore[arg-type]  # one of Window
    await hold(ledger, unit("a", 10))
    with pytest.raises(BudgetExceeded):
        await hold(ledger, unit("b", 1))
    await hold(ledger, unit("c", 1), policy="other")
    await Policies(database, clock).set_account_budgets([Budget(amount=12, window=window)])  # type: ignore[arg-type]  # the same
    request = 1 if window == "request" else 2
    with pytest.raises(BudgetExceeded, match="the account"):
        await hold(ledger, unit("d", 13), policy="other", request=request)


async def test_a_request_budget_counts_each_request_by_itself(ledger: Ledger, database: Database, clock: Clock) -> None:
    """What one request has spent, unconfirmed charges too, does not count for the next."""
    await set_policy(database, clock, Budget(amount=100, window="request"))
    first = (await hold(ledger, unit("a", 60), request=1)).holds[0]
    again = await ledger.fail(first, "time-out", billed=None, again=(first.units,), price=one_each)
    assert isinstance(again, BudgetExceeded)
    assert audit(database.reader()).unconfirmed == 60
    await hold(ledger, unit("a", 60), request=2)


async def test_a_budget_set_later_counts_what_was_spent_before(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """Windows are kept with or without a budget over them."""
    await ledger.settle((await hold(ledger, unit("a", 60))).holds[0], 60, 60)
    await set_policy(database, clock, Budget(amount=100, window="month"))
    with pytest.raises(BudgetExceeded):
        await hold(ledger, unit("b", 41))
    (state,) = ledger.states("p")
    assert (state.used, state.left) == (60, 40)


async def test_the_kill_switch_stops_holds_and_not_settlements(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """What has left is still booked, and nothing else is held, also not to send again."""
    policies = Policies(database, clock)
    one, two = (await hold(ledger, unit("a", 10), unit("b", 10), apart=True)).holds
    await policies.set_paid(False)
    with pytest.raises(Refused, match="kill switch"):
        await hold(ledger, unit("c", 10))
    again = await ledger.fail(one, "500", billed=None, again=(one.units,), price=one_each)
    assert isinstance(again, Refused)
    assert await ledger.settle(two, 10, 10)
    await policies.set_paid(True)
    assert (await hold(ledger, unit("c", 10))).holds


async def test_a_text_is_claimed_until_its_hold_ends(ledger: Ledger) -> None:
    """Who asks meanwhile is told that it is busy, and is not asked for money; another kind is another text."""
    a, b = unit("a", 10), unit("b", 10)
    first = await hold(ledger, a)
    second = await hold(ledger, a, b)
    assert [h.units for h in second.holds] == [(b,)]
    assert second.busy == (a,)
    assert ledger.busy(KIND, [a.digest, b.digest]) == {a.digest, b.digest}
    assert ledger.busy("another kind", [a.digest]) == set()
    await ledger.settle(first.holds[0], 10, 10)
    assert ledger.busy(KIND, [a.digest, b.digest]) == {b.digest}
    assert (await hold(ledger, b, a)).busy == (b,)


async def test_what_was_stored_meanwhile_is_not_paid(ledger: Ledger) -> None:
    """The cache is asked under the lock, for what nobody has claimed, and what it has needs no hold."""
    a, b, c = unit("a", 10), unit("b", 10), unit("c", 10)
    await hold(ledger, a)
    asked: list[bytes] = []

    def stored(digests: object) -> set[bytes]:
        asked.extend(digests)  # type: ignore[call-overload]  # a sequence of digests
        return {b.digest}

    opened = await ledger.open([[a, b], [c]], purpose(), price=one_each, stored=stored, sent=True)
    assert asked == [b.digest, c.digest]
    assert (opened.busy, opened.stored) == ((a,), (b,))
    assert [(h.units, h.amount) for h in opened.holds] == [((c,), 10)]


async def test_a_call_that_failed_is_sent_again_under_holds_of_its_own(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """The old hold ends and the new ones begin in one commit, and take the claims over; without room there are none."""
    await set_policy(database, clock, Budget(amount=45, window="total"))
    a, b = unit("a", 10), unit("b", 10)
    one = (await hold(ledger, a, b)).holds[0]
    halves = await ledger.fail(one, "too large", billed=0, again=((a,), (b,)), price=one_each)
    assert isinstance(halves, tuple)
    assert [(h.units, h.amount) for h in halves] == [((a,), 10), ((b,), 10)]
    assert ledger.busy(KIND, [a.digest, b.digest]) == {a.digest, b.digest}
    last = halves[0]
    for _ in range(2):
        more = await ledger.fail(last, "500", billed=None, again=((a,),), price=one_each)
        assert isinstance(more, tuple)
        (last,) = more
    assert isinstance(await ledger.fail(last, "500", billed=None, again=((a,),), price=one_each), BudgetExceeded)
    assert ledger.busy(KIND, [a.digest, b.digest]) == {b.digest}
    books = audit(database.reader())
    assert (books.unconfirmed, books.held) == (30, 10)


async def test_a_hold_is_ended_once(ledger: Ledger, database: Database) -> None:
    """Whoever comes second is told so, and changes nothing."""
    one = (await hold(ledger, unit("a", 10))).holds[0]
    assert await ledger.settle(one, 7, 7)
    assert not await ledger.settle(one, 8, 8)
    assert not await ledger.release(one)
    assert not await ledger.mark_sent(one)
    assert await ledger.fail(one, "late", billed=None, again=(one.units,), price=one_each) == ()
    assert charges(database) == [("settled", 7, 7, "")]
    assert audit(database.reader()).settled == 7


# ---- leases ----


async def other_program(database: Database, clock: Clock) -> Ledger:
    """A second program on the same file."""
    ledger = Ledger(database, clock)
    await ledger.renew()
    return ledger


async def test_only_what_was_sent_becomes_a_charge(ledger: Ledger, database: Database, clock: Clock) -> None:
    """Of a dead program's holds, the sent ones become unconfirmed charges and the others are released, once."""
    other = await other_program(database, clock)
    holds = (await hold(ledger, *(unit(str(n), 10) for n in range(3)), apart=True, sent=False)).holds
    assert await ledger.mark_sent(holds[1])
    clock.now += LEASE_S
    await other.renew()
    assert await other.sweep() == (0, 0)  # the lease ends after this moment, not at it
    clock.now += 0.001
    assert await other.sweep() == (1, 2)
    assert await other.sweep() == (0, 0)
    assert states(database) == ["released", "unconfirmed", "released"]
    assert other.busy(KIND, [u.digest for h in holds for u in h.units]) == set()
    books = audit(database.reader())
    assert (books.unconfirmed, books.held) == (10, 0)
    assert not await ledger.mark_sent(holds[0])  # so that what was released is never sent


async def test_a_program_that_renews_is_left_alone(ledger: Ledger, database: Database, clock: Clock) -> None:
    """As long as it says in time that it lives; and it never sweeps itself."""
    other = await other_program(database, clock)
    one = (await hold(ledger, unit("a", 10))).holds[0]
    for _ in range(5):
        clock.now += LEASE_S - 1
        await ledger.renew()
        await other.renew()
        assert await other.sweep() == (0, 0)
    clock.now += 10 * LEASE_S
    assert await ledger.sweep() == (0, 0)
    assert await ledger.settle(one, 10, 10)


async def test_a_swept_hold_that_is_settled_late_is_corrected(ledger: Ledger, database: Database, clock: Clock) -> None:
    """The guess is struck and the truth booked, by entries of their own, once."""
    other = await other_program(database, clock)
    one = (await hold(ledger, unit("a", 10))).holds[0]
    clock.now += LEASE_S + 1
    await other.renew()
    await other.sweep()
    assert await ledger.settle(one, 7, 7)
    assert not await ledger.settle(one, 7, 7)
    assert [(kind, amount) for kind, amount, _, _ in charges(database)] == [
        ("unconfirmed", 10), ("struck", 10), ("settled", 7),
    ]  # fmt: skip
    books = audit(database.reader())
    assert (books.settled, books.unconfirmed, books.held) == (7, 0, 0)


async def test_a_late_settlement_after_the_zone_moved_keeps_the_balances_right(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """Swept, then counted anew in another zone, then settled late: every window shows the truth, and only it."""
    other = await other_program(database, clock)
    await set_policy(database, clock, Budget(amount=100, window="day"))
    one = (await hold(ledger, unit("a", 10))).holds[0]
    clock.now += LEASE_S + 1
    await other.renew()
    assert await other.sweep() == (1, 0)
    await set_policy(database, clock, Budget(amount=100, window="day"), timezone="Asia/Tokyo")
    assert await ledger.settle(one, 7, 7)
    audit(database.reader())
    assert [s.used for s in ledger.states("p")] == [7]


async def test_a_swept_call_that_failed_at_a_known_price_is_corrected(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """A program taken for dead whose reply was useless still books what the reply says was billed."""
    other = await other_program(database, clock)
    one = (await hold(ledger, unit("a", 10))).holds[0]
    clock.now += LEASE_S + 1
    await other.renew()
    assert await other.sweep() == (1, 0)
    assert await ledger.fail(one, "bad reply", billed=100, tokens=100, price=one_each) == ()
    books = audit(database.reader())
    assert (books.settled, books.unconfirmed) == (100, 0)


async def test_a_program_that_was_swept_and_then_dies_leaves_no_hold(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """It slept past its lease, woke, held money before it renewed, and was killed: that hold too is resolved."""
    other = await other_program(database, clock)
    clock.now += LEASE_S + 1
    await other.renew()
    await other.sweep()
    one = (await hold(ledger, unit("a", 10))).holds[0]
    assert await other.sweep() == (0, 0)  # it lives
    clock.now += LEASE_S + 1
    await other.renew()
    assert await other.sweep() == (1, 0)
    assert audit(database.reader()).held == 0
    assert other.busy(KIND, [one.units[0].digest]) == set()


async def test_who_leaves_in_good_order_is_not_swept(ledger: Ledger, database: Database, clock: Clock) -> None:
    """Its lease goes with it, unless it still holds money; then the lease runs out and the hold is resolved."""
    other = await other_program(database, clock)
    await ledger.leave()
    rows = database.reader().execute("SELECT id FROM processes").fetchall()
    assert rows == [(other.process,)]
    await ledger.renew()
    await hold(ledger, unit("a", 10))
    await ledger.leave()
    clock.now += LEASE_S + 1
    await other.renew()
    assert await other.sweep() == (1, 0)
