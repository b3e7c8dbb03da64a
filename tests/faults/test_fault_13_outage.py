"""Fault 13: endless 500, 502, 503, 529. Figures: most sends of a call (3), sends while the breaker is open (0)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from router.dispatch.limiter import BREAK_AFTER, BREAK_S
from router.domain.errors import Overloaded, Refused, Unreachable
from router.domain.values import Policy
from router.sandbox import Fault, Sandbox
from tests.faults.ledger_oracle import MODELS
from tests.faults.paid_helpers import (
    PAID,
    SMALL,
    assert_books,
    limits,
    open_router,
    quick_retries,
    right,
    some_texts,
    soon,
    wrong,
)

MOST_SENDS = 3
PRICE_OF_A_TEXT = 40
"""Nanodollars: `a text` is two tokens of text-embedding-3-small."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_retries(monkeypatch)


@pytest.mark.parametrize(
    ("name", "status"),
    [("openai", 500), ("openai", 502), ("openai", 529), ("cohere", 502), ("cohere", 503), ("voyage", 529)],
)
async def test_three_sends_then_the_breaker(
    sandbox: Sandbox, tmp_path: Path, name: str, status: int, figure: Callable[[int, str], None]
) -> None:
    """A call is sent three times, the breaker opens after five failures, and then nothing is sent at all."""
    sandbox.faults.add(Fault("status", status=status, times=None, bill=True))
    model = PAID[name]
    async with open_router(tmp_path, sandbox) as router:
        with pytest.raises(Overloaded, match=f"{name} answered {status}"):
            await router.embed(["a text"], model=model, policy="quality")
        assert sandbox.bill().requests == MOST_SENDS
        with pytest.raises((Overloaded, Unreachable)):
            await router.embed(["another text"], model=model, policy="quality")
        assert sandbox.bill().requests == BREAK_AFTER
        for partial in (False, True):
            with soon(), pytest.raises(Refused, match="failed 5 times in a row"):
                await router.embed(["a third text"], model=model, policy="quality", partial=partial)
        after = sandbox.bill().requests - BREAK_AFTER
        assert after == 0
        assert router.cache.size()[0] == 0, "it was answered from another space"
        books = assert_books(router, sandbox)
        assert books.settled == 0
        assert books.unconfirmed >= sandbox.bill().nanodollars > 0
        if model == SMALL:
            assert books.unconfirmed == sandbox.bill().nanodollars == BREAK_AFTER * PRICE_OF_A_TEXT
        (health,) = [h for h in router.health() if h.provider == name]
        assert health.open_until > 0
        assert str(status) in health.last_error
    figure(13, f"{name} {status}: {MOST_SENDS} sends a call, {after} while the breaker was open, never another space")


async def test_many_calls_at_once_are_not_all_sent_thrice(sandbox: Sandbox, tmp_path: Path) -> None:
    """The breaker is shared: of forty calls, those that had not left when it opened never leave."""
    sandbox.faults.add(Fault("status", times=None, bill=True))
    texts = some_texts(40)
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=4)) as router:
        with soon():
            result = await router.embed(texts, model=SMALL, policy="quality", partial=True)
        assert len(result.problems) == 40
        assert sandbox.bill().requests <= BREAK_AFTER + 3
        assert max(sandbox.bill().digests.values()) <= MOST_SENDS
        assert assert_books(router, sandbox).unconfirmed == result.unconfirmed == sandbox.bill().nanodollars


async def test_one_call_tries_and_then_all_is_well_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """After its time a single call is sent; while that fails no other is, and when it is answered all go."""
    sandbox.faults.add(Fault("status", status=503, times=None))
    texts = some_texts(10)

    async def ask(text: str) -> object:
        return await router.embed([text], model=SMALL, policy="quality")

    async with open_router(tmp_path, sandbox) as router:
        limiter = router.limiters["openai"]
        for text in texts[:2]:
            with pytest.raises((Overloaded, Unreachable)):
                await ask(text)
        limiter._open_until -= BREAK_S  # its time goes by
        sandbox.configure(latency_ms=50)
        failed = await asyncio.gather(*map(ask, texts), return_exceptions=True)
        assert {type(e) for e in failed} <= {Overloaded, Unreachable, Refused}
        assert sandbox.bill().requests == BREAK_AFTER + 1
        assert limiter.unhealthy()

        sandbox.faults.clear()
        limiter._open_until -= BREAK_S  # its time goes by
        answered = await asyncio.gather(*map(ask, texts))
        assert len(answered) == len(texts)
        assert limiter.health().failures_in_row == 0
        books = assert_books(router, sandbox)
        assert books.settled == sandbox.bill().nanodollars
        assert sandbox.bill().most_often == 1


async def test_a_free_standing_request_is_answered_elsewhere_and_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    """A request that is not pinned goes to another provider, whole and in one space, once this one is passed over."""
    sandbox.faults.add(Fault("status", times=None, provider="voyage"))
    best = "voyage/voyage-4-large"
    async with open_router(tmp_path, sandbox) as router:
        only_two = Policy(name="two", goal="quality", allow=(best, PAID["cohere"]))
        await router.policies.save(only_two, [*MODELS, best, PAID["cohere"]])
        for text in ("a", "b"):
            with pytest.raises((Overloaded, Unreachable)):
                await router.embed([text], policy="two")
        result = await router.embed(["c", "d"], policy="two")
        assert (result.model, result.space) == (PAID["cohere"], PAID["cohere"])
        assert wrong(result.vectors, right(PAID["cohere"], ["c", "d"])) == 0
        assert "temporarily unavailable" in " ".join(v.reason for v in result.plan.verdicts)
        assert_books(router, sandbox)
