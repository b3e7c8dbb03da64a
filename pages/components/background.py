"""Work that a page started: it runs on the engine's loop, so a rerun or a closed tab does not end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import wait
from typing import Any, Generic, TypeVar

import streamlit as st

from pages.components.format import md, percent
from pages.components.widgets import say_no
from router.domain.errors import RouterError
from router.domain.values import Role
from router.host import Host
from router.pipeline.results import Result

T = TypeVar("T")
Progress = Callable[..., None]


class Task(Generic[T]):
    """Something under way. Kept in the session's state; the page looks at it on every run."""

    def __init__(self, host: Host, start: Callable[[Progress], Coroutine[Any, Any, T]]) -> None:
        """`start` makes the coroutine, from a function that it may call with (done, in all, what just now)."""
        self.done = 0
        self.total = 0
        self.note = ""
        self.started = time.monotonic()
        self.ended: float | None = None
        self.future = host.submit(start(self._progress))
        self.future.add_done_callback(self._end)

    def _progress(self, done: int, total: int, note: str = "") -> None:
        self.done, self.total, self.note = done, total, note

    def _end(self, _: object) -> None:
        self.ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def result(self) -> T | None:
        """The result, once it is there; None where the router said no."""
        return None if self.error is not None else self.future.result()

    @property
    def error(self) -> RouterError | None:
        """What the router said no with, once it ended so."""
        error = self.future.exception()
        if error is None or isinstance(error, RouterError):
            return error
        raise error


class Work(Task[Result]):
    """One `embed` under way."""

    def __init__(
        self,
        host: Host,
        texts: Sequence[str],
        *,
        policy: str,
        role: Role = "document",
        model: str | None = None,
        dimensions: int | None = None,
        ids: Sequence[str] = (),
    ) -> None:
        self.texts = list(texts)
        self.options: dict[str, Any] = {"policy": policy, "role": role, "model": model, "dimensions": dimensions}
        self.ids = list(ids) or [str(n) for n in range(1, len(texts) + 1)]
        super().__init__(host, lambda progress: host.router.embed(self.texts, progress=progress, **self.options))

    def is_for(self, texts: Sequence[str], options: Mapping[str, object]) -> bool:
        """Whether this is what the page asks for now."""
        return self.texts == list(texts) and self.options == options


def wait_for(work: Task[Any], words: str, meanwhile: Callable[[], bool] = lambda: True) -> bool:
    """Show the progress until the work is done; True where there is a result. A rerun may leave at any time.

    `meanwhile` is called again and again until it says that it has shown what it has to show.
    """
    if not work.future.done():
        bar = st.progress(0.0, text=words)
        shown = meanwhile()
        while not wait([work.future], timeout=0.15).done:
            share = work.done / work.total if work.total else 0.0
            figures = f": {percent(share)}" if work.total else ""
            note = f" · {md(work.note)}" if work.note else ""
            bar.progress(min(1.0, share), text=f"{words}{figures} · {work.seconds:.0f} s{note}")
            shown = shown or meanwhile()
        bar.empty()
    if work.error is not None:
        say_no(work.error)
        return False
    return True
