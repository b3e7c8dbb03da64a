"""Fault 38: texts that the provider rejects, and calls that are too large: divided, never sent again as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.domain.errors import BudgetExceeded, CallRejected, CallTooLarge
from router.domain.values import Budget, Policy, Unit
from router.engine import Router
from router.providers.base import EmbedCall, Reply
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import (
    PAID,
    SMALL,
    assert_books,
    every_provider,
    limits,
    open_router,
    right,
    some_texts,
    wrong,
)


class Record:
    """Every call that a router sends to a provider, as the tuple of its texts; those that are refused too."""

    def __init__(self, router: Router, name: str) -> None:
        self.calls: list[tuple[str, ...]] = []
        provider = router.providers[name]
        send = provider.embed

        async def embed(call: EmbedCall) -> Reply:
            self.calls.append(call.texts)
            return await send(call)

        provider.embed = embed  # type: ignore[method-assign]

    @property
    def sent_again(self) -> int:
        """Calls that were sent again unchanged."""
        return len(self.calls) - len(set(self.calls))


@pytest.mark.parametrize("at", [0, 37, 89])
@every_provider
async def test_a_rejected_text_is_named_and_the_others_are_kept(
    sandbox: Sandbox, tmp_path: Path, name: str, at: int
) -> None:
    """It is found by halves, wherever it stands; all others are embedded and paid for once each."""
    texts = some_texts(90)
    texts[at] = "what nobody may say"
    sandbox.faults.add(Fault("poison", times=None, match="nobody"))
    async with open_router(tmp_path, sandbox) as router:
        record = Record(router, name)
        result = await router.embed(texts, model=PAID[name], policy="quality", partial=True)
        assert list(result.problems) == [at]
        assert isinstance(result.problems[at], CallRejected)
        assert "rejected because of its content" in str(result.problems[at])
        assert (result.routes[at], bool(np.isnan(result.vectors[at]).all())) == ("refused", True)
        kept = [i for i in range(90) if i != at]
        assert wrong(result.vectors[kept], right(PAID[name], [texts[i] for i in kept])) == 0
        bill = sandbox.bill()
        assert (bill.texts, bill.most_often) == (89, 1)
        assert bill.requests <= 1 + 2 * 7  # two halves at each of the seven levels
        assert record.sent_again == 0
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (bill.nanodollars, 0)


async def test_a_request_of_which_a_text_is_rejected_fails_and_keeps_the_rest(sandbox: Sandbox, tmp_path: Path) -> None:
    """All or nothing is the answer; what was paid for is in the cache for the next try without that text."""
    texts = ["one", "what nobody may say", "three"]
    sandbox.faults.add(Fault("poison", times=None, match="nobody"))
    async with open_router(tmp_path, sandbox) as router:
        with pytest.raises(CallRejected, match="1 of 3 texts were not embedded"):
            await router.embed(texts, model=SMALL, policy="quality")
        assert_books(router, sandbox)
        before = sandbox.bill()
        result = await router.embed(["one", "three"], model=SMALL, policy="quality")
        assert (result.cost, sandbox.bill()) == (0, before)


async def test_several_rejected_texts_in_several_calls(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int]
) -> None:
    """Each is found and named; nobody else suffers."""
    n = count(400, 4_000)
    texts = some_texts(n)
    bad = sorted({0, 1, n // 3, n // 2, n // 2 + 2, n - 1})
    for i in bad:
        texts[i] = f"what nobody may say, {i}"
    sandbox.faults.add(Fault("poison", times=None, match="nobody"))
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=100)) as router:
        result = await router.embed(texts, model=SMALL, policy="quality", partial=True)
        assert list(result.problems) == bad
        kept = [i for i in range(n) if i not in result.problems]
        assert wrong(result.vectors[kept], right(SMALL, [texts[i] for i in kept])) == 0
        assert sandbox.bill().most_often == 1
        assert assert_books(router, sandbox).settled == sandbox.bill().nanodollars


@pytest.fixture
def _one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing overshoots: everything goes out in one call."""

    def pack(units: Sequence[Unit], *args: object, **kwargs: object) -> list[list[Unit]]:
        return [list(units)]

    monkeypatch.setattr("router.dispatch.request.pack", pack)


@pytest.mark.usefixtures("_one_call")
async def test_a_call_of_too_many_tokens_is_split(sandbox: Sandbox, tmp_path: Path) -> None:
    """`max_tokens_per_request` is answered with two halves, until they fit; nothing is lost or paid for twice."""
    texts = [f"{i}" + " word" * 8_000 for i in range(100)]
    async with open_router(tmp_path, sandbox) as router:
        record = Record(router, "openai")
        result = await router.embed(texts, model=SMALL, policy="quality")
        assert wrong(result.vectors, right(SMALL, texts)) == 0
        bill = sandbox.bill()
        assert [e.status for e in sandbox.received()].count(400) == 3  # 800,000, then 400,000 twice, for 300,000
        assert (bill.calls, bill.texts, bill.most_often, record.sent_again) == (4, 100, 1, 0)
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (bill.nanodollars, 0)


@pytest.mark.usefixtures("_one_call")
async def test_a_call_of_too_many_texts_is_split(sandbox: Sandbox, tmp_path: Path) -> None:
    """A limit of texts that the catalog does not know is found in the same way."""
    texts = some_texts(200)
    async with open_router(tmp_path, sandbox) as router:
        record = Record(router, "cohere")
        result = await router.embed(texts, model=PAID["cohere"], policy="quality")
        assert wrong(result.vectors, right(PAID["cohere"], texts)) == 0
        assert (sandbox.bill().texts, sandbox.bill().most_often, record.sent_again) == (200, 1, 0)
        assert_books(router, sandbox)


async def test_a_lone_text_that_is_too_large_is_sent_once(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where our count and the provider's differ, the text is named with what to do, and not sent again."""
    monkeypatch.setattr("router.tokens.count", lambda tokenizer, texts: [8_000 for _ in texts])
    texts = ["short", "word " * 9_000]
    async with open_router(tmp_path, sandbox) as router:
        record = Record(router, "openai")
        result = await router.embed(texts, model=SMALL, policy="quality", partial=True)
        assert isinstance(result.problems[1], CallTooLarge)
        assert "maximum context length" in str(result.problems[1])
        assert "split" not in str(result.problems[1])
        assert "shorten it" in str(result.problems[1])
        assert wrong(result.vectors[:1], right(SMALL, texts[:1])) == 0
        assert record.sent_again == 0
        assert_books(router, sandbox)


async def test_halves_that_the_budget_has_no_room_for_are_not_sent(sandbox: Sandbox, tmp_path: Path) -> None:
    """The hard limit stands, also where it was lowered while the call was under way."""
    texts = ["a", "b nobody"]
    sandbox.faults.add(Fault("poison", times=None, match="nobody"))
    async with open_router(tmp_path, sandbox) as router:
        tight = Policy(name="tight", goal="quality", budgets=(Budget(amount=60, window="month"),))
        await router.policies.save(tight, [SMALL])

        provider = router.providers["openai"]
        send = provider.embed

        async def embed(call: EmbedCall) -> Reply:
            await router.policies.save(replace(tight, budgets=(Budget(amount=40, window="month"),)), [SMALL])
            return await send(call)

        provider.embed = embed  # type: ignore[method-assign]  # the budget shrinks while the call is under way
        result = await router.embed(texts, model=SMALL, policy="tight", partial=True)
        assert {type(e) for e in result.problems.values()} == {BudgetExceeded}
        assert sandbox.bill().requests == 1
        assert assert_books(router, sandbox).shown == 0
