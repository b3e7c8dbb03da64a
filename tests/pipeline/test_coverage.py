"""Documents that the best member of a family embedded answer for every other member, whoever asks, and never back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.pipeline.coverage import Coverage
from router.pipeline.validate import digest
from router.sandbox import Sandbox, expected_vectors
from router.store.vectors import vector_key
from tests.libraries import Opened, jsonl, opened, texts

LARGE, LITE = "voyage/voyage-4-large", "voyage/voyage-4-lite"
ROWS = texts(6)


@asynccontextmanager
async def family(folder: Path, sandbox: Sandbox, maker: str) -> AsyncIterator[Opened]:
    """A data folder in which `maker` has embedded the rows; the bill is empty again."""
    async with opened(folder, sandbox) as here:
        await here.allow("50/month")
        await here.router.embed(ROWS, model=maker, policy="quality")
        sandbox.reset()
        yield here


def assert_by(maker: str, vectors: Any) -> None:
    """These are the maker's vectors of the rows, at the size that is usual."""
    wanted = expected_vectors(maker, ROWS, role="document")
    assert np.allclose(vectors, wanted, atol=1e-5)


async def test_a_request(sandbox: Sandbox, tmp_path: Path) -> None:
    """The first door: `Router.embed`, which pays for nothing; and the other way round it pays for all."""
    async with family(tmp_path / "a", sandbox, LARGE) as here:
        result = await here.router.embed(ROWS, model=LITE, policy="quality")
        assert (set(result.routes), result.cost, sandbox.bill().texts) == ({"cache"}, 0, 0)
        assert_by(LARGE, result.vectors)
    async with family(tmp_path / "b", sandbox, LITE) as here:
        result = await here.router.embed(ROWS, model=LARGE, policy="quality")
        assert (set(result.routes), sandbox.bill().texts) == ({"api"}, len(ROWS))


async def test_a_call_about_to_be_held(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second and third: what another request stored after the look-up is seen under the ledger's lock, and used."""
    async with opened(tmp_path, sandbox) as here:
        await here.allow("50/month")
        begin = here.router.usage.begin

        async def overtaken(**about: Any) -> int:
            monkeypatch.setattr(here.router.usage, "begin", begin)
            await here.router.embed(ROWS, model=LARGE, policy="quality")
            sandbox.reset()
            return await begin(**about)

        monkeypatch.setattr(here.router.usage, "begin", overtaken)
        result = await here.router.embed(ROWS, model=LITE, policy="quality")
        assert (result.cost, sandbox.bill().texts) == (0, 0)
        assert_by(LARGE, result.vectors)


@pytest.mark.parametrize("route", ["api", "batch"])
async def test_a_collection_and_its_job(sandbox: Sandbox, tmp_path: Path, route: Any) -> None:
    """The fourth: quote, job and search. The fifth: the batch tier, which is asked for what nobody has to make."""
    async with family(tmp_path / "data", sandbox, LARGE) as here:
        await here.fill("notes", jsonl(tmp_path / "rows.jsonl", ROWS), model=LITE)
        quote = await here.library.quote("notes")
        assert quote.chosen is not None
        assert (quote.chosen.verdict.cached, quote.chosen.now_cost) == (len(ROWS), 0)
        job = await here.library.confirm("notes", route=route)
        await here.worker.run_all()
        done = here.library.job(job.id)
        assert (done.state, done.done, done.spent, sandbox.bill().texts) == ("done", len(ROWS), 0, 0)
        found = await here.library.search("notes", ROWS[2], k=1)
        assert (found.hits[0].chunk.text, found.searched, found.missing) == (ROWS[2], len(ROWS), 0)


async def test_the_uncut_text_comes_first(sandbox: Sandbox, tmp_path: Path) -> None:
    """Of a text that has both, the vector of a cut text never answers; under another rule it is not seen at all."""
    async with opened(tmp_path, sandbox) as here:
        router, model = here.router, here.router.catalog.get(LITE)
        whole, cut = (np.eye(2, model.dimensions, dtype=np.float32)[[n]] for n in (0, 1))
        key = digest("a text")
        for variant, vector in (("cut", cut), ("whole", whole)):
            rule = Coverage(router.cache, router.catalog, long_texts="cut")
            await router.cache.store(vector_key(model, "document", variant), [key], [3], vector)
            assert np.array_equal(rule.read(model, [key], model.dimensions)[1], vector)
            assert rule.stored(model, [key]) == ({key} if variant == "whole" else set())
            split = Coverage(router.cache, router.catalog, long_texts="split")
            assert len(split.rows(model, [key])) == (variant == "whole")
            assert not Coverage(router.cache, router.catalog, role="query").rows(model, [key])
