"""Balances: the fold of the entries, windows of two owners, and refusals in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from router.domain.errors import BudgetExceeded
from router.domain.values import Budget, Estimate
from router.store.balances import balances, exceeded, fold
from router.store.database import Database
from router.store.ledger import Ledger
from tests.faults.ledger_oracle import audit, hold, set_policy, unit
from tests.store.conftest import Clock


async def test_money_counts_in_every_window_of_both_owners(ledger: Ledger, database: Database, clock: Clock) -> None:
    """Day, week, month and total, each of the account and of the policy, each in its own zone."""
    clock.now = datetime(2026, 12, 9, 20, tzinfo=UTC).timestamp()  # the tenth in Tokyo
    await set_policy(database, clock, timezone="Asia/Tokyo")
    await ledger.settle((await hold(ledger, unit("a", 10))).holds[0], 7, 7)

    def at(*when: int) -> int:
        return int(datetime(*when, tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]  # year to hour

    assert balances(database.reader()) == fold(database.reader()) == {
        ("account", "day", at(2026, 12, 9)): (0, 7, 0),
        ("account", "week", at(2026, 12, 7)): (0, 7, 0),
        ("account", "month", at(2026, 12, 1)): (0, 7, 0),
        ("account", "total", 0): (0, 7, 0),
        ("policy/p", "day", at(2026, 12, 9, 15)): (0, 7, 0),
        ("policy/p", "week", at(2026, 12, 6, 15)): (0, 7, 0),
        ("policy/p", "month", at(2026, 11, 30, 15)): (0, 7, 0),
        ("policy/p", "total", 0): (0, 7, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE balances SET settled = settled - 1 WHERE owner = 'account' AND window = 'day'",
        "DELETE FROM balances WHERE owner = 'policy/p' AND window = 'total'",
        "DELETE FROM charges WHERE kind = 'unconfirmed'",
        "UPDATE holds SET state = 'pending' WHERE id = 1",
        "INSERT INTO balances VALUES ('policy/q', 'total', 0, 0, 1, 0)",
    ],
)
async def test_the_audit_sees_damage(ledger: Ledger, database: Database, damage: str) -> None:
    """A nanodollar, a row or an entry that is not where it should be is found: the oracle can fail."""
    await ledger.settle((await hold(ledger, unit("a", 10))).holds[0], 7, 7)
    await ledger.fail((await hold(ledger, unit("b", 10))).holds[0], "?", billed=None, price=lambda n: n)
    await hold(ledger, unit("c", 10))
    assert audit(database.reader()).held == 10
    await database.write(lambda conn: conn.execute(damage))
    with pytest.raises(AssertionError):
        audit(database.reader())


async def test_paces_and_forecasts_take_a_hold_at_what_is_likely(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    """A bound five times too high is used of the budget while it is held, and does not count as spending it faster."""
    await set_policy(database, clock, Budget(amount=1_000, window="month"))
    guess = Estimate(kind="english", base=100, tokens=100)
    opened = await hold(ledger, replace(unit("a", 500), estimate=guess), unit("b", 30))
    (state,) = ledger.states("p")
    assert (state.used, state.left, state.expected) == (530, 470, 130)
    assert state.pace_used == 0.13
    await ledger.judge_pace("p")
    assert await ledger.settle(opened.holds[0], 140, 140)
    (state,) = ledger.states("p")
    assert (state.used, state.expected, state.pace_used) == (140, 140, 0.13)


async def test_states_show_what_is_used_and_when_it_resets(ledger: Ledger, database: Database, clock: Clock) -> None:
    """A policy's budgets and the account's: used, left, the day of the window, the pace at the day's judgement."""
    clock.now = datetime(2026, 12, 10, 6, tzinfo=UTC).timestamp()
    await set_policy(database, clock, Budget(amount=100, window="month"), Budget(amount=5, window="request"))
    await ledger.judge_pace("p")
    await hold(ledger, unit("a", 5))
    month, request = ledger.states("p")
    assert (month.owner, month.used, month.left) == ("policy/p", 5, 95)
    assert month.resets == datetime(2027, 1, 1, tzinfo=UTC)
    assert (month.day_of_window, month.days_in_window) == (10, 31)
    assert (month.pace_used, month.pace_elapsed) == (0, 9 / 31)
    assert (request.used, request.resets, request.pace_used) == (0, None, None)


async def test_a_budget_of_nothing_has_a_pace(ledger: Ledger, database: Database, clock: Clock) -> None:
    """Zero is a limit like any other, and is divided by nowhere."""
    await set_policy(database, clock, Budget(amount=0, window="month"))
    assert ledger.states("p")[0].pace_used == 0
    with pytest.raises(BudgetExceeded):
        await hold(ledger, unit("a", 1))


def test_a_refusal_says_which_budget_and_by_how_much() -> None:
    """In dollars, for people; never below zero, also where more than the limit is used."""
    error = exceeded("policy/work", "month", 5_000_000_000, 6_000_000_000, 1_000_000_000)
    assert str(error).startswith(
        "Refused: this month's $5.00 for policy 'work' has $0.00 left; $2.00 more is needed."
    )  # fmt: skip
    assert error.shortfall == 2_000_000_000
    assert error.exit_code == 3
    assert "the account" in exceeded("account", "total", 1, 0, 2).message
