"""What a call was billed is learned with its settlement: once, and only if it can be believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.domain.values import Estimate, Unit
from router.store.database import Database
from router.store.learned import calls, errors, sums
from router.store.ledger import Ledger
from tests.faults.ledger_oracle import MODEL, hold, open_database, unit


def guessed(name: str, base: int = 100, likely: int = 90) -> Unit:
    """A text of at most 500 tokens that will likely be 90."""
    return replace(unit(name, 500), estimate=Estimate(kind="english", base=base, tokens=likely))


async def test_a_confirmed_bill_is_learned_from_and_judged_first(ledger: Ledger, database: Database) -> None:
    """Sums by kind, and the error of what was expected before; numbers and names of kinds only."""
    opened = await hold(ledger, guessed("a"), guessed("b"))
    assert await ledger.settle(opened.holds[0], 200, 200, confirmed=True)
    conn = database.reader()
    assert calls(conn) == 1
    (one,) = errors(conn).values()
    assert (one.calls, one.expected, one.billed, one.absolute) == (1, 180, 200, 20)
    found = sums(conn)[MODEL]
    assert found["english", "english"] == pytest.approx(200 * 200 / 180)
    assert found["english", "billed"] == pytest.approx(200 * 200 / 180)
    assert found["text", "text"] == pytest.approx(4 / 180)


@pytest.mark.parametrize("billed", [0, 1, 1_001])
async def test_what_cannot_be_is_not_learned_from(ledger: Ledger, database: Database, billed: int) -> None:
    """Fewer tokens than texts, or more than the bound: the money is booked all the same."""
    opened = await hold(ledger, guessed("a"), guessed("b"))
    assert await ledger.settle(opened.holds[0], billed, billed, confirmed=True)
    assert calls(database.reader()) == 0
    assert ledger.totals()[0] == billed


async def test_only_the_providers_word_is_learned_from_and_once(ledger: Ledger, database: Database) -> None:
    """Not what we reckoned ourselves, not a second settlement, not a call whose tokens were counted."""
    for name in ("a", "b"):
        (held,) = (await hold(ledger, guessed(name))).holds
        await ledger.settle(held, 95, 95, confirmed=name == "b")
        assert not await ledger.settle(held, 95, 95, confirmed=True)
    (counted,) = (await hold(ledger, unit("c", 100))).holds
    await ledger.settle(counted, 100, 100, confirmed=True)
    assert calls(database.reader()) == 1


async def test_two_programs_learn_from_each_other(ledger: Ledger, database: Database, tmp_path, clock) -> None:
    """Both add to the same sums."""
    with open_database(tmp_path) as other:
        theirs = Ledger(other, clock)
        await theirs.renew()
        for at, mine in enumerate([ledger, theirs, ledger]):
            (held,) = (await hold(mine, guessed(f"t{at}"))).holds
            await mine.settle(held, 100, 100, confirmed=True)
        assert calls(database.reader()) == calls(other.reader()) == 3
        assert errors(other.reader())[MODEL].absolute == 30
