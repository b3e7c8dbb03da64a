"""Policies: versions that are kept, limits that count at once, and a switch for all processes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from router.domain.errors import BadInput, BudgetExceeded
from router.domain.policy import ACCOUNT_BUDGET, BUILT_IN
from router.domain.values import Budget, Policy
from router.store.database import Database
from router.store.ledger import LEASE_S, Ledger
from router.store.policies import Policies
from tests.faults.ledger_oracle import MODELS, audit, hold, open_database, unit
from tests.store.conftest import Clock


@pytest.fixture
def policies(database: Database, clock: Clock) -> Policies:
    """Policies on the same file and clock as the ledger."""
    return Policies(database, clock)


async def test_the_first_start_writes_the_defaults_and_no_other_does(policies: Policies) -> None:
    """The built-in policies and the account budget; what was changed or deleted since is not written again."""
    await policies.ensure_defaults()
    assert {p.name for p in policies.all()} == {p.name for p in BUILT_IN}
    assert policies.account_budgets() == (ACCOUNT_BUDGET,)
    await policies.set_account_budgets([])
    await policies.delete("economy")
    await policies.ensure_defaults()
    assert policies.account_budgets() == ()
    assert "economy" not in {p.name for p in policies.all()}


async def test_every_version_is_kept(policies: Policies, clock: Clock) -> None:
    """Saving counts up, reading gives the newest, and the old ones tell what was in force when."""
    first = await policies.save(Policy(name="work", goal="economy"), MODELS)
    clock.now += 60
    second = await policies.save(replace(first, goal="quality", budgets=(Budget(amount=7, window="day"),)), MODELS)
    assert (first.version, second.version) == (1, 2)
    assert policies.get("work") == second
    assert [(p.version, p.goal, at) for p, at, _ in policies.versions("work")] == [
        (1, "economy", clock.now - 60), (2, "quality", clock.now),
    ]  # fmt: skip


async def test_a_policy_that_is_wrong_changes_nothing(policies: Policies, database: Database) -> None:
    """It is refused before anything is written; the limits in force stay."""
    good = await policies.save(Policy(name="work", budgets=(Budget(amount=7, window="day"),)), MODELS)
    for wrong in (
        replace(good, budgets=(Budget(amount=-1, window="day"),)),
        replace(good, timezone="Mars/Olympus"),
        replace(good, allow=("nothing/like-it",)),
    ):
        with pytest.raises(BadInput):
            await policies.save(wrong, MODELS)
    assert policies.get("work") == good
    assert database.reader().execute("SELECT amount FROM budgets WHERE owner = 'policy/work'").fetchall() == [(7,)]


async def test_a_deleted_policy_is_gone_and_comes_back_with_what_it_spent(policies: Policies, ledger: Ledger) -> None:
    """The name is refused with those that there are; made anew, its windows still count what was spent."""
    await policies.set_account_budgets((ACCOUNT_BUDGET,))
    await policies.save(Policy(name="default"), MODELS)
    budget = Budget(amount=100, window="month")
    await policies.save(Policy(name="work", budgets=(budget,)), MODELS)
    await ledger.settle((await hold(ledger, unit("a", 60), policy="work")).holds[0], 60, 60)
    await policies.delete("work")
    for ask in (policies.get, ledger.states):
        if ask is policies.get:
            with pytest.raises(BadInput, match=r"no policy 'work'.*Choose one of: a, b, c, default, other, p, q"):
                ask("work")
        else:
            assert [s.owner for s in ledger.states("work")] == ["account"]
    with pytest.raises(BadInput, match="'default' cannot be deleted"):
        await policies.delete("default")
    again = await policies.save(Policy(name="work", budgets=(budget,)), MODELS)
    assert again.version == 3
    with pytest.raises(BudgetExceeded):
        await hold(ledger, unit("b", 41), policy="work")


async def test_a_lowered_limit_stops_the_next_hold_and_a_raised_one_lets_it_pass(
    policies: Policies, ledger: Ledger, database: Database
) -> None:
    """Budgets count from the next hold on; what was spent stays spent."""
    for amount, fits in ((100, True), (50, False), (120, True)):
        await policies.save(Policy(name="p", budgets=(Budget(amount=amount, window="month"),)), MODELS)
        if fits:
            one = (await hold(ledger, unit(f"{amount}", 60))).holds[0]
            await ledger.settle(one, 60, 60)
        else:
            with pytest.raises(BudgetExceeded):
                await hold(ledger, unit(f"{amount}", 1))
    assert audit(database.reader()).settled == 120


async def test_a_moved_zone_counts_what_falls_into_its_windows(
    policies: Policies, ledger: Ledger, database: Database, clock: Clock
) -> None:
    """What was held, settled or unconfirmed since the new window's start counts in it; holds still end right."""
    pending, settled, lost = (
        await hold(ledger, unit("a", 10), unit("b", 20), unit("c", 40), apart=True)
    ).holds  # fmt: skip
    await ledger.settle(settled, 20, 20)
    await ledger.fail(lost, "time-out", billed=None, price=lambda n: n)
    budget = Budget(amount=100, window="day")
    await policies.save(Policy(name="p", budgets=(budget,), timezone="Asia/Kathmandu"), MODELS)
    audit(database.reader())
    assert ledger.states("p")[0].used == 70
    await ledger.settle(pending, 5, 5)
    audit(database.reader())
    assert ledger.states("p")[0].used == 65
    await policies.save(Policy(name="p", budgets=(budget,), timezone="UTC"), MODELS)
    assert ledger.states("p")[0].used == 65
    audit(database.reader())


async def test_the_account_has_a_zone_of_its_own(
    policies: Policies, ledger: Ledger, database: Database, clock: Clock
) -> None:
    """Moved, its running windows count what every policy spent in them; without a zone given it stays where it is."""
    budget, edge = Budget(amount=100, window="day"), datetime(2027, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp()
    assert policies.account_zone() == "UTC"
    for clock.now, name, tokens in ((edge - 1, "a", 10), (edge + 1, "b", 20), (edge + 2, "c", 40)):
        await ledger.settle((await hold(ledger, unit(name, tokens), policy=name)).holds[0], tokens, tokens)
    await policies.set_account_budgets([budget], "Asia/Tokyo")
    assert ledger.states("p")[0].used == 60
    audit(database.reader())
    with pytest.raises(BadInput):
        await policies.set_account_budgets([], "Mars/Olympus")
    await policies.set_account_budgets([budget])
    assert policies.account_zone() == "Asia/Tokyo"
    await policies.set_account_budgets([budget], "UTC")
    assert ledger.states("p")[0].used == 70
    audit(database.reader())


async def test_the_switch_is_seen_by_every_program(policies: Policies, database: Database, clock: Clock) -> None:
    """Off and on, at once, on another connection."""
    with open_database(database.path.parent) as other:
        theirs = Policies(other, clock)
        assert theirs.paid_enabled()
        await policies.set_paid(False)
        assert not theirs.paid_enabled()
        await policies.set_paid(True)
        assert theirs.paid_enabled()


async def test_a_moved_zone_takes_all_entries_of_a_hold_or_none(
    policies: Policies, ledger: Ledger, database: Database, clock: Clock
) -> None:
    """A guess booked before the new window's start and corrected after it does not make room in the new window."""
    edge = datetime(2027, 1, 1, tzinfo=ZoneInfo("Pacific/Kiritimati")).timestamp()
    budget = Budget(amount=10, window="day")
    other = Ledger(database, clock)
    clock.now = edge - LEASE_S - 5
    await ledger.renew()
    await policies.save(Policy(name="p", budgets=(budget,)), MODELS)
    one = (await hold(ledger, unit("a", 10))).holds[0]
    clock.now = edge - 1
    await other.renew()
    assert await other.sweep() == (1, 0)
    clock.now = edge + 5
    assert await ledger.settle(one, 1, 1)
    await policies.save(Policy(name="p", budgets=(budget,), timezone="Pacific/Kiritimati"), MODELS)
    assert ledger.states("p")[0].used >= 0
    with pytest.raises(BudgetExceeded):
        await hold(ledger, unit("b", 11))
