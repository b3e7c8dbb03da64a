"""A job without a collection: what the batch tier is tested with, here and in the fault tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.batches.states import BatchProgress, BatchTier
from router.engine import Router
from router.pipeline.validate import digest
from router.sandbox import Sandbox, expected_vectors

SMALL = "openai/text-embedding-3-small"
TEXTS = [f"a letter about subject number {n}, sent on day {n % 28}" for n in range(40)]


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """The provider, whose batches move by hand only."""
    sandbox.configure(batch_seconds=1e9)
    return sandbox


def batches_made(sandbox: Sandbox) -> int:
    """Batches that the provider was asked to make, and made."""
    return sum(entry.operation == "POST /batches" and entry.status == 200 for entry in sandbox.received())


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeJob:
    """As much of a job as the tier looks at."""

    id: int = 1
    policy: str = "quality"
    model: str = SMALL
    collection: str = "letters"


def misses_of(router: Router, texts: Sequence[str], model: str = SMALL) -> Callable[[int], dict[bytes, str]]:
    """A new cursor over those of the texts that the cache does not have."""
    there = stored(router, texts, model)
    left = iter([text for text in dict.fromkeys(texts) if text not in there])

    def more(n: int) -> dict[bytes, str]:
        return {digest(text): text for _, text in zip(range(n), left, strict=False)}

    return more


def stored(router: Router, texts: Sequence[str], model: str = SMALL) -> set[str]:
    """Which of the texts have a vector of the model in the cache."""
    by_digest = {digest(text): text for text in texts}
    kinds = {number for number, kind in router.cache.keys().items() if kind.model == model}
    found = router.cache.lookup(list(by_digest))
    return {by_digest[key] for number in kinds for key in found.get(number, ())}


def vectors(router: Router, texts: Sequence[str], model: str = SMALL) -> Any:
    """Their vectors, (n, dimensions); every one must be there."""
    kinds = {number for number, kind in router.cache.keys().items() if kind.model == model}
    found = router.cache.lookup([digest(text) for text in texts])
    rows = {key: row for number in kinds for key, row in found.get(number, {}).items()}
    return router.cache.fetch([rows[digest(text)] for text in texts], router.catalog.get(model).dimensions)


def assert_right(router: Router, texts: Sequence[str], model: str = SMALL) -> None:
    """Every text has its own vector, at full size."""
    role = "document" if router.catalog.get(model).roles else None
    full = router.catalog.get(model).dimensions
    right = expected_vectors(model, list(texts), role, full)
    assert np.allclose(vectors(router, texts, model), right, atol=1e-5)


@asynccontextmanager
async def opened(
    folder: Path, sandbox: Sandbox, *, env: dict[str, str] | None = None, clock: Callable[[], float] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Router, BatchTier]]:  # fmt: skip
    """A router on a folder, and its batch tier."""
    more = {} if clock is None else {"clock": clock}
    async with Router.open(folder, env=sandbox.environment if env is None else env, **more) as router:
        tier = BatchTier.of(router, **{"first_poll_s": 0.01, "grace_s": 0.0} | settings)
        try:
            yield router, tier
        finally:
            await tier.aclose()


async def finish(
    router: Router, tier: BatchTier, sandbox: Sandbox, texts: Sequence[str], job: SomeJob, *, steps: int = 60
) -> BatchProgress:
    """Step until nothing is open and nothing moves, every batch completed as soon as it is there."""
    for _ in range(steps):
        progress = await tier.step(job, misses_of(router, texts, job.model))
        if not progress.open and not progress.moved:
            return progress
        advance(router, sandbox)
    raise AssertionError(f"the job does not end: {progress}")


def advance(router: Router, sandbox: Sandbox, status: str = "completed", done: int | None = None) -> list[str]:
    """Move every submitted batch that has not ended; their ids."""
    rows = router.database.reader().execute("SELECT remote FROM batches WHERE state = 'submitted' ORDER BY id")
    moved = []
    for (remote,) in rows.fetchall():
        try:
            sandbox.advance(remote, status, done)
        except ValueError:
            continue
        moved.append(remote)
    return moved
