"""Fault 19: lists that mix cached, new, doubled and in-flight texts. Figure: positions with a wrong vector (0)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.engine import Router
from router.pipeline.results import Result
from router.sandbox import Fault, Sandbox, expected_vectors
from tests.faults.ledger_oracle import MODEL, audit

LARGE = "openai/text-embedding-3-large"
FULL = {MODEL: 1536, LARGE: 3072}
SIZES = (None, 1536, 512, 256, 7, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """Two programs on one data folder, on one event loop."""

    runner: asyncio.Runner
    routers: list[Router]
    sandbox: Sandbox


@pytest.fixture
def two(sandbox: Sandbox, fresh: Callable[[str], Path]) -> Iterator[Two]:
    """Two routers that are kept for all examples, with few texts a call so that a list is several calls."""
    folder = fresh("data")
    (folder / "router.toml").write_text("[providers.openai]\nmax_texts_per_call = 4\n", "utf-8")
    with asyncio.Runner() as runner:
        contexts = [Router.open(folder, env=sandbox.environment) for _ in range(2)]
        routers = [runner.run(context.__aenter__()) for context in contexts]
        yield Two(runner=runner, routers=routers, sandbox=sandbox)
        for context in contexts:
            runner.run(context.__aexit__(None, None, None))


def right(model: str, texts: list[str], size: int | None) -> np.ndarray:
    """The oracle: the provider's full vectors, cut and brought to unit length here, not by the router."""
    full = expected_vectors(model, texts, dimensions=FULL[model]).astype(np.float64)
    cut = full[:, : size or FULL[model]]
    return cut / np.sqrt((cut * cut).sum(axis=1, keepdims=True))


lists = st.lists(st.integers(0, 11), min_size=2, max_size=40)
"""Texts by number; few numbers, so that lists repeat themselves and each other."""


def test_each_position_holds_its_own_text(
    two: Two, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """Whatever is cached, new, repeated, or being paid for by another request, no vector is at the wrong text."""
    fresh_names = numbers()
    checked = 0

    async def at_once(asks: list[tuple[int, list[str], int | None]], model: str) -> list[Result]:
        work = [two.routers[who].embed(t, policy="quality", model=model, dimensions=size) for who, t, size in asks]
        return await asyncio.gather(*work)

    @settings(
        max_examples=count(40, 1_000), deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(
        before=st.lists(st.integers(0, 11), max_size=8),
        asks=st.lists(st.tuples(st.integers(0, 1), lists, st.sampled_from(SIZES)), min_size=1, max_size=4),
        model=st.sampled_from([MODEL, MODEL, LARGE]),
        trouble=st.sampled_from(["", "", "shuffled_index", "rate_limited"]),
    )
    def check(
        before: list[int], asks: list[tuple[int, list[int], int | None]], model: str, trouble: str
    ) -> None:  # fmt: skip
        nonlocal checked
        world = next(fresh_names)
        two.sandbox.faults.clear()
        two.sandbox.configure(latency_ms=world % 3 * 2)

        def name(text: int) -> str:
            return f"world {world}, text {text}" + "\n" * (text % 2)  # a trailing newline makes another text

        if before:
            two.runner.run(two.routers[0].embed([name(t) for t in before], policy="quality", model=model))
        if trouble:
            two.sandbox.faults.add(Fault(trouble, times=2, retry_after=0))  # type: ignore[arg-type]  # drawn
        asked = [(who, [name(t) for t in texts], size) for who, texts, size in asks]
        results = two.runner.run(at_once(asked, model))
        for (_, texts, size), result in zip(asked, results, strict=True):
            oracle = right(model, texts, size)
            assert result.vectors.shape == oracle.shape
            assert np.abs(result.vectors - oracle).max() < 1e-5, "a vector is at the wrong text"
            assert result.dimensions == oracle.shape[1]
            assert len(result.routes) == len(texts)
            checked += len(texts)

    check()
    bill = two.sandbox.bill()
    assert bill.most_often == 1  # none was paid for twice on the way
    books = audit(two.routers[0].database.reader())
    assert (books.settled, books.unconfirmed, books.held) == (bill.nanodollars, 0, 0)
    figure(19, f"{checked:,} positions of lists mixed of cached, new, doubled and in-flight texts: 0 wrong")


def test_the_oracle_tells_texts_apart() -> None:
    """Two texts, and two models, never look alike to it at the sizes that are asked for, but for the smallest."""
    texts = [f"text {n}" for n in range(12)]
    for size in (1536, 512, 256, 7):
        vectors = right(MODEL, texts, size)
        apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2)
        assert apart[~np.eye(12, dtype=bool)].min() > 1e-3
