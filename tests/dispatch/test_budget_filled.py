"""A budget is filled by smaller calls, not refused early: holds for Voyage and Cohere are four to five times the bill.

The sandbox's bill is the oracle of what texts really cost: with twice that every file is embedded whole, and with less
no text is refused that would have fitted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from router import tokens
from router.domain.errors import BudgetExceeded
from router.domain.values import Budget, Policy
from router.engine import Router
from router.pipeline.results import Result
from router.sandbox import Sandbox
from tests.faults.paid_helpers import PAID, assert_books, limits, open_router
from tests.libraries import jsonl, opened
from tests.waits import noted, until

PRICES = {"cohere": 120, "voyage": 60, "openai": 20}
"""Nanodollars a token."""
WORDS = ["the", "quick", "brown", "fox", "said", "nothing", "to", "anyone", "on", "that", "long", "winter", "evening"]


def prose(dice: random.Random, n: int, about: str, words: int = 60) -> list[str]:
    """So many texts of 10 to 60 `words`, which the sandbox counts as a token or so a word."""
    return [f"{about} {i} " + " ".join(dice.choices(WORDS, k=dice.randint(10, words))) for i in range(n)]


def worth(name: str, texts: list[str]) -> int:
    """What the sandbox bills for them; it counts by a tokenizer that the router has not for these providers."""
    return PRICES[name] * sum(tokens.count("cl100k_base", texts))


async def tight(router: Router, amount: int) -> None:
    """A policy that may spend so many nanodollars, all told."""
    budget = Budget(amount=amount, window="total")
    policy = Policy(name="tight", goal="quality", budgets=(budget,), when_exhausted="refuse")
    await router.policies.save(policy, [m.id for m in router.catalog.models])


async def embed(router: Router, name: str, texts: list[str]) -> Result:
    """The texts as a file, by the provider's model."""
    return await router.embed(texts, model=PAID[name], policy="tight", partial=True)


@pytest.mark.parametrize("name", ["voyage", "cohere"])
async def test_twice_the_bill_embeds_a_whole_file(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int], name: str
) -> None:
    """Whatever the sizes, the order, the calls at once and the texts a call; the limit is never passed."""
    trials = count(5, 60)
    sandbox.configure(latency_ms=2)
    for number in range(trials):
        dice = random.Random(f"{name} {number}")
        texts = prose(dice, dice.randint(30, 150), f"trial {number}")
        texts.sort(key=len, reverse=dice.random() < 0.5)
        table = limits(name, max_texts_per_call=dice.choice([1, 7, 96]), max_in_flight=dice.choice([1, 2, 8]))
        sandbox.reset()
        async with open_router(tmp_path / str(number), sandbox, table) as router:
            await tight(router, 2 * worth(name, texts))
            result = await embed(router, name, texts)
            bill = sandbox.bill()
            assert not result.problems
            assert (bill.texts, bill.most_often, bill.nanodollars) == (len(texts), 1, worth(name, texts))
            assert assert_books(router, sandbox).settled == result.cost == bill.nanodollars


@pytest.mark.parametrize("name", ["voyage", "cohere", "openai"])
async def test_what_is_refused_would_not_have_fitted(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int], name: str
) -> None:
    """With too little money the budget is used up to less than the smallest text that is left; work is bounded."""
    tokenizer = "cl100k_base" if name == "openai" else "bytes"
    for number in range(count(5, 60)):
        dice = random.Random(f"short {name} {number}")
        texts = prose(dice, dice.randint(10, 100), f"trial {number}")
        table = limits(name, max_texts_per_call=dice.choice([1, 7, 96]), max_in_flight=dice.choice([1, 2, 8]))
        sandbox.reset()
        async with open_router(tmp_path / str(number), sandbox, table) as router:
            await tight(router, int(dice.uniform(0.0, 1.1) * worth(name, texts)))
            result = await embed(router, name, texts)
            books = assert_books(router, sandbox)
            assert books.shown == sandbox.bill().nanodollars
            assert {type(error) for error in result.problems.values()} <= {BudgetExceeded}
            (state,) = [s for s in router.ledger.states("tight") if s.owner == "policy/tight"]
            left = [texts[at] for at in result.problems]
            assert all(PRICES[name] * n > state.left for n in tokens.count(tokenizer, left))
            assert sandbox.bill().requests <= len(texts)


async def test_two_files_share_a_budget_and_both_end(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each waits for its own calls only; together they never pass the limit, and with enough both are whole."""
    dice = random.Random(7)
    files = [prose(dice, 60, about) for about in ("one", "two")]
    sandbox.configure(latency_ms=2)
    async with open_router(tmp_path, sandbox, limits("voyage", max_texts_per_call=5, max_in_flight=4)) as router:
        await tight(router, worth("voyage", files[0]))
        results = await asyncio.gather(*(embed(router, "voyage", texts) for texts in files))
        assert any(result.problems for result in results)
        assert_books(router, sandbox)
        await tight(router, 3 * worth("voyage", files[0] + files[1]))
        results = await asyncio.gather(*(embed(router, "voyage", texts) for texts in files))
        assert not any(result.problems for result in results)
        assert_books(router, sandbox)


async def test_a_cancelled_file_does_not_wait_for_room(sandbox: Sandbox, tmp_path: Path) -> None:
    """What has left is booked; the texts that wait for room are not sent, and no hold is left."""
    texts = prose(random.Random(3), 60, "cancelled")
    sandbox.configure(latency_ms=100)
    async with open_router(tmp_path, sandbox, limits("voyage", max_texts_per_call=20, max_in_flight=4)) as router:
        await tight(router, 2 * worth("voyage", texts))
        work = asyncio.ensure_future(embed(router, "voyage", texts))
        await until(lambda: sandbox.bill().requests)
        sent = sandbox.bill().requests
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await asyncio.gather(*router._tasks - {router._beat}, return_exceptions=True)
        assert sandbox.bill().requests <= sent + 1
        assert_books(router, sandbox)


async def test_waiting_for_room_is_no_polling(sandbox: Sandbox, tmp_path: Path) -> None:
    """The books are asked again when a call has ended, and not in between, however long it takes."""
    texts = prose(random.Random(13), 80, "patient")
    sandbox.configure(latency_ms=60)
    async with open_router(tmp_path, sandbox, limits("voyage", max_texts_per_call=20, max_in_flight=4)) as router:
        await tight(router, 2 * worth("voyage", texts))
        asked = noted(router.ledger, "open")
        result = await embed(router, "voyage", texts)
        assert not result.problems
        assert len(asked) <= 4 + 3 * sandbox.bill().requests


async def test_a_rate_limit_is_used_up_by_likely_tokens(sandbox: Sandbox, tmp_path: Path) -> None:
    """The pace goes by what texts will likely be: by the bound, a limit of tokens a minute would be used to a fifth."""
    texts = prose(random.Random(17), 100, "paced")
    async with open_router(tmp_path, sandbox) as router:
        await router.embed(texts, model=PAID["voyage"], policy="quality")
        taken = router.limiters["voyage"]._tokens.taken
        assert 0.6 < taken / sandbox.bill().tokens < 1.6


async def test_a_request_is_all_or_nothing_all_the_same(sandbox: Sandbox, tmp_path: Path) -> None:
    """One that must be answered whole is refused where the most that it can cost does not fit: nothing is spent."""
    texts = prose(random.Random(5), 40, "whole")
    async with open_router(tmp_path, sandbox) as router:
        await tight(router, 2 * worth("voyage", texts))
        with pytest.raises(BudgetExceeded):
            await router.embed(texts, model=PAID["voyage"], policy="tight")
        assert sandbox.bill().requests == 0


@pytest.mark.parametrize("route", ["api", "batch"])
async def test_twice_the_bill_embeds_a_whole_collection(sandbox: Sandbox, tmp_path: Path, route: str) -> None:
    """A job goes on with what its calls, or its batches, did not need."""
    sandbox.configure(batch_seconds=0.05)
    texts = prose(random.Random(11), 120, "letter", 25)
    file = jsonl(tmp_path / "letters.jsonl", texts)
    bill = worth("voyage", texts) if route == "api" else worth("voyage", texts) * 67 // 100 + len(texts)
    async with opened(tmp_path / "data", sandbox, block=50) as here:
        await here.allow("5/month", policy="tight", when_exhausted="refuse")
        await here.library.create("letters", model=PAID["voyage"], policy="tight")
        await here.library.add_files("letters", [file])
        await tight(here.router, 2 * bill)
        job = await here.library.confirm("letters", route=route)  # type: ignore[arg-type]  # a route
        await here.worker.run_all()
        job = here.library.job(job.id)
        assert (job.state, job.done, job.failed) == ("done", 120, 0), job.reason
        assert (sandbox.bill().texts, sandbox.bill().most_often) == (120, 1)
        assert assert_books(here.router, sandbox).settled == sandbox.bill().nanodollars <= bill
