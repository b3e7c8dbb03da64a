"""Several routes to one space: endpoints of the operator's, a mirror of a model, the members of a family."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router import Router
from router.dispatch import steps
from router.domain.money import NANO
from router.domain.values import Budget, Policy
from router.sandbox import Fault, Sandbox, expected_vectors

SMALL = "openai/text-embedding-3-small"
MIRROR = "mirror/text-embedding-3-small"
LARGE, STANDARD, LITE = "voyage/voyage-4-large", "voyage/voyage-4", "voyage/voyage-4-lite"
TEXTS = ["Lift of a thin wing.", "Boundary layers, again.", "A third text.", "A fourth."]
ENDPOINT = """
[endpoints.mirror]
base_url = "{url}"

[[models]]
id = "mirror/text-embedding-3-small"
like = "openai/text-embedding-3-small"
prices = [{{ since = 2026-01-01, now = "{price}", source = "contract", checked = 2026-01-01 }}]
"""


@asynccontextmanager
async def opened(folder: Path, env: dict[str, str], *allow: str, **rule: Any) -> AsyncIterator[Router]:
    """A router whose policy `p` allows these models."""
    async with Router.open(folder, env=env) as router:
        budget = Budget(amount=NANO, window="month")
        policy = Policy(name="p", allow=allow, budgets=(budget,), goal=rule.pop("goal", "economy"), **rule)
        await router.policies.save(policy, [model.id for model in router.catalog.models])
        yield router


def close(found: Any, model: str, texts: list[str], **how: Any) -> None:
    """The vectors are those that the sandbox makes for these texts."""
    np.testing.assert_allclose(found, expected_vectors(model, texts, **how), atol=1e-6)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends are tried again at once."""
    monkeypatch.setattr(steps, "FIRST_WAIT_S", 0.002)


# ---- a mirror ----------------------------------------------------------------------------------


def refused(primary: Sandbox, env: dict[str, str]) -> None:
    """The first endpoint is not there at all."""
    env["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"


def dropped(primary: Sandbox, env: dict[str, str]) -> None:
    """The first endpoint resets every connection."""
    primary.faults.add(Fault("refuse", times=None))


def broken(primary: Sandbox, env: dict[str, str]) -> None:
    """The first endpoint answers every call with 500."""
    primary.faults.add(Fault("status", status=500, times=None))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("fail", [refused, dropped, broken])
async def test_a_failing_endpoint_is_stepped_around(
    tmp_path: Path, sandbox: Sandbox, fail: Callable[[Sandbox, dict[str, str]], None]
) -> None:
    """Within one request, the mirror answers in the same space what the first endpoint would not; paid once."""
    with Sandbox() as second:
        (tmp_path / "router.toml").write_text(ENDPOINT.format(url=f"{second.url}/openai/v1", price="0.03"))
        env = dict(sandbox.environment)
        fail(sandbox, env)
        async with opened(tmp_path, env, SMALL, MIRROR) as router:
            result = await router.embed(TEXTS, policy="p")
            assert (result.model, result.space, result.counts.api) == (MIRROR, SMALL, len(TEXTS))
            assert f"{SMALL} failed, so {MIRROR} answered." in result.decision
            close(result.vectors, SMALL, TEXTS)
            sends = sandbox.bill().requests
            assert sends <= 4  # two of all texts, then their halves
            while not router.limiters["openai"].unhealthy():
                await router.embed([f"{sends} {router.limiters['openai'].health().failures_in_row}"], policy="p")
            arrived, answered = sandbox.bill().requests, second.bill().texts
            beyond = await router.embed(["straight to the mirror"], policy="p")
            assert beyond.model == MIRROR
            assert "failed 5 times in a row" in next(v.reason for v in beyond.plan.verdicts if v.model.id == SMALL)
            again = await router.embed(TEXTS, policy="p")
            assert again.counts.cache == len(TEXTS)
            settled, unconfirmed, held = router.ledger.totals()
        assert (sandbox.bill().requests, sandbox.bill().nanodollars) == (arrived, 0)
        bill = second.bill()
        assert (bill.texts, bill.most_often, held) == (answered + 1, 1, 0)
        assert settled >= bill.nanodollars
        assert (unconfirmed == 0) == (fail is refused)


async def test_what_one_way_paid_for_serves_the_other(tmp_path: Path, sandbox: Sandbox) -> None:
    """Vectors that the mirror made are found for the original and back, since both have the same quality."""
    with Sandbox() as second:
        (tmp_path / "router.toml").write_text(ENDPOINT.format(url=f"{second.url}/openai/v1", price="0.03"))
        async with opened(tmp_path, sandbox.environment, SMALL, MIRROR) as router:
            await router.embed(TEXTS[:2], policy="p", model=MIRROR)
            result = await router.embed(TEXTS, policy="p", model=SMALL)
            assert (result.counts.cache, result.counts.api) == (2, 2)
            close(result.vectors, SMALL, TEXTS)
            back = await router.embed(TEXTS, policy="p", model=MIRROR)
            assert back.counts.cache == len(TEXTS)
        assert (second.bill().texts, sandbox.bill().texts) == (2, 2)


async def test_the_cheaper_way_is_taken(tmp_path: Path, sandbox: Sandbox) -> None:
    """With both healthy, the price decides; one that costs nothing is paid nothing and holds nothing."""
    with Sandbox() as second:
        (tmp_path / "router.toml").write_text(ENDPOINT.format(url=f"{second.url}/openai/v1", price="0"))
        async with opened(tmp_path, sandbox.environment, SMALL, MIRROR) as router:
            result = await router.embed(TEXTS, policy="p")
            assert (result.model, result.cost) == (MIRROR, 0)
            assert router.ledger.totals() == (0, 0, 0)
        assert (second.bill().requests, sandbox.bill().requests) == (1, 0)


async def test_an_endpoint_without_its_key_is_not_used(tmp_path: Path, sandbox: Sandbox) -> None:
    """An endpoint whose variable is not set is passed over, and works once the key is typed in."""
    text = ENDPOINT.format(url=f"{sandbox.url}/openai/v1", price="0")
    text = text.replace("\n\n[[", '\nkey_variable = "MIRROR_KEY"\n\n[[')
    (tmp_path / "router.toml").write_text(text)
    async with opened(tmp_path, {}, MIRROR) as router:
        assert not router.configured(router.catalog.get(MIRROR))
        router.set_key("mirror", "typed")
        result = await router.embed(TEXTS, policy="p")
        close(result.vectors, SMALL, TEXTS)


# ---- families ----------------------------------------------------------------------------------


async def test_documents_on_the_best_and_queries_on_the_cheapest(tmp_path: Path, sandbox: Sandbox) -> None:
    """One space: documents by the large model, queries by the lite one, each at its own price and in its role."""
    async with opened(tmp_path, sandbox.environment, "voyage/voyage-4*") as router:
        documents = await router.embed(TEXTS, policy="p", model=LARGE)
        queries = await router.embed(TEXTS[:1], policy="p", model=LITE, role="query")
        assert (documents.space, queries.space) == ("voyage-4", "voyage-4")
        assert (documents.model, queries.model) == (LARGE, LITE)
    close(documents.vectors, LARGE, TEXTS, role="document", dimensions=1024)
    close(queries.vectors, LITE, TEXTS[:1], role="query", dimensions=1024)
    assert set(sandbox.bill().by_model) == {LARGE, LITE}


async def test_a_better_members_vectors_serve_a_lesser_one_never_back(tmp_path: Path, sandbox: Sandbox) -> None:
    """What `large` made answers for `lite` from the cache; what `lite` made is made anew for `large`."""
    async with opened(tmp_path, sandbox.environment, "voyage/voyage-4*") as router:
        await router.embed(TEXTS[:2], policy="p", model=LARGE)
        down = await router.embed(TEXTS[:2], policy="p", model=LITE)
        assert (down.counts.cache, down.cost) == (2, 0)
        await router.embed(TEXTS[2:], policy="p", model=LITE)
        up = await router.embed(TEXTS, policy="p", model=LARGE)
        assert (up.counts.cache, up.counts.api) == (2, 2)
        middle = await router.embed(TEXTS, policy="p", model=STANDARD)
        assert middle.counts.cache == len(TEXTS)
        other_role = await router.embed(TEXTS[:1], policy="p", model=LITE, role="query")
        assert other_role.counts.api == 1


@pytest.mark.parametrize("model", ["voyage/voyage-3.5", "voyage/voyage-3-large", "voyage/voyage-3.5-lite"])
async def test_voyage_3_models_share_with_nobody(tmp_path: Path, sandbox: Sandbox, model: str) -> None:
    """Each voyage-3 model is a space of its own: nothing of another serves it, and it serves no other."""
    async with opened(tmp_path, sandbox.environment, "voyage/*") as router:
        await router.embed(TEXTS, policy="p", model=LARGE)
        found = await router.embed(TEXTS, policy="p", model=model)
        assert (found.space, found.counts.api) == (model, len(TEXTS))
        close(found.vectors, model, TEXTS, role="document", dimensions=1024)
        assert [m.id for m in router.catalog.models if m.space == model] == [model]


async def test_families_under_a_policy(tmp_path: Path, sandbox: Sandbox) -> None:
    """Economy takes the cheapest member and says what the others would have cost; quality takes the best."""
    async with opened(tmp_path, sandbox.environment, "voyage/voyage-4*") as router:
        economy = await router.embed(TEXTS, policy="p", role="query")
        assert economy.model == LITE
        costs = {v.model.id: v.cost for v in economy.plan.verdicts if v.eligible}
        assert costs[LITE] is not None
        assert costs[LARGE] == pytest.approx(costs[LITE] * 6, abs=6)
        await router.policies.save(Policy(name="q", allow=("voyage/voyage-4*",), goal="quality"), [LARGE])
        quality = await router.embed(TEXTS, policy="q", role="document")
        assert quality.model == LARGE


@pytest.mark.parametrize("model", ["cohere/embed-v4.0", "cohere/embed-multilingual-v3.0"])
async def test_cohere_goes_out_in_96s_and_bills_whole_tokens(tmp_path: Path, sandbox: Sandbox, model: str) -> None:
    """200 texts are three calls of at most 96, each text billed once, and the ledger has every token."""
    texts = [f"text number {n}" for n in range(200)]
    async with opened(tmp_path, sandbox.environment, model) as router:
        result = await router.embed(texts, policy="p")
        settled, unconfirmed, held = router.ledger.totals()
    close(result.vectors, model, texts, role="document")
    bill = sandbox.bill()
    assert (bill.requests, bill.texts, bill.most_often) == (math.ceil(200 / 96), 200, 1)
    assert (settled, unconfirmed, held) == (bill.nanodollars, 0, 0)


async def test_queries_of_a_collection_may_go_to_the_cheapest_of_the_family(tmp_path: Path, sandbox: Sandbox) -> None:
    """Documents on the best, queries on the cheapest, in one space; the decision says what that saves."""
    large, lite = "voyage/voyage-4-large", "voyage/voyage-4-lite"
    async with opened(tmp_path, sandbox.environment, large, "voyage/voyage-4", lite) as router:
        same = await router.embed(["a question"], policy="p", role="query", model=large, collection="c")
        assert same.model == large
        policy = replace(router.policies.get("p"), queries="cheapest")
        await router.policies.save(policy, [m.id for m in router.catalog.models])
        documents = await router.embed(TEXTS, policy="p", model=large, collection="c")
        assert documents.model == large
        cheap = await router.embed(["another question"], policy="p", role="query", model=large, collection="c")
        assert (cheap.model, cheap.space) == (lite, documents.space)
        assert f"cheapest of the family voyage-4, {lite}" in cheap.decision
        assert f"less than {large}" in cheap.decision
        alone = await router.embed(["a third"], policy="p", role="query", model=large)
        assert alone.model == large
        assert cheap.cost < same.cost
