"""The one engine of a process, on an event loop of its own thread, and the bridges to it.

Streamlit runs a page's script in a thread that a rerun may kill, so no work of the engine happens there: pages and
the shell hand it over and wait (`run`), HTTP handlers await it (`arun`). Jobs run here too, unless the environment has
`ROUTER_WORKER=0`: then they wait for `python -m router jobs work`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, TypeVar

from router.engine import Router
from router.library import Library

T = TypeVar("T")


class Host:
    """A router on a loop thread of its own, with its collections and the worker that runs their jobs."""

    def __init__(self, path: Path | str | None = None, env: Mapping[str, str] | None = None) -> None:
        """Open the data folder; see `Router.open` for the errors raised."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        try:
            self.run(self._open(path, env))
        except BaseException:
            self._stop()
            raise

    async def _open(self, path: Path | str | None, env: Mapping[str, str] | None) -> None:
        async with AsyncExitStack() as opened:
            self.router: Router = await opened.enter_async_context(Router.open(path, env=env))
            self.library = await opened.enter_async_context(aclosing(Library(self.router)))
            worker = self.library.worker()
            opened.push_async_callback(worker.stop)
            if os.environ.get("ROUTER_WORKER") != "0":
                worker.start()
            self._opened = opened.pop_all()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start work on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work on the engine's loop and wait for it. Never called from that loop."""
        return self.submit(work).result()

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work on the engine's loop, awaited from another one."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Let requests end, close the data folder, stop the loop."""
        if self._loop.is_closed():
            return
        try:
            self.run(self._opened.aclose())
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_lock = threading.Lock()
_host: Host | None = None


def host(make: Callable[[], Host] = Host) -> Host:
    """The process's host, opened on first use."""
    global _host
    with _lock:
        if _host is None:
            _host = make()
            atexit.register(close)
        return _host


def close() -> None:
    """Close the process's host, if there is one; the next use opens it anew."""
    global _host
    with _lock:
        if _host is not None:
            _host.close()
            _host = None
