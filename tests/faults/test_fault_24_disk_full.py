"""Fault 24: the disk is full, under the vectors or under the books (`max_page_count` stands in for the disk).

Figures: acknowledged rows lost (0); paid calls after the disk was full (0).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.batches.states import BatchTier
from router.domain.errors import RouterError, StoreFull
from router.engine import Router
from router.jobs.worker import Worker
from router.library import Library
from router.pipeline.validate import digest
from router.sandbox import Sandbox
from router.store.database import Database
from tests.faults.ledger_oracle import audit
from tests.faults.paid_helpers import SMALL, limits, right, some_texts, wrong

CALL = 10


async def fill_up(database: Database, pages: int) -> None:
    """Leave room for so many more pages."""

    def write(conn: Any) -> None:
        (now,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {now + pages}")

    await database.write(write)


async def make_room(database: Database) -> None:
    """The disk has room again."""
    await database.write(lambda conn: conn.execute("PRAGMA max_page_count = 1000000000") and None)


async def outcome(router: Router, texts: list[str]) -> RouterError | None:
    """What a request came to."""
    try:
        await router.embed(texts, policy="quality", model=SMALL)
    except RouterError as error:
        return error
    return None


def cached(router: Router, texts: list[str]) -> list[str]:
    """Those of the texts that are in the cache."""
    found = {key for rows in router.cache.lookup([digest(t) for t in texts]).values() for key in rows}
    return [t for t in texts if digest(t) in found]


@pytest.mark.parametrize("limiters", [1, 4])
async def test_a_request_stops_paying_when_its_vectors_cannot_be_kept(
    sandbox: Sandbox, fresh: Callable[[str], Path], figure: Callable[[int, str], None], limiters: int
) -> None:
    """What was stored stays and is right; at most the calls in flight are lost, and none is sent after them."""
    folder = fresh(f"data{limiters}")
    (folder / "router.toml").write_text(limits(max_texts_per_call=CALL, max_in_flight=limiters), "utf-8")
    first, then = some_texts(30, "first"), some_texts(400, "then")
    async with Router.open(folder, env=sandbox.environment) as router:
        await router.embed(first, policy="quality", model=SMALL)
        await fill_up(router.cache.database, 60)
        result = await router.embed(then, policy="quality", model=SMALL, partial=True)
        problems = [error for error in result.problems.values() if isinstance(error, StoreFull)]
        assert problems
        assert "Make room" in problems[0].hint
        answered = [t for at, t in enumerate(then) if at not in result.problems]
        assert answered == [t for t in cached(router, then) if t in set(answered)]
        sent = sandbox.bill().texts - len(first)
        after = sent - len(cached(router, then))  # billed, and not kept
        assert after <= 2 * limiters * CALL, "calls were sent after the disk was full"
        books = audit(router.database.reader())
        assert books.held == 0
        assert sandbox.bill().nanodollars <= books.shown
        calls = len(sandbox.received())
        with pytest.raises(StoreFull):
            await router.embed(some_texts(100, "later"), policy="quality", model=SMALL)
        assert len(sandbox.received()) == calls, "a call was sent though the disk was known to be full"
        await make_room(router.cache.database)
        done = await router.embed(first + then, policy="quality", model=SMALL)
        assert wrong(done.vectors, right(SMALL, first + then)) == 0
    figure(24, f"vectors.db full, {limiters} in flight: 0 rows lost, {after} texts billed and not kept, all in flight")


async def test_full_books_let_nothing_out(
    sandbox: Sandbox, fresh: Callable[[str], Path], figure: Callable[[int, str], None]
) -> None:
    """Without room for a hold no call leaves; what was booked before is whole."""
    folder = fresh("data")
    (folder / "router.toml").write_text(limits(max_texts_per_call=CALL), "utf-8")
    async with Router.open(folder, env=sandbox.environment) as router:
        await router.embed(some_texts(20), policy="quality", model=SMALL)
        await fill_up(router.database, 0)
        before, refused = len(sandbox.received()), 0
        for number in range(40):
            error = await outcome(router, some_texts(50, f"round {number}"))
            if isinstance(error, StoreFull):
                refused += 1
                assert "Make room" in error.hint
                assert "router.db" in error.message
                seen = len(sandbox.received())
                assert isinstance(await outcome(router, some_texts(50, f"again {number}")), StoreFull)
                assert len(sandbox.received()) == seen
        assert refused > 0
        sent = len(sandbox.received()) - before
        await make_room(router.database)
        await router.embed(some_texts(20, "after"), policy="quality", model=SMALL)
        books = audit(router.database.reader())
        assert books.held == 0
        assert sandbox.bill().nanodollars <= books.shown
    figure(24, f"router.db full: {refused} requests refused, 0 calls sent by them ({sent} before it was full)")


async def test_a_job_on_a_full_disk_pauses_and_goes_on(
    sandbox: Sandbox, fresh: Callable[[str], Path], tmp_path: Path
) -> None:
    """It says what to do; when there is room again, it ends with every vector right."""
    texts = some_texts(600, "letter")
    file = tmp_path / "letters.jsonl"
    file.write_text("\n".join(json.dumps({"text": t}) for t in texts), "utf-8")
    async with Router.open(fresh("data"), env=sandbox.environment) as router:
        library = Library(router)
        worker = Worker(router, library.corpora, library.jobs, block=50, poll_s=0.02, tier=BatchTier(router))
        await library.create("letters", model=SMALL, policy="quality")
        await library.add_files("letters", [file])
        job = await library.confirm("letters")
        await fill_up(router.cache.database, 200)
        await worker.run_all()
        stopped = library.job(job.id)
        assert stopped.state == "paused"
        assert "full" in stopped.reason
        assert "Make room" in stopped.reason
        kept, billed = len(cached(router, texts)), sandbox.bill().texts
        assert billed - kept <= 50
        await worker.run_all()
        assert sandbox.bill().texts == billed
        await make_room(router.cache.database)
        await library.resume(job.id)
        await worker.run_all()
        assert library.job(job.id).state == "done"
        assert sandbox.bill().texts <= 600 + 50
        result = await router.embed(texts, policy="quality", model=SMALL)
        assert (result.counts.cache, wrong(result.vectors, right(SMALL, texts))) == (600, 0)
        await worker.stop()
        await library.aclose()


async def test_a_full_disk_under_an_upload_is_told(fresh: Callable[[str], Path], tmp_path: Path) -> None:
    """The file is not half there afterwards, and can be added again."""
    file = tmp_path / "letters.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"{t} {t * 20}"}) for t in some_texts(5_000)), "utf-8")
    async with Router.open(fresh("data"), env={}) as router:
        library = Library(router)
        await library.create("letters")
        await fill_up(library.corpora.database, 40)
        with pytest.raises(StoreFull, match=r"corpora\.db"):
            await library.add_files("letters", [file])
        assert library.info("letters").new_documents == 0
        await make_room(library.corpora.database)
        [report] = await library.add_files("letters", [file])
        assert (report.state, report.chunks) == ("added", 5_000)
        assert library.info("letters").new_documents == 1
        await library.aclose()
