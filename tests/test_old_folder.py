"""Data folders that older versions wrote are opened, and nothing is lost, wherever the migration is killed.

Each was made by its commit on that commit's own sandbox, and `told` is what that commit said of it:

- `folder`, d046880 (before expected costs, checksums and prefixes): three providers' vectors of both roles, a
  collection that is done, one whose batch is under way, an unconfirmed charge;
- `folder2`, 48ab391 (a batch's texts packed in a column): the same, a policy, a batch that was withdrawn, and three
  that were settled, of which two have texts that failed.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import router.store.database as database_module
from router.cli.spend import spent_as_json, sum_up
from router.domain.policy import to_dict
from router.pipeline.validate import digest
from router.providers.batch import BatchClient, request_line, shared_params
from router.sandbox import Sandbox, expected_vectors
from router.store.batches import BatchStore
from router.store.database import open_readonly
from router.store.migrations import NAMES
from tests.faults.batch_kills import on_ticks
from tests.faults.ledger_oracle import audit
from tests.faults.racers import Racer
from tests.libraries import Opened, assert_right, opened, texts
from tests.waits import until

OLD = Path(__file__).parent / "data" / "old"
NOW = 1_795_600_000.0
"""When the folders were written, 25 November 2026."""
MODELS = ("voyage/voyage-4-lite", "cohere/embed-v4.0", "openai/text-embedding-3-small")


@dataclass(frozen=True, slots=True, kw_only=True)
class OldFolder:
    """A folder of an older version, packed, and what that version said of it."""

    packed: Path
    told: dict[str, Any]

    def unpack(self, folder: Path) -> Path:
        """A copy of it."""
        with tarfile.open(self.packed) as packed:
            packed.extractall(folder, filter="data")
        return folder


def read(number: str) -> OldFolder:
    """The folder of this number; the first has none."""
    told = json.loads((OLD / f"told{number}.json").read_text("utf-8"))
    return OldFolder(packed=OLD / f"folder{number}.tar.gz", told=told)


@pytest.fixture(params=["", "2"], ids=["d046880", "48ab391"])
def old(request: pytest.FixtureRequest) -> OldFolder:
    """Each of the folders."""
    return read(request.param)


@asynccontextmanager
async def reopened(folder: Path, sandbox: Sandbox) -> AsyncIterator[Opened]:
    """A folder, opened at the time at which it was written."""
    async with opened(folder, sandbox, clock=lambda: NOW) as here:
        yield here


def assert_as_told(here: Opened, told: dict[str, Any]) -> None:
    """Each field that the old version had of spending says the same, by whatever it is grouped; and all else does."""
    since, until = datetime(2026, 11, 1, tzinfo=UTC), datetime.fromtimestamp(NOW, UTC)
    for by, was in told["spend"].items():
        now = spent_as_json(sum_up(here.router, since, until, by, "UTC"), by, "UTC")
        known = {row[by] for row in was["rows"]}  # later versions list what had no request as well
        rows = [row for row in now["rows"] if row[by] in known]
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
    sums = audit(here.router.database.reader())
    assert [sums.settled, sums.unconfirmed, sums.held] == told["ledger"]
    if "batches" not in told:
        return
    assert {policy.name: to_dict(policy) for policy in here.router.policies.all()} == told["policies"]
    store = BatchStore(here.router.database, here.router.ledger, lambda: NOW)
    by_batch = []
    for job in [job for job in jobs if job.route == "batch"]:
        assert {d.hex(): why for d, why in store.failures(job.id).items()} == told["failures"][job.collection]
        assert {d.hex(): tries for d, tries in store.tries(job.id).items()} == told["tries"][job.collection]
        for batch in store.of_job(job.id):
            rows = [[text.digest.hex(), text.tokens, text.state] for text in store.texts(batch)]
            by_batch.append([batch.id, batch.state, batch.texts, batch.tokens, batch.remote, batch.reason, rows])
    # The texts of what was never submitted are not kept any more.
    assert sorted(by_batch) == [[*was[:-1], [] if was[1] == "withdrawn" else was[-1]] for was in told["batches"]]


async def test_every_figure_collection_job_and_batch_is_as_it_was(
    sandbox: Sandbox, tmp_path: Path, old: OldFolder
) -> None:
    """At the first opening, which migrates, and at the second."""
    folder = old.unpack(tmp_path)
    for _ in range(2):
        async with reopened(folder, sandbox) as here:
            assert_as_told(here, old.told)


async def test_nothing_that_was_cached_is_paid_again(sandbox: Sandbox, tmp_path: Path, old: OldFolder) -> None:
    """Vectors without a checksum are served, each its own, as are a collection's; the batch's money stays held."""
    async with reopened(old.unpack(tmp_path), sandbox) as here:
        for model in MODELS:
            for role in ("document", "query"):
                asked = [f"an old {role}, as it was"]
                result = await here.router.embed(asked, model=model, policy="quality", role=role)
                assert (result.routes, result.cost) == (("cache",), 0)
                assert np.allclose(result.vectors, expected_vectors(model, asked, role=role), atol=1e-6)
        result = await here.router.embed(texts(2), model=MODELS[2], policy="quality")
        assert set(result.routes) == {"cache"}
        number = old.told["jobs"][0][0]
        work = asyncio.ensure_future(here.worker.run_all())
        await until(lambda: here.library.job(number).state == "paused")  # this sandbox never heard of its batch
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert "does not know the batch" in here.library.job(number).reason
        assert audit(here.router.database.reader()).held > 0
        assert sandbox.bill().nanodollars == 0


async def test_an_open_batch_is_collected(sandbox: Sandbox, tmp_path: Path) -> None:
    """The provider has it, done: its texts are stored and charged, each its own, and none is sent again."""
    sandbox.configure(batch_seconds=0)
    old, telegrams = read("2"), texts(3, "telegram")
    async with reopened(old.unpack(tmp_path / "data"), sandbox) as here:
        number, *_, name, _ = old.told["jobs"][0]
        (batch,) = BatchStore(here.router.database, here.router.ledger, lambda: NOW).of_job(number, "submitted")
        model, endpoint = here.router.catalog.get(name), here.router.settings.endpoints["openai"]
        (tmp_path / "lines").write_bytes(
            b"".join(request_line(endpoint, model, digest(text).hex(), text) for text in telegrams)
        )
        client = BatchClient(endpoint)
        await client.create(
            await client.upload(tmp_path / "lines"), batch.key, shared_params(endpoint, model, "document")
        )
        await client.aclose()
        await here.worker.run_all()
        job = here.library.job(number)
        assert (job.state, job.done, job.failed, job.spent) == ("done", 3, 0, sandbox.bill().nanodollars)
        assert_right(here.router, telegrams)
        assert sandbox.bill().most_often == 1
        sums = audit(here.router.database.reader())
        assert [sums.settled, sums.unconfirmed, sums.held] == [
            old.told["ledger"][0] + sandbox.bill().nanodollars, old.told["ledger"][1], 0
        ]  # fmt: skip


async def test_an_erased_text_leaves_no_digest_in_a_migrated_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither in the table nor in the pages that the packed column had; the reason why it failed is gone with it."""
    text = "a bad text that no provider will ever embed for anybody"
    folder = read("2").unpack(tmp_path)
    assert digest(text) in (folder / "router.db").read_bytes()
    async with reopened(folder, sandbox) as here:
        await here.library.erase(text)
        assert digest(text) not in b"".join(path.read_bytes() for path in folder.glob("router.db*"))
        store = BatchStore(here.router.database, here.router.ledger, lambda: NOW)
        assert len(store.failures(2)) == 1


@pytest.fixture
def forks() -> Iterator[Racer]:
    """The program that forks the children that die."""
    with Racer(None) as racer:
        yield racer


async def test_a_migration_that_is_killed_is_made_good(
    forks: Racer, sandbox: Sandbox, tmp_path: Path, old: OldFolder, count: Callable[[int, int], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """SIGKILL at a random point of the opening, again and again: all of the migration is there, or nothing of it."""
    ticks = []
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "connect", database_module.connect)  # put back what `on_ticks` puts in its place
        on_ticks(lambda: ticks.append(1))
        async with reopened(old.unpack(tmp_path / "whole"), sandbox):
            steps = len(ticks)
    kills, undone, folder = count(3, 20), 0, tmp_path / "killed"
    before = applied(old.unpack(folder))
    draw = random.Random(old.packed.name)
    for _ in range(kills):
        if applied(folder) == NAMES:
            old.unpack(folder)
            for log in folder.glob("*.db-*"):
                log.unlink()
        after = draw.randrange(steps)
        assert forks.ask("killed_opening", folder=str(folder), now=NOW, after=after) == signal.SIGKILL
        assert applied(folder) in (before, NAMES)
        undone += applied(folder) == before
    assert undone > 0
    async with reopened(folder, sandbox) as here:
        assert_as_told(here, old.told)


def applied(folder: Path) -> list[str]:
    """The migrations that a folder's `router.db` has seen, committed."""
    conn = open_readonly(folder / "router.db")
    try:
        return [name for (name,) in conn.execute("SELECT name FROM _sqlite_migrations ORDER BY rowid")]
    finally:
        conn.close()
