"""Children that die by SIGKILL while a job goes through the batch tier, with the recovery that follows it; and while
an old data folder is opened.

The product has no hooks: they are put in here.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import router.batches.states as tier_module
import router.store.database as database_module
from router.batches.texts import BatchLimits
from router.providers.batch import BatchClient
from router.sandbox import Sandbox
from router.store.batches import BatchStore
from router.store.database import Database
from router.store.vectors import Cache
from tests.batches.batches import SomeJob, assert_right, misses_of, opened, stored
from tests.faults.ledger_oracle import audit, audit_folder

SUBMIT = ("intended", "written", "uploading", "uploaded", "noting", "noted", "creating", "created", "submitted")
DOWNLOAD = ("retrieved", "downloading", "downloaded", "storing", "stored", "settling", "settled", "tidied")
LINES = 6
GRACE_S = 0.25


class Ended(Exception):
    """The child came through without dying."""


def killed_batch(*, folder: str, env: dict[str, str], texts: list[str], moment: str, nth: int) -> None:
    """Take a job through the batch tier, and die at the nth such moment."""
    left = [nth]

    def come(which: str) -> None:
        if which == moment:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    _hook(come)

    async def work() -> None:
        from router.engine import Router

        async with Router.open(folder, env=env) as router:
            tier = tier_module.BatchTier.of(
                router, first_poll_s=0.001, grace_s=GRACE_S, limits=BatchLimits(lines=LINES)
            )
            for _ in range(50):
                await tier.step(SomeJob(), misses_of(router, texts))
        raise Ended

    asyncio.run(work())


def _hook(come: Callable[[str], None]) -> None:
    """Wrap the steps of a batch, so that each tells `come` where it is."""

    def after(owner: Any, name: str, moment: str | Callable[..., str], during: str = "") -> None:
        plain = getattr(owner, name)

        async def wrapped(*args: Any, **details: Any) -> Any:
            if during:
                task = asyncio.ensure_future(plain(*args, **details))
                await asyncio.sleep(random.choice([0, 0.001, 0.002]))  # sent, or on its way there
                come(during)
                result = await task
            else:
                result = await plain(*args, **details)
            come(moment if isinstance(moment, str) else moment(*args))
            return result

        setattr(owner, name, wrapped)

    after(BatchStore, "intend", "intended")
    after(BatchClient, "upload", "uploaded", "uploading")
    after(BatchStore, "move", lambda self, row, to, remote: {"uploaded": "noted", "submitted": "submitted"}[to])
    after(BatchClient, "create", "created", "creating")
    after(BatchClient, "retrieve", "retrieved")
    after(BatchClient, "download", "downloaded", "downloading")
    after(Cache, "store", "stored")
    after(BatchStore, "settle", "settled")
    after(BatchClient, "delete", "tidied")

    write, submit = tier_module.write_file, Database.submit

    def write_(*args: Any) -> None:
        write(*args)
        come("written")

    def submit_(self: Database, fn: Callable[..., Any], **details: Any) -> Any:
        moments = {"Cache.store": "storing", "BatchStore.settle": "settling", "BatchStore.move": "noting"}
        moment = moments.get(fn.__qualname__.split(".<locals>")[0], "")

        def then_come(conn: Any) -> Any:
            result = fn(conn)
            come(moment)  # written, and not yet committed
            return result

        return submit(self, then_come if moment else fn, **details)

    tier_module.write_file = write_  # type: ignore[assignment]  # this process is about to die
    Database.submit = submit_  # type: ignore[method-assign]  # the same


def killed_opening(*, folder: str, now: float, after: int) -> None:
    """Open a data folder at a time, and die once SQLite has worked so long at `router.db`, in ticks."""
    left = iter(range(after))
    on_ticks(lambda: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))

    async def work() -> None:
        from router.engine import Router

        async with Router.open(folder, env={}, clock=lambda: now):
            pass

    asyncio.run(work())


def on_ticks(tick: Callable[[], object]) -> None:
    """Call `tick` at every tenth step of SQLite's machine, in all connections to `router.db` from now on."""
    plain = database_module.connect

    def connect(path: Path, **details: Any) -> Any:
        conn = plain(path, **details)
        if path.name == "router.db":
            conn.set_progress_handler(lambda: tick() and None, 10)
        return conn

    database_module.connect = connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a killed job came to, once another program had finished it."""

    batches: int
    needed: int
    billed_again: int
    open_when_killed: int


async def recover(folder: Path, sandbox: Sandbox, texts: list[str]) -> Recovery:
    """Finish the job in a program of its own; check the ledger, the vectors and the provider's bill."""
    before = audit_folder(folder)
    async with opened(folder, sandbox, grace_s=GRACE_S, limits=BatchLimits(lines=LINES)) as (router, tier):
        conn = router.database.reader()
        charges = conn.execute("SELECT id, amount FROM charges").fetchall()
        kept = stored(router, texts)
        end = time.monotonic() + 120
        while True:
            assert time.monotonic() < end, "the job does not end"
            progress = await tier.step(SomeJob(), misses_of(router, texts))
            assert progress.error is None, progress.reason
            if not progress.open and not progress.moved:
                break
            if not progress.moved:
                await asyncio.sleep(0.01)  # a batch whose fate is unknown may yet show in the provider's list
        assert kept <= stored(router, texts), "an acknowledged vector is lost"
        assert_right(router, texts)
        sums, bill = audit(conn), sandbox.bill()
        assert (sums.held, sums.pending) == (0, 0), "a hold leaked"
        assert conn.execute("SELECT count(*) FROM claims").fetchone() == (0,), "a claim leaked"
        assert bill.nanodollars <= sums.shown, "the provider billed more than the ledger shows"
        for charge in charges:
            assert conn.execute("SELECT id, amount FROM charges WHERE id = ?", charge[:1]).fetchone() == charge
        assert progress.spent == sums.shown
        assert list((folder / "batches").iterdir()) == [], "a file was left behind"
    again = sum(times - 1 for times in bill.digests.values())
    return Recovery(
        batches=len(sandbox._batches.batches),
        needed=-(-len(texts) // LINES),
        billed_again=again,
        open_when_killed=before.pending,
    )
