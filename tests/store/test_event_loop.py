"""No SQLite call on the event loop: a slow disk must not hold up every other request of the process."""

from __future__ import annotations

import asyncio
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from router.sandbox import Sandbox
from router.store.database import Connection, Database
from tests.libraries import LARGE, SMALL, jsonl, opened, texts

ROUTER = Path(__file__).resolve().parents[2] / "router"


def coroutine_above() -> str:
    """The coroutine that the caller of the caller runs in, as `module.name`; "" where it is none of the program."""
    frame = sys._getframe(2)
    while not frame.f_code.co_flags & inspect.CO_COROUTINE and frame.f_back is not None:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    return f"{path.stem}.{frame.f_code.co_name}" if ROUTER in path.parents else ""


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Coroutines of the program that have read a database on the event loop."""
    found: set[str] = set()
    reader = Database.reader

    def watched(self: Database, **options: Any) -> Connection:
        if asyncio._get_running_loop() is not None and (name := coroutine_above()):
            found.add(name)
        return reader(self, **options)

    monkeypatch.setattr(Database, "reader", watched)
    return found


async def test_the_check_sees_a_read_on_the_loop(
    tmp_path: Path, readers: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `to_thread` that is none: then everything is read where it must not be."""

    def here(work: Any, *args: Any, **options: Any) -> asyncio.Future[Any]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(work(*args, **options))
        return done

    monkeypatch.setattr("asyncio.to_thread", here)
    async with opened(tmp_path) as program:
        await program.library.create("letters")
    assert "library.create" in readers


@pytest.mark.parametrize("route", ["api", "batch"])
async def test_databases_are_read_off_the_loop(
    tmp_path: Path, provider: Sandbox, readers: set[str], route: Any
) -> None:
    """A collection is filled, quoted, embedded, searched, embedded anew and taken away."""
    file = jsonl(tmp_path / "letters.jsonl", texts(20))
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        job = await here.library.confirm("letters", route=route)
        await here.worker.run_all()
        await here.library.pause((await here.library.retry(job.id)).id)
        await here.library.resume(job.id)
        await here.worker.run_all()
        await here.library.search("letters", "a query")
        await here.router.embed(["another"], policy="quality", model=SMALL)
        await here.library.improve("letters", LARGE, route=route)
        await here.worker.run_all()
        await here.allow("0.000000001/month")
        await here.library.add_files("letters", [jsonl(tmp_path / "more.jsonl", texts(5, "another"))])
        await here.library.confirm("letters", route=route)
        await here.worker.run_all()
        await here.library.coverage("letters")
        await here.router.cache.add_checksums()
        await here.router.alerts.check()
        await here.router.ledger.sweep()
        await here.library.erase(texts(1)[0])
        await here.library.delete_documents("letters", ["letters.jsonl"], vectors=True)
        await here.library.delete("letters", vectors=True)
    assert readers - {"sender._require_leave"} == set()  # a policy may change while threads do
