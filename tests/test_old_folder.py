"""A data folder that the version before expected costs, checksums and prefixes wrote is opened, and nothing is lost.

`data/old/folder.tar.gz` was made by the commit d046880 on its own sandbox: three providers' vectors of both roles, a
collection that is done, one whose batch is under way, an unconfirmed charge. `told.json` is what that commit said.
"""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.cli.spend import spent_as_json, sum_up
from router.sandbox import Sandbox, expected_vectors
from tests.faults.ledger_oracle import audit
from tests.libraries import Opened, opened, texts
from tests.waits import until

OLD = Path(__file__).parent / "data" / "old"
NOW = 1_795_600_000.0
"""When the folder was written, 25 November 2026."""
MODELS = ("voyage/voyage-4-lite", "cohere/embed-v4.0", "openai/text-embedding-3-small")


@pytest.fixture
def told() -> dict[str, Any]:
    """What the old version said of the folder."""
    found: dict[str, Any] = json.loads((OLD / "told.json").read_text("utf-8"))
    return found


@asynccontextmanager
async def old_folder(folder: Path, sandbox: Sandbox) -> AsyncIterator[Opened]:
    """A copy of the folder, opened at the time at which it was written."""
    with tarfile.open(OLD / "folder.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    async with opened(folder, sandbox, clock=lambda: NOW) as here:
        yield here


async def test_every_figure_collection_and_job_is_as_it_was(
    sandbox: Sandbox, tmp_path: Path, told: dict[str, Any]
) -> None:
    """Each field that the old version had of spending says the same, by whatever it is grouped."""
    async with old_folder(tmp_path, sandbox) as here:
        since, until = datetime(2026, 11, 1, tzinfo=UTC), datetime.fromtimestamp(NOW, UTC)
        for by, was in told["spend"].items():
            now = spent_as_json(sum_up(here.router, since, until, by, "UTC"), by, "UTC")
            rows = [row for row in now["rows"] if row.get("requests")]
            assert {key: now[key] for key in was if key != "rows"} == {k: v for k, v in was.items() if k != "rows"}
            assert [{key: new[key] for key in old} for old, new in zip(was["rows"], rows, strict=True)] == was["rows"]
        jobs = here.library.jobs.all(limit=10)
        assert told["jobs"] == [
            [j.id, j.collection, j.state, j.total, j.done, j.failed, j.spent, j.route, j.model, j.policy] for j in jobs
        ]
        assert told["collections"] == [
            [
                c.collection.name, c.documents, c.chunks,
                [g.space for g in c.generations], [g.dimensions for g in c.generations],
            ]
            for c in here.library.collections()
        ]  # fmt: skip
        books = audit(here.router.database.reader())
        assert [books.settled, books.unconfirmed, books.held] == told["books"]


async def test_nothing_that_was_cached_is_paid_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """Vectors without a checksum are served, each its own, as are a collection's; the batch's money stays held."""
    async with old_folder(tmp_path, sandbox) as here:
        for model in MODELS:
            for role in ("document", "query"):
                asked = [f"an old {role}, as it was"]
                result = await here.router.embed(asked, model=model, policy="quality", role=role)
                assert (result.routes, result.cost) == (("cache",), 0)
                assert np.allclose(result.vectors, expected_vectors(model, asked, role=role), atol=1e-6)
        result = await here.router.embed(texts(2), model=MODELS[2], policy="quality")
        assert set(result.routes) == {"cache"}
        work = asyncio.ensure_future(here.worker.run_all())
        await until(lambda: here.library.job(2).state == "paused")  # this sandbox never heard of its batch
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert "does not know the batch" in here.library.job(2).reason
        assert audit(here.router.database.reader()).held > 0
        assert sandbox.bill().nanodollars == 0
