"""A library on a folder with a worker that does not wait, and files to fill it with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.batches.states import BatchTier
from router.domain.policy import parse_budget
from router.domain.values import Policy
from router.engine import Router
from router.jobs.worker import Worker
from router.library import Library
from router.pipeline.validate import digest
from router.sandbox import Sandbox, expected_vectors
from router.store.collections import Corpora
from router.store.models import NewChunk

SMALL = "openai/text-embedding-3-small"
LARGE = "openai/text-embedding-3-large"
FAST = {"first_poll_s": 0.01, "grace_s": 0.0}


class Clock:
    """Epoch seconds that a test turns."""

    def __init__(self, now: float = 1_795_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a test works with."""

    router: Router
    library: Library
    worker: Worker

    async def fill(self, name: str, file: Path, **options: Any) -> None:
        """A collection of one file; nothing is confirmed."""
        await self.library.create(name, **{"model": SMALL, "policy": "quality"} | options)
        await self.library.add_files(name, [file])

    async def embed(self, name: str, file: Path, **options: Any) -> int:
        """A collection of one file, with its job run as far as it goes; the job's number."""
        await self.fill(name, file, **options)
        job = await self.library.confirm(name)
        await self.worker.run_all()
        return job.id

    async def allow(self, *budgets: str, policy: str = "quality", **rules: Any) -> None:
        """Give a policy these budgets."""
        made = Policy(name=policy, goal="quality", budgets=tuple(map(parse_budget, budgets)), **rules)
        await self.router.policies.save(made, [m.id for m in self.router.catalog.models])


@asynccontextmanager
async def opened(
    folder: Path, sandbox: Sandbox | None = None, *, block: int = 50, clock: Callable[[], float] | None = None
) -> AsyncIterator[Opened]:
    """A router, its library and a worker on a data folder."""
    more = {} if clock is None else {"clock": clock}
    async with Router.open(folder, env=sandbox.environment if sandbox else {}, **more) as router:
        library = Library(router)
        worker = Worker(
            router, library.corpora, library.jobs, block=block, poll_s=0.02, tier=BatchTier.of(router, **FAST)
        )
        try:
            yield Opened(router=router, library=library, worker=worker)
        finally:
            await worker.stop()
            await library.aclose()


@contextmanager
def corpora(folder: Path) -> Iterator[Corpora]:
    """`corpora.db` in a folder."""
    store = Corpora(folder / "corpora.db", lambda: 1_000.0)
    try:
        yield store
    finally:
        store.close()


def texts(n: int, about: str = "letter") -> list[str]:
    """So many texts, each its own."""
    return [f"{about} number {i} on how to mend the things that you have in the house" for i in range(n)]


def jsonl(path: Path, rows: Sequence[str]) -> Path:
    """A file of rows with the ids `r0`, `r1`, ..."""
    lines = [json.dumps({"id": f"r{at}", "text": text}) for at, text in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def chunk(text: str, label: str = "") -> NewChunk:
    """A chunk as the ingest makes it, with sizes that are easy to add up."""
    data = text.encode()
    return NewChunk(label=label, digest=digest(text), near_empty=False, bytes=len(data), cl100k=7, tokens=5, text=text)


def vectors(router: Router, rows: Sequence[str], model: str = SMALL) -> Any:
    """Their vectors in the cache, (n, dimensions); every one must be there."""
    kinds = {number for number, kind in router.cache.keys().items() if kind.model == model}
    found = router.cache.lookup([digest(text) for text in rows])
    at = {key: row for number in kinds for key, row in found.get(number, {}).items()}
    return router.cache.fetch([at[digest(text)] for text in rows], router.catalog.get(model).dimensions)


def assert_right(router: Router, rows: Sequence[str], model: str = SMALL) -> None:
    """Every text has its own vector."""
    assert np.allclose(vectors(router, rows, model), expected_vectors(model, list(rows)), atol=1e-5)


def billed(sandbox: Sandbox) -> tuple[int, int]:
    """Texts billed, and how often the one that was billed most."""
    bill = sandbox.bill()
    return bill.texts, bill.most_often
