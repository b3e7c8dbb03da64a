"""Faults 3 and 4. Figures: requests that reached the provider for a model without a price (0); charge booked when it
bills ten times the hold (all of it), and paid calls after that until the window turns (0)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from router import tokens
from router.domain.errors import BudgetExceeded, Refused
from router.domain.values import Budget, Deadline, Goal, Policy
from router.engine import Router
from router.sandbox import Fault, Sandbox
from tests.faults.ledger_oracle import MODEL, MODELS, audit

UNPRICED = """
[[models]]
id = "openai/no-price"
space = "openai/no-price"
dimensions = 1536
tokenizer = "cl100k_base"
source = "made up for a test"
[models.limits]
texts_per_call = 100
"""


@pytest.mark.parametrize("deadline", ["now", "24h"])
@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
async def test_a_model_without_a_price_is_never_called(
    sandbox: Sandbox, fresh: Callable[[str], Path], figure: Callable[[int, str], None], deadline: Deadline,
    partial: bool,
) -> None:  # fmt: skip
    """Named, or the only one allowed, under every goal: what has no known price is not called."""
    folder = fresh("data")
    (folder / "router.toml").write_text(UNPRICED, encoding="utf-8")
    async with Router.open(folder, env=sandbox.environment) as router:
        with pytest.raises(Refused, match="price is not known"):
            await router.embed(["a text"], model="openai/no-price", partial=partial)
        goals: tuple[Goal, ...] = ("economy", "balanced", "quality")
        for goal in goals:
            only = Policy(name=goal, goal=goal, allow=("openai/no-price",), deadline=deadline)
            await router.policies.save(only, [*MODELS, "openai/no-price"])
            with pytest.raises(Refused, match="price is not known"):
                await router.embed(["a text"], policy=goal, partial=partial)
        books = audit(router.database.reader())
    assert sandbox.bill().requests == 0
    assert (books.shown, books.held) == (0, 0)
    figure(3, f"{sandbox.bill().requests} requests reached the provider in 4 tries at a model without a price")


async def test_ten_times_the_hold_is_booked_and_ends_paid_calls(
    sandbox: Sandbox, fresh: Callable[[str], Path], figure: Callable[[int, str], None]
) -> None:
    """A provider that bills more than was held is booked in full, and nothing paid passes until the window turns."""
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)

    def clock() -> float:
        return now.timestamp()

    folder = fresh("data")
    async with Router.open(folder, env=sandbox.environment, clock=clock) as router:
        budget = Budget(amount=500, window="month")  # 25 tokens
        strict = Policy(name="strict", goal="quality", budgets=(budget,), when_exhausted="refuse")
        await router.policies.save(strict, MODELS)
        sandbox.faults.add(Fault("overbill", factor=10))
        first = await router.embed(["one two three"], policy="strict", model=MODEL)
        books = audit(router.database.reader())
        assert books.shown == sandbox.bill().nanodollars == 10 * 3 * 20
        (most,) = tokens.count("bytes", ["one two three"])  # what is said beyond that is for a person to confirm
        assert first.cost == books.settled == min(30, most) * 20
        assert first.unconfirmed == books.unconfirmed == (30 - min(30, most)) * 20
        assert books.held == 0
        assert f"the answer says 30 tokens, where the texts can be {most} at most" in first.decision
        (state,) = [s for s in router.ledger.states("strict") if s.owner == "policy/strict"]
        assert (state.used, state.left) == (600, 0)

        for hours in (0, 1, 11):
            now = datetime(2026, 11, 30, 12, 59, 59, tzinfo=UTC) + timedelta(hours=hours)
            for partial in (False, True):
                if partial:
                    result = await router.embed([f"more {hours}"], policy="strict", model=MODEL, partial=True)
                    assert isinstance(result.problems[0], BudgetExceeded)
                else:
                    with pytest.raises(BudgetExceeded):
                        await router.embed([f"more {hours}"], policy="strict", model=MODEL)
        after = sandbox.bill().requests - 1
        assert after == 0

        now = datetime(2026, 12, 1, tzinfo=UTC)
        assert (await router.embed(["more"], policy="strict", model=MODEL)).cost == 20
        assert audit(router.database.reader()).shown == sandbox.bill().nanodollars
    figure(4, f"10 times the hold: {books.shown} of 600 nanodollars booked, then {after} paid calls in 6 tries until"
           " the window turned")  # fmt: skip


async def test_ten_times_the_hold_on_an_answer_that_is_refused(sandbox: Sandbox, fresh: Callable[[str], Path]) -> None:
    """The truth is booked too where the answer cannot be used: each send at what it says was billed."""
    async with Router.open(fresh("data"), env=sandbox.environment) as router:
        sandbox.faults.add(Fault("one_short", times=None))
        with pytest.raises(Exception, match="1 of 1 texts were not embedded"):
            await router.embed(["one two three"], policy="quality", model=MODEL)
        books = audit(router.database.reader())
    assert books.settled == sandbox.bill().nanodollars == 2 * 3 * 20
    assert (books.unconfirmed, books.held, sandbox.bill().calls) == (0, 0, 2)
