"""Fault 28: backups are taken while the program writes; every one of them must balance when it is restored.

Figure: restores that balance (100 of 100).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from router.engine import Router
from router.sandbox import Sandbox
from router.store.database import connect
from router.store.ledger import LEASE_S
from tests.faults.ledger_oracle import audit, audit_folder
from tests.faults.paid_helpers import SMALL, limits, right, some_texts, wrong
from tests.waits import until

FILES = ("router.db", "vectors.db")
"""In this order: vectors are stored before they are booked, so what a backup of the books knows is in that of the
vectors."""


def back_up(folder: Path, into: Path) -> None:
    """Copy the files of a data folder that is in use, by SQLite's backup."""
    into.mkdir()
    for name in FILES:
        with closing(connect(folder / name, readonly=True)) as source, closing(blank(into / name, source)) as target:
            source.backup(target)


def blank(path: Path, like: Any) -> Any:
    """A connection of the same library to a new file."""
    return type(like)(str(path), isolation_level=None)


def booked_and_there(folder: Path) -> tuple[int, int]:
    """Texts that the books have settled, and vectors on disk."""
    with closing(connect(folder / "router.db", readonly=True)) as conn:
        (booked,) = conn.execute("SELECT coalesce(sum(texts), 0) FROM holds WHERE state = 'settled'").fetchone()
    with closing(connect(folder / "vectors.db", readonly=True)) as conn:
        (there,) = conn.execute("SELECT count(*) FROM vectors").fetchone()
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return booked, there


@pytest.mark.timeout(3_600)
async def test_every_backup_that_was_taken_while_writing_balances(
    sandbox: Sandbox,
    fresh: Callable[[str], Path],
    count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
    tmp_path: Path,
) -> None:
    """The books equal their entries, every settled text has its vector, and a start on the backup resolves the rest."""
    folder, restores = fresh("data"), count(8, 100)
    (folder / "router.toml").write_text(limits(max_texts_per_call=5, max_in_flight=4), "utf-8")
    sandbox.configure(latency_ms=2)
    held = different = written = 0
    async with Router.open(folder, env=sandbox.environment) as router:
        stop = asyncio.Event()

        async def write(limiter: int) -> None:
            nonlocal written
            number = 0
            while not stop.is_set():
                number += 1
                written += 1
                await router.embed(some_texts(40, f"writer {limiter}, {number}"), policy="quality", model=SMALL)

        writers = [asyncio.create_task(write(limiter)) for limiter in range(4)]
        last = (0, 0)
        for number in range(restores):
            into, before = tmp_path / f"backup{number}", written
            await until(lambda before=before: written > before + 1)  # type: ignore[misc]  # mypy and defaults
            await asyncio.to_thread(back_up, folder, into)
            books = await asyncio.to_thread(audit_folder, into)
            booked, there = await asyncio.to_thread(booked_and_there, into)
            assert booked <= there, "the books of a backup know a text whose vector it does not have"
            held += books.pending > 0
            different += (booked, there) != last
            last = (booked, there)
        stop.set()
        await asyncio.gather(*writers)
    assert held > 0, "no backup was taken while a call was under way"
    assert different >= restores - 1, "nothing was written meanwhile"

    async with Router.open(
        tmp_path / f"backup{restores - 1}", env=sandbox.environment, clock=lambda: time.time() + 2 * LEASE_S
    ) as router:
        assert audit(router.database.reader()).held == 0
        texts = some_texts(40, "writer 0, 1")
        result = await router.embed(texts, policy="quality", model=SMALL)
        assert wrong(result.vectors, right(SMALL, texts)) == 0
        assert result.counts.cache == 40
    figure(28, f"{restores} backups while writing, {held} with calls under way: {restores} of {restores} balance")
