"""The traps that caches and gateways of this kind fall into, and bad input: what the engine does with each."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.domain.errors import BadInput, Refused, RouterError
from router.domain.values import Budget, Policy, Refusal, Unit
from router.engine import Router
from router.providers.base import EmbedCall, Reply
from router.sandbox import Sandbox
from router.store.database import Connection
from router.store.entries import Purpose
from tests.faults.paid_helpers import PAID, SMALL, assert_books, every_provider, open_router, right, some_texts, wrong

LOCAL = "local/all-MiniLM-L6-v2"


class FakeLocal:
    """A local model that loads nothing: 384 numbers drawn from the text, and a count of the texts it was given."""

    def __init__(self) -> None:
        self.texts = 0

    @staticmethod
    def vector(text: str) -> np.ndarray:
        """What it makes of a text."""
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        drawn = np.random.default_rng(seed).standard_normal(384)
        return (drawn / np.linalg.norm(drawn)).astype(np.float32)

    async def embed(self, call: EmbedCall) -> Reply:
        """Every text by itself."""
        self.texts += len(call.texts)
        vectors = np.array([self.vector(text) for text in call.texts], dtype=np.float32)
        return Reply(vectors=vectors, indices=None, tokens=None, model=None)

    async def aclose(self) -> None:
        """Nothing to close."""


# ---- spaces do not mix -------------------------------------------------------------------------


async def test_a_local_vector_is_never_served_for_a_paid_model_nor_the_other_way(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """The same texts, asked of a local model, then of each paid one, then of the local one: each from its own space."""
    texts = some_texts(5)
    fake = FakeLocal()
    async with Router.open(tmp_path, env=sandbox.environment, providers={"local": fake}) as router:
        here = np.array([fake.vector(t) for t in texts])
        for name, model in {"local": LOCAL, **PAID, "large": "openai/text-embedding-3-large"}.items():
            result = await router.embed(texts, model=model, policy="quality")
            assert (result.space, result.counts.cache) == (model, 0), f"{name} was answered by another"
            assert wrong(result.vectors, here if name == "local" else right(model, texts)) == 0
        again = await router.embed(texts, model=LOCAL, policy="quality")
        assert wrong(again.vectors, here) == 0
        assert (again.counts.cache, fake.texts) == (5, 5)
        assert sandbox.bill().texts == 5 * 4
        conn = router.cache.database.reader()
        sizes = conn.execute(
            "SELECT DISTINCT space, length(vector) / 4 = dimensions FROM vectors JOIN kinds ON kinds.id = kind"
        ).fetchall()
        assert len(sizes) == 5
        assert {fits for _, fits in sizes} == {1}
        assert_books(router, sandbox)


async def test_falling_back_to_local_poisons_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """When the money is gone the local model answers, and says so; with money again, the paid vectors are bought."""
    texts = some_texts(3)
    fake = FakeLocal()
    async with Router.open(tmp_path, env=sandbox.environment, providers={"local": fake}) as router:
        poor = Policy(name="p", goal="quality", allow=(SMALL, LOCAL), budgets=(Budget(amount=10, window="month"),))
        await router.policies.save(poor, [SMALL, LOCAL])
        fallen = await router.embed(texts, policy="p")
        assert (fallen.space, fallen.dimensions, fallen.cost, sandbox.bill().requests) == (LOCAL, 384, 0, 0)
        assert fallen.plan.fell_back
        rich = Policy(name="p", goal="quality", allow=(SMALL, LOCAL), budgets=(Budget(amount=10**9, window="month"),))
        await router.policies.save(rich, [SMALL, LOCAL])
        bought = await router.embed(texts, policy="p")
        assert (bought.space, bought.counts.api) == (SMALL, 3)
        assert wrong(bought.vectors, right(SMALL, texts)) == 0
        assert fake.texts == 3
        assert_books(router, sandbox)


async def test_models_of_one_size_do_not_answer_for_each_other(sandbox: Sandbox, tmp_path: Path) -> None:
    """ada-002 and 3-small both have 1,536 dimensions; so has embed-v4.0."""
    async with open_router(tmp_path, sandbox) as router:
        for model in (SMALL, "openai/text-embedding-ada-002", "cohere/embed-v4.0"):
            result = await router.embed(["a text"], model=model, policy="quality")
            assert (result.dimensions, result.counts.api) == (1536, 1)
            assert wrong(result.vectors, right(model, ["a text"])) == 0
        assert sandbox.bill().calls == 3


# ---- paid once ---------------------------------------------------------------------------------


@every_provider
async def test_the_second_identical_request_is_free(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    """All from the cache, with the same vectors and nothing charged; also after a restart."""
    texts = some_texts(7)
    async with open_router(tmp_path, sandbox) as router:
        first = await router.embed(texts, model=PAID[name], policy="quality")
        assert (first.counts.api, first.cost) == (7, sandbox.bill().nanodollars)
        bill = sandbox.bill()
        second = await router.embed(texts, model=PAID[name], policy="quality")
    async with open_router(tmp_path, sandbox) as router:
        third = await router.embed(texts, model=PAID[name], policy="quality")
        for result in (second, third):
            assert (result.counts.cache, result.cost, result.routes) == (7, 0, ("cache",) * 7)
            assert np.array_equal(result.vectors, first.vectors)
            assert result.saved.cache > 0
        assert sandbox.bill() == bill
        assert_books(router, sandbox)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [(SMALL, (512, 1536, 256, 1, 1535)), ("voyage/voyage-3.5", (256, 2048, 512, 1024)), (PAID["cohere"], (256, 1024))],
)
async def test_fewer_dimensions_of_what_was_paid_for_cost_nothing(
    sandbox: Sandbox, tmp_path: Path, model: str, sizes: tuple[int, ...]
) -> None:
    """One paid vector serves every size, cut and brought to unit length, whichever was asked first."""
    texts = some_texts(4)
    async with open_router(tmp_path, sandbox) as router:
        await router.embed(texts, model=model, policy="quality", dimensions=sizes[0])
        bill = sandbox.bill()
        full = right(model, texts) if model != "voyage/voyage-3.5" else _full_voyage(texts)
        for size in sizes:
            result = await router.embed(texts, model=model, policy="quality", dimensions=size)
            cut = full[:, :size].astype(np.float64)
            oracle = (cut / np.sqrt((cut * cut).sum(axis=1, keepdims=True))).astype(np.float32)
            assert wrong(result.vectors, oracle) == 0
            assert (result.dimensions, result.cost) == (size, 0)
        assert sandbox.bill() == bill
        assert bill.texts == 4


def _full_voyage(texts: list[str]) -> np.ndarray:
    from router.sandbox import expected_vectors

    return expected_vectors("voyage/voyage-3.5", texts, role="document", dimensions=2048)


@pytest.mark.parametrize(("name", "apart"), [("openai", False), ("cohere", True), ("voyage", True)])
async def test_queries_and_documents_share_vectors_only_where_the_model_makes_no_difference(
    sandbox: Sandbox, tmp_path: Path, name: str, apart: bool
) -> None:
    """The second caller is never given the other role's vector; where there is no such thing, it pays nothing."""
    texts, model = some_texts(3), PAID[name]
    async with open_router(tmp_path, sandbox) as router:
        for role in ("document", "query", "document", "query"):
            result = await router.embed(texts, model=model, policy="quality", role=role)  # type: ignore[arg-type]
            assert wrong(result.vectors, right(model, texts, role)) == 0
        assert sandbox.bill().texts == (6 if apart else 3)
        assert {e.role for e in sandbox.received()} == ({"document", "query"} if apart else {None})
        if apart:
            assert wrong(right(model, texts, "document"), right(model, texts, "query")) == 3
        assert_books(router, sandbox)


async def test_a_trailing_newline_is_another_text_unless_the_policy_normalises(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Exact by default; a policy that normalises takes white space and Unicode forms for the same."""
    variants = ["caf\u00e9", "caf\u00e9\n", " caf\u00e9", "cafe\u0301", "caf\u00e9\r\n"]
    async with open_router(tmp_path, sandbox) as router:
        exact = await router.embed(variants, model=SMALL, policy="quality")
        assert (exact.distinct, sandbox.bill().texts) == (5, 5)
        assert wrong(exact.vectors, right(SMALL, variants)) == 0
        await router.policies.save(Policy(name="clean", goal="quality", normalise=True), [SMALL])
        clean = await router.embed(variants, model=SMALL, policy="clean")
        assert (clean.distinct, clean.repeated, clean.cost) == (1, 4, 0)
        assert wrong(clean.vectors, right(SMALL, ["caf\u00e9"] * 5)) == 0
        assert_books(router, sandbox)


@every_provider
async def test_identical_texts_of_one_request_are_billed_once(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    """The copies are answered with their twin, and are reported as repeated."""
    async with open_router(tmp_path, sandbox) as router:
        texts = ["a", "b", "a", "a", "b", "c"]
        result = await router.embed(texts, model=PAID[name], policy="quality")
        assert wrong(result.vectors, right(PAID[name], texts)) == 0
        assert result.routes == ("api", "api", "repeated", "repeated", "repeated", "api")
        assert (result.distinct, result.repeated, sandbox.bill().texts) == (3, 3, 3)
        assert result.saved.repeats > 0


@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
async def test_ten_identical_requests_at_once_make_one_call(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int], partial: bool
) -> None:
    """Whoever comes while it is under way waits for it, and pays nothing."""
    sandbox.configure(latency_ms=30)
    async with open_router(tmp_path, sandbox) as router:
        for trial in range(count(3, 100)):
            sandbox.reset()
            texts = some_texts(5, f"trial {trial}")
            results = await asyncio.gather(
                *(router.embed(texts, model=SMALL, policy="quality", partial=partial) for _ in range(10))
            )
            assert all(wrong(r.vectors, right(SMALL, texts)) == 0 for r in results)
            assert (sandbox.bill().calls, sandbox.bill().texts) == (1, 5)
            assert sorted(r.cost for r in results) == [0] * 9 + [sandbox.bill().nanodollars]
            assert [r.counts.api for r in results].count(5) == 1
        sandbox.reset()
        assert_books(router, sandbox)


def test_lists_of_cached_new_and_repeated_texts_come_back_in_order(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int]
) -> None:
    """No shift, whatever the mix; what is billed is exactly what nobody had asked for before."""
    with asyncio.Runner() as runner:
        context = open_router(tmp_path, sandbox, "[providers.openai]\nmax_texts_per_call = 3\n")
        router = runner.run(context.__aenter__())
        world = 0

        @settings(
            max_examples=count(25, 1_000), deadline=None, database=None, derandomize=True,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )  # fmt: skip
        @given(lists=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=4))
        def check(lists: list[list[int]]) -> None:
            nonlocal world
            world += 1
            sandbox.reset()
            seen: set[int] = set()
            for numbers in lists:
                texts = [f"world {world}, {n}" for n in numbers]
                result = runner.run(router.embed(texts, model=SMALL, policy="quality"))
                assert wrong(result.vectors, right(SMALL, texts)) == 0
                first = {n: i for i, n in reversed(list(enumerate(numbers)))}
                assert result.routes == tuple(
                    "repeated" if first[n] != i else "cache" if n in seen else "api" for i, n in enumerate(numbers)
                )
                seen |= set(numbers)
            assert (sandbox.bill().texts, sandbox.bill().most_often) == (len(seen), 1)

        check()
        sandbox.reset()
        assert_books(router, sandbox)
        runner.run(context.__aexit__(None, None, None))


# ---- bad input ---------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"texts": ["a text"], "model": SMALL, "policy": "quality"}
MISTAKES: dict[str, tuple[dict[str, Any], type[RouterError], str]] = {
    "no texts": ({"texts": []}, BadInput, "no text to embed"),
    "a string": ({"texts": "abc"}, BadInput, "one string, not a list"),
    "a number": ({"texts": ["a", 5]}, BadInput, "Text 2 is not text but int"),
    "nothing": ({"texts": [None]}, BadInput, "Text 1 is not text but NoneType"),
    "bytes": ({"texts": [b"a"]}, BadInput, "Text 1 is not text but bytes"),
    "unknown model": ({"model": "openai/gpt-17"}, BadInput, "openai/gpt-17"),
    "empty model": ({"model": ""}, BadInput, "''"),
    "unknown policy": ({"policy": "nope"}, BadInput, "no policy 'nope'"),
    "SQL as a policy": ({"policy": "'; DROP TABLE holds; --"}, BadInput, "DROP TABLE"),
    "unknown role": ({"role": "title"}, BadInput, "no role 'title'"),
    "zero dimensions": ({"dimensions": 0}, BadInput, "cannot have 0 dimensions"),
    "negative dimensions": ({"dimensions": -1}, BadInput, "cannot have -1 dimensions"),
    "more than there are": ({"dimensions": 1537}, BadInput, "does not serve 1537 dimensions"),
    "a size not sold": ({"model": PAID["cohere"], "dimensions": 100}, BadInput, "does not serve 100 dimensions"),
    "not allowed": ({"policy": "local"}, Refused, "allows local models only"),
}
SEEN_BY_THE_DECISION = ("more than there are", "a size not sold", "not allowed")
"""A quote shows these as a refusal, with every candidate."""


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_told_and_costs_nothing(sandbox: Sandbox, tmp_path: Path, mistake: str) -> None:
    """It says what is wrong, where, and what to do; nothing is sent, charged or written. A quote says the same."""
    change, error, what = MISTAKES[mistake]
    asked = {**GOOD, **change}
    texts = asked.pop("texts")
    async with open_router(tmp_path, sandbox) as router:
        with pytest.raises(error) as raised:
            await router.embed(texts, **asked)
        assert what in raised.value.message
        assert raised.value.hint, "it does not say what to do"
        if mistake in SEEN_BY_THE_DECISION:
            outcome = (await router.quote(texts, **asked)).outcome
            assert isinstance(outcome, Refusal)
            assert what in outcome.reason
        else:
            with pytest.raises(error):
                await router.quote(texts, **asked)
        assert sandbox.bill().requests == 0
        assert router.cache.size()[0] == 0
        assert assert_books(router, sandbox).shown == 0
        assert (await router.embed(**GOOD)).counts.api == 1, "it does not work any more"


@every_provider
@pytest.mark.parametrize("key", ["", "  "], ids=["none", "white"])
async def test_no_key_for_a_paid_model(sandbox: Sandbox, tmp_path: Path, name: str, key: str) -> None:
    """Refused with the provider's name and what to do; nothing is sent. What is cached is served all the same."""
    variable = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY", "voyage": "VOYAGE_API_KEY"}[name]
    async with open_router(tmp_path, sandbox) as router:
        await router.embed(["cached"], model=PAID[name], policy="quality")
    async with open_router(tmp_path, sandbox, **{variable: key}) as router:
        with pytest.raises(Refused, match=f"no key for {name} is set") as raised:
            await router.embed(["a text"], model=PAID[name], policy="quality")
        assert "key" in raised.value.hint
        assert (await router.embed(["cached"], model=PAID[name], policy="quality")).cost == 0
        assert sandbox.bill().requests == 1
        assert_books(router, sandbox)


@pytest.mark.parametrize("amount", [-1, -(10**9)])
async def test_a_negative_budget_is_refused(sandbox: Sandbox, tmp_path: Path, amount: int) -> None:
    """It is not saved; the policy stays as it was."""
    async with open_router(tmp_path, sandbox) as router:
        before = router.policies.get("quality")
        bad = Policy(name="quality", goal="quality", budgets=(Budget(amount=amount, window="month"),))
        with pytest.raises(BadInput):
            await router.policies.save(bad, [SMALL])
        assert router.policies.get("quality") == before


async def test_a_budget_of_nothing_spends_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Zero is a limit, and not the absence of one."""
    async with open_router(tmp_path, sandbox) as router:
        zero = Policy(
            name="zero", goal="quality", allow=(SMALL,), budgets=(Budget(amount=0, window="total"),),
            when_exhausted="refuse",
        )  # fmt: skip
        await router.policies.save(zero, [SMALL])
        with pytest.raises(Refused) as raised:
            await router.embed(["a text"], policy="zero")
        assert "budget" in str(raised.value).lower()
        file = await router.embed(["a text"], policy="zero", partial=True)
        assert file.exhausted
        assert (sandbox.bill().requests, assert_books(router, sandbox).shown) == (0, 0)


async def test_a_text_in_an_open_batch_is_refused_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """A batch may take a day: who asks for its text now is told, and is not kept waiting for the deadline."""
    async with open_router(tmp_path, sandbox) as router:
        key = hashlib.blake2b(b"in a batch", digest_size=32).digest()
        unit = Unit(digest=key, text="in a batch", tokens=3)
        purpose = Purpose(request=1, policy="quality", model=SMALL, kind=f"{SMALL}|", route="batch")
        ledger = router.ledger

        def open_batch(conn: Connection) -> None:
            ledger.open_in(
                conn,
                [[unit]],
                purpose,
                weigh=lambda units: 3,
                stored=lambda digests: set(),
                sent=True,
                owner="batch k",
            )

        await router.database.write(open_batch)
        with pytest.raises(Refused, match="batch that is under way"):
            await asyncio.wait_for(router.embed(["in a batch"], policy="quality", model=SMALL), 60)
        assert sandbox.bill().requests == 0
