"""Fault 12: `insufficient_quota`, and a key that was revoked, in a request and in mid-job.

Figures: requests sent after the refusal (0); texts billed twice once the job was resumed (0).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from router.domain.errors import KeyRejected, QuotaExhausted
from router.sandbox import Fault, Sandbox
from router.store.jobs import Job
from tests.faults.ledger_oracle import audit
from tests.faults.paid_helpers import (
    PAID,
    SMALL,
    assert_books,
    every_provider,
    limits,
    open_router,
    right,
    some_texts,
    soon,
    wrong,
)
from tests.libraries import Opened, assert_right, jsonl, opened, texts
from tests.waits import until

Kind = Literal["quota", "key_revoked"]
kinds = pytest.mark.parametrize("kind", ["quota", "key_revoked"])
ERRORS = {"quota": QuotaExhausted, "key_revoked": KeyRejected}
WHAT_TO_DO = {"quota": "Add credit to the account at", "key_revoked": "Check the key of"}


@kinds
@every_provider
async def test_one_request_and_no_more(
    sandbox: Sandbox, tmp_path: Path, name: str, kind: Kind, figure: Callable[[int, str], None]
) -> None:
    """It is sent once, its hold is released, and the message says whose account or key, and what to do."""
    sandbox.faults.add(Fault(kind, times=None))
    async with open_router(tmp_path, sandbox) as router:
        for partial in (False, True):
            before = sandbox.bill().requests
            with soon():
                if partial:
                    result = await router.embed(["a text"], model=PAID[name], policy="quality", partial=True)
                    error = result.problems[0]
                else:
                    with pytest.raises(ERRORS[kind]) as raised:
                        await router.embed(["a text"], model=PAID[name], policy="quality")
                    error = raised.value
            assert isinstance(error, ERRORS[kind])
            assert f"{WHAT_TO_DO[kind]} {name}" in error.hint
            assert sandbox.bill().requests - before == 1
        books = assert_books(router, sandbox)
        assert (books.shown, router.cache.size()[0]) == (0, 0)
        figure(12, f"{name} {kind}: {sandbox.bill().requests - 2} retries in 2 tries")


@kinds
@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
async def test_of_many_calls_only_those_under_way_are_refused(
    sandbox: Sandbox, tmp_path: Path, kind: Kind, partial: bool
) -> None:
    """The first refusal stops the others of the request: they would all be refused."""
    sandbox.configure(latency_ms=20)
    sandbox.faults.add(Fault(kind, times=None, skip=4))
    texts = some_texts(40)
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=2)) as router:
        if partial:
            result = await router.embed(texts, model=SMALL, policy="quality", partial=True)
            assert len(result.problems) == 36
            assert {type(e) for e in result.problems.values()} == {ERRORS[kind]}
            answered = [i for i in range(40) if i not in result.problems]
            assert wrong(result.vectors[answered], right(SMALL, [texts[i] for i in answered])) == 0
        else:
            with pytest.raises(ERRORS[kind], match="36 of 40 texts"):
                await router.embed(texts, model=SMALL, policy="quality")
        assert sandbox.bill().requests <= 4 + 2
        books = assert_books(router, sandbox)
        assert books.settled == sandbox.bill().nanodollars
        assert books.unconfirmed == 0

        sandbox.faults.clear()
        await router.embed(texts, model=SMALL, policy="quality")
        assert sandbox.bill().most_often == 1  # what was paid for before the refusal was kept
        assert_books(router, sandbox)


async def test_a_new_key_is_taken_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Once the key is right, the same process goes on."""
    sandbox.configure(key="the-new-key")
    async with open_router(tmp_path, sandbox, OPENAI_API_KEY="the-old-key") as router:
        with pytest.raises(KeyRejected):
            await router.embed(["a text"], model=SMALL, policy="quality")
        router.set_key("openai", "the-new-key")
        result = await router.embed(["a text"], model=SMALL, policy="quality")
        assert wrong(result.vectors, right(SMALL, ["a text"])) == 0
        assert assert_books(router, sandbox).settled == sandbox.bill().nanodollars


async def filled(here: Opened, tmp_path: Path, route: Literal["api", "batch"]) -> Job:
    """A job of 230 texts that is still to run."""
    await here.fill("letters", jsonl(tmp_path / "letters.jsonl", texts(230)))
    return await here.library.confirm("letters", route=route)


@kinds
@pytest.mark.parametrize(
    ("route", "on", "skip"), [("api", "embeddings", 2), ("batch", "POST /files", 0), ("batch", "POST /batches", 0)]
)
async def test_a_job_pauses_and_goes_on_once_it_is_mended(
    sandbox: Sandbox, tmp_path: Path, kind: Kind, route: Literal["api", "batch"], on: str, skip: int,
    figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """Refused once, it rests with the reason and sends nothing until it is resumed; then each text is billed once."""
    sandbox.configure(batch_seconds=0.05)
    sandbox.faults.add(Fault(kind, on=on, skip=skip, times=None))
    async with opened(tmp_path / "data", sandbox) as here:
        job = await filled(here, tmp_path, route)

        async def refused() -> int:
            await here.worker.run_all()
            now = here.library.job(job.id)
            assert (now.state, now.done) == ("paused", 50 * skip)
            assert f"{WHAT_TO_DO[kind]} openai" in now.reason
            assert audit(here.router.database.reader()).pending == 0
            return sum(entry.fault == kind for entry in sandbox.received())

        sent = await refused()
        assert (sent, await refused()) == (1, 1)
        await here.library.resume(job.id)  # too early: one more request, and it rests again
        assert await refused() == 2
        sandbox.faults.clear()
        await here.library.resume(job.id)
        await here.worker.run_all()
        now = here.library.job(job.id)
        assert (now.state, now.done, now.reason) == ("done", 230, "")
        assert_right(here.router, texts(230))
        bill = sandbox.bill()
        assert (bill.texts, bill.most_often, now.spent) == (230, 1, bill.nanodollars)
        books = audit(here.router.database.reader())
        assert (books.settled, books.unconfirmed, books.held) == (bill.nanodollars, 0, 0)
        figure(12, f"{kind} in a job by {route}, at {on}: {sent - 1} retries, 0 texts billed twice after it went on")


async def test_a_key_that_is_revoked_while_a_batch_is_under_way(sandbox: Sandbox, tmp_path: Path) -> None:
    """The money stays held and the batch is not made again; with the new key its results are fetched."""
    sandbox.configure(batch_seconds=1e9)
    async with opened(tmp_path / "data", sandbox) as here:
        job = await filled(here, tmp_path, "batch")
        here.worker.start()
        await until(lambda: any(entry.operation.startswith("GET /batches/") for entry in sandbox.received()))
        sandbox.configure(key="the-new-key", batch_seconds=0)
        await until(lambda: here.library.job(job.id).state == "paused")
        assert "Check the key of openai" in here.library.job(job.id).reason
        assert audit(here.router.database.reader()).held > 0
        here.router.set_key("openai", "the-new-key")
        await here.library.resume(job.id)
        await until(lambda: here.library.job(job.id).state == "done")
        assert sum(entry.operation == "POST /batches" for entry in sandbox.received()) == 1
        assert audit(here.router.database.reader()).settled == sandbox.bill().nanodollars > 0
        assert sandbox.bill().most_often == 1
