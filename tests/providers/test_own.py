"""A provider that the caller of `Router.open` brings: held, paid, checked and cached like any other."""

from __future__ import annotations

import hashlib
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from router import (
    BadInput,
    BadReply,
    Budget,
    EmbedCall,
    KeyRejected,
    Limits,
    Model,
    OutcomeUnknown,
    Policy,
    Price,
    Refused,
    Reply,
    Router,
)
from router.sandbox import Sandbox

SIZE = 8
NANO = 500  # a token, at $0.50 a million
MARKERS = 16  # tokens that may stand around a text whose tokenizer is not at hand
SMALL = "openai/text-embedding-3-small"
PRICE = Price(since=date(2026, 1, 1), now=Decimal("0.50"), source="us", checked=date(2026, 1, 1))
MINE = Model(
    id="mine/hash",
    provider="mine",
    name="hash",
    space="mine/hash",
    dimensions=SIZE,
    default_dimensions=SIZE,
    tokenizer="bytes",
    limits=Limits(texts_per_call=2, tokens_per_text=100),
    prices=(PRICE,),
)


def vector(text: str) -> list[float]:
    """What `Hash` makes of a text; not of unit length."""
    return [byte + 1.0 for byte in hashlib.sha256(text.encode()).digest()[:SIZE]]


class Hash:
    """A provider with no more than what it must have. `fails` is raised by the first calls, one each."""

    def __init__(self, *fails: Exception, reply: Reply | None = None) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.closed = False
        self._fails, self._reply = list(fails), reply

    async def embed(self, call: EmbedCall) -> Reply:
        """A token a text."""
        self.calls.append(call.texts)
        if self._fails:
            raise self._fails.pop(0)
        return self._reply or Reply(vectors=[vector(text) for text in call.sent], tokens=len(call.texts))

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True


async def test_it_is_paid_checked_and_cached_like_any_other(tmp_path: Path) -> None:
    """Cost by its price and its own word, calls by its model's limits, vectors of unit length; and paid once."""
    provider = Hash()
    async with Router.open(tmp_path, env={}, providers={"mine": provider}, models=[MINE]) as router:
        quote = await router.quote(["a", "bc", "d", "a"], model="mine/hash")
        assert (quote.model, quote.cost) == ("mine/hash", (4 + 3 * MARKERS) * NANO)
        result = await router.embed(["a", "bc", "d", "a"], model="mine/hash")
        assert (result.space, result.cost, result.unconfirmed) == ("mine/hash", 3 * NANO, 0)
        assert result.routes == ("api", "api", "api", "repeated")
        right = np.array([vector(text) for text in ("a", "bc", "d", "a")])
        np.testing.assert_allclose(result.vectors, right / np.linalg.norm(right, axis=1, keepdims=True), atol=1e-6)
        assert sorted(map(len, provider.calls)) == [1, 2]
        again = await router.embed(["d", "bc"], model="mine/hash")
        assert (again.routes, again.cost, len(provider.calls)) == (("cache", "cache"), 0, 2)
        assert router.health()[-1].provider == "mine"
    assert provider.closed


async def test_it_stands_under_the_budgets(tmp_path: Path) -> None:
    """What the most would cost is held before a call leaves; what does not fit is refused, and not sent."""
    provider = Hash()
    async with Router.open(tmp_path, env={}, providers={"mine": provider}, models=[MINE]) as router:
        budget = Budget(amount=(8 + MARKERS) * NANO, window="month")
        await router.policies.save(Policy(name="small", budgets=(budget,), when_exhausted="refuse"), [MINE.id])
        await router.embed(["12345"], model="mine/hash", policy="small")
        with pytest.raises(Refused):
            await router.embed(["1234567890"], model="mine/hash", policy="small")
        assert provider.calls == [("12345",)]


async def test_what_it_raises_decides_the_money(tmp_path: Path) -> None:
    """Sent again where its error says so; the loss of an answer is booked; a reply that is wrong is stored nowhere."""
    lost, refused, wrong = Hash(OutcomeUnknown("Lost.")), Hash(KeyRejected("No.")), Hash(reply=Reply(vectors=[[1.0]]))
    async with Router.open(tmp_path, env={}, providers={"mine": lost}, models=[MINE]) as router:
        result = await router.embed(["abc"], model="mine/hash")
        assert (len(lost.calls), result.cost, result.unconfirmed) == (2, NANO, (3 + MARKERS) * NANO)
    async with Router.open(tmp_path, env={}, providers={"mine": refused}, models=[MINE]) as router:
        with pytest.raises(KeyRejected):
            await router.embed(["def"], model="mine/hash")
    async with Router.open(tmp_path, env={}, providers={"mine": wrong}, models=[MINE]) as router:
        with pytest.raises(BadReply):
            await router.embed(["ghi"], model="mine/hash")
        quote = await router.quote(["abc", "def", "ghi"], model="mine/hash")
        assert quote.lines[-1].verdict.cached == 1


async def test_it_takes_the_place_of_a_built_in_one(tmp_path: Path, sandbox: Sandbox) -> None:
    """Of OpenAI's, without a key: nothing is sent to OpenAI's address, by a batch neither."""

    class Fixed(Hash):
        async def embed(self, call: EmbedCall) -> Reply:
            return Reply(vectors=np.eye(len(call.texts), 1536, dtype=np.float32), tokens=1)

    env = {"OPENAI_BASE_URL": f"{sandbox.url}/openai/v1"}
    async with Router.open(tmp_path, env=env, providers={"openai": Fixed()}) as router:
        model = router.catalog.get(SMALL)
        assert router.configured(model)
        assert {price.batch for price in model.prices} == {None}
        result = await router.embed(["a"], model=SMALL)
        assert result.vectors[0, 0] == 1
    assert sandbox.bill().requests == 0


async def test_a_folder_of_it_opens_without_it(tmp_path: Path) -> None:
    """Its model is unknown then, and what was spent on it is still there."""
    async with Router.open(tmp_path, env={}, providers={"mine": Hash()}, models=[MINE]) as router:
        await router.embed(["a"], model="mine/hash")
    async with Router.open(tmp_path, env={}) as router:
        with pytest.raises(BadInput):
            await router.embed(["a"], model="mine/hash")
        assert router.ledger.totals()[0] == NANO


@pytest.mark.parametrize(
    ("providers", "model", "words"),
    [
        ({"My Own": Hash()}, MINE, "cannot be called 'My Own'"),
        ({}, MINE, "at 'mine', which is not configured"),
        ({"other": Hash()}, MINE, "at 'mine', which is not configured"),
    ],
)
async def test_what_cannot_be_used_is_said(
    tmp_path: Path, providers: dict[str, Hash], model: Model, words: str
) -> None:
    """Before anything is opened."""
    with pytest.raises(BadInput, match=words):
        async with Router.open(tmp_path, env={}, providers=providers, models=[model]):
            pass
    assert not (tmp_path / "router.db").exists()
