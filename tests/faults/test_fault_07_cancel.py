"""Fault 7: the caller cancels, the client disconnects, the page reruns. Figures: holds that leak (0), calls that are
sent after the caller has gone (0), vectors paid for and lost (0)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from router.host import Host
from router.sandbox import Fault, Sandbox
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
from tests.waits import noted, until

WIDTH = 2
files = pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])


@every_provider
async def test_a_call_that_has_left_is_booked_and_kept(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    """Nobody waits for it any more; it is settled and stored all the same, and the next who asks pays nothing."""
    sandbox.faults.add(Fault("hang"))
    async with open_router(tmp_path, sandbox) as router:
        task = asyncio.create_task(router.embed(["a text"], model=PAID[name], policy="quality"))
        await until(lambda: sandbox.bill().calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        sandbox.release()
        await until(lambda: router.ledger.totals()[2] == 0 and router.ledger.totals()[0] > 0)
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (sandbox.bill().nanodollars, 0)
        again = await router.embed(["a text"], model=PAID[name], policy="quality")
        assert (again.cost, again.counts.cache, sandbox.bill().calls) == (0, 1, 1)
        assert wrong(again.vectors, right(PAID[name], ["a text"])) == 0


@files
async def test_calls_that_have_not_left_are_not_sent(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None],
    partial: bool,
) -> None:  # fmt: skip
    """Whenever the caller goes: what is under way settles, nothing leaves after it, no hold stays."""
    trials, late, lost = count(8, 100), 0, 0
    sandbox.configure(latency_ms=10)
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=WIDTH)) as router:
        for trial in range(trials):
            sandbox.reset()
            texts = some_texts(12, f"trial {trial}")
            before = router.ledger.totals()
            task = asyncio.create_task(router.embed(texts, model=SMALL, policy="quality", partial=partial))
            await until(lambda trial=trial: len(sandbox.received()) >= trial % 10)
            await asyncio.sleep(trial % 7 / 1_000)
            task.cancel()
            gone = len(sandbox.received())
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not router._tasks - {router._beat})
            late += max(0, len(sandbox.received()) - gone - WIDTH)
            settled, unconfirmed, held = router.ledger.totals()
            assert (settled - before[0], unconfirmed, held) == (sandbox.bill().nanodollars, 0, 0)
            paid = sandbox.bill().texts
            again = await router.embed(texts, model=SMALL, policy="quality")
            lost += paid - again.counts.cache
            assert sandbox.bill().most_often == 1
            assert wrong(again.vectors, right(SMALL, texts)) == 0
        sandbox.reset()
        assert_books(router, sandbox)
    assert (late, lost) == (0, 0)
    figure(7, f"{trials} cancelled {'files' if partial else 'requests'} of 12 calls: 0 holds leaked, {late} calls sent"
           f" after it, {lost} paid vectors lost")  # fmt: skip


@files
async def test_a_caller_that_goes_during_a_long_pause_holds_nothing_up(
    sandbox: Sandbox, tmp_path: Path, partial: bool
) -> None:
    """A Retry-After of minutes is not sat out for nobody: the holds are released and the program can end."""
    sandbox.faults.add(Fault("rate_limited", times=None, retry_after=300))
    texts = some_texts(6)
    with soon():
        async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=WIDTH)) as router:
            task = asyncio.create_task(router.embed(texts, model=SMALL, policy="quality", partial=partial))
            await until(lambda: router.limiters["openai"].health().last_error)  # it has been told, and waits
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not router._tasks - {router._beat})
            assert assert_books(router, sandbox).shown == 0
    assert sandbox.bill().requests <= WIDTH


@files
async def test_a_caller_that_goes_while_the_rate_is_waited_for(sandbox: Sandbox, tmp_path: Path, partial: bool) -> None:
    """Calls that stand in line for a rate limit of ours leave the line."""
    texts = some_texts(20)
    toml = limits(max_texts_per_call=1, requests_per_minute=6)
    with soon():
        async with open_router(tmp_path, sandbox, toml) as router:
            task = asyncio.create_task(router.embed(texts, model=SMALL, policy="quality", partial=partial))
            in_line = "SELECT count(*) >= 4 FROM holds WHERE sent = 1"  # marked before they stand in line
            await until(lambda: router.database.reader().execute(in_line).fetchone()[0])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not router._tasks - {router._beat})
            assert assert_books(router, sandbox).held == 0
    assert sandbox.bill().requests <= 1


async def test_who_waits_for_anothers_text_gets_it_though_the_payer_has_gone(sandbox: Sandbox, tmp_path: Path) -> None:
    """Two ask for the same text; the one that pays is cancelled; the other is answered, and it is paid once."""
    sandbox.faults.add(Fault("hang"))
    async with open_router(tmp_path, sandbox) as router:
        payer = asyncio.create_task(router.embed(["a text"], model=SMALL, policy="quality"))
        await until(lambda: sandbox.bill().calls)
        looks = noted(router.ledger, "busy")
        other = asyncio.create_task(router.embed(["a text"], model=SMALL, policy="quality"))
        await until(lambda: len(looks) > 1)  # it waits
        payer.cancel()
        sandbox.release()
        result = await other
        assert wrong(result.vectors, right(SMALL, ["a text"])) == 0
        assert (result.cost, sandbox.bill().calls) == (0, 1)
        assert assert_books(router, sandbox).settled == sandbox.bill().nanodollars


async def test_who_waits_takes_over_what_the_gone_one_never_sent(sandbox: Sandbox, tmp_path: Path) -> None:
    """The payer is cancelled before its second call leaves; who waits for that text pays for it then."""
    sandbox.faults.add(Fault("hang", match="first"))
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=1)) as router:
        payer = asyncio.create_task(router.embed(["first", "second"], model=SMALL, policy="quality"))
        await until(lambda: sandbox.bill().calls)
        looks = noted(router.ledger, "busy")
        other = asyncio.create_task(router.embed(["second"], model=SMALL, policy="quality"))
        await until(lambda: len(looks) > 1)  # it waits
        payer.cancel()
        await asyncio.sleep(0)  # it learns of that before the answer to its first call makes way for the second
        sandbox.release()
        result = await other
        assert wrong(result.vectors, right(SMALL, ["second"])) == 0
        assert result.cost > 0
        assert (sandbox.bill().texts, sandbox.bill().most_often) == (2, 1)
        assert assert_books(router, sandbox).settled == sandbox.bill().nanodollars


def test_a_page_that_reruns_loses_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """A page hands its work to the engine's thread and is gone: the future is cancelled, the call settles."""
    sandbox.faults.add(Fault("hang"))
    host = Host(tmp_path, env=sandbox.environment)
    try:
        future = host.submit(host.router.embed(["a text"], model=SMALL, policy="quality"))
        asyncio.run(until(lambda: sandbox.bill().calls))
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        sandbox.release()
    finally:
        host.close()  # lets what is under way end
    books = assert_books(tmp_path, sandbox)
    assert (books.settled, books.unconfirmed) == (sandbox.bill().nanodollars, 0)
    assert books.settled > 0


async def test_closing_lets_a_call_end(sandbox: Sandbox, tmp_path: Path) -> None:
    """A program that ends while a call is under way waits for it, and books it."""
    sandbox.faults.add(Fault("hang"))
    async with open_router(tmp_path, sandbox) as router:
        task = asyncio.create_task(router.embed(["a text"], model=SMALL, policy="quality"))
        await until(lambda: sandbox.bill().calls)
        closing = noted(router, "close")

        async def release() -> None:
            await until(lambda: closing)
            sandbox.release()

        released = asyncio.create_task(release())
    await released
    assert (await task).cost == sandbox.bill().nanodollars
    assert assert_books(tmp_path, sandbox).settled == sandbox.bill().nanodollars
