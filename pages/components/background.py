"""Tasks that a page starts. They run on the engine's loop, so a rerun or a closed tab does not end them."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import wait
from typing import Any, Generic, TypeVar, cast

import streamlit as st

from pages.components.format import md, percent
from pages.components.widgets import show_error
from router.domain.errors import RouterError
from router.host import Host
from router.pipeline.results import Result

T = TypeVar("T")
Progress = Callable[..., None]


class Task(Generic[T]):
    """A task in progress. The page keeps it in the session's state and looks at it on every run."""

    def __init__(self, host: Host, start: Callable[[Progress], Coroutine[Any, Any, T]]) -> None:
        """`start` makes the coroutine; it is given a function to report progress with: (done, total, note)."""
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
        """Its duration, so far or in all."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def result(self) -> T | None:
        """Its result; None where it ended in an error of the router. Waits until it has ended."""
        return None if self.error is not None else self.future.result()

    @property
    def error(self) -> RouterError | None:
        """The error of the router that it ended in, if any; any other exception is raised."""
        error = self.future.exception()
        if error is None or isinstance(error, RouterError):
            return error
        raise error


class Embedding(Task[Result]):
    """One `Router.embed` in progress."""

    def __init__(self, host: Host, texts: Sequence[str], *, ids: Sequence[str] = (), **options: Any) -> None:
        """`options` are arguments of `Router.embed`; the ids are 1, 2, ... without any."""
        self.texts = list(texts)
        self.options = options
        self.ids = list(ids) or [str(n) for n in range(1, len(texts) + 1)]
        super().__init__(host, lambda progress: host.router.embed(self.texts, progress=progress, **self.options))

    def is_for(self, texts: Sequence[str], options: Mapping[str, object]) -> bool:
        """Whether it embeds these texts with these options."""
        return self.texts == list(texts) and self.options == options


def wait_for(task: Task[T] | None, words: str, meanwhile: Callable[[], bool] = lambda: True) -> T | None:
    """Show the progress until the task has ended, then its error, if any. Its result; None without one.

    `meanwhile` is called again and again until it returns True. A rerun of the page may leave at any time.
    """
    if task is None:
        return None
    if not task.future.done():
        bar = st.progress(0.0, text=words)
        shown = meanwhile()
        while not wait([task.future], timeout=0.15).done:
            share = task.done / task.total if task.total else 0.0
            figures = f": {percent(share)}" if task.total else ""
            note = f" · {md(task.note)}" if task.note else ""
            bar.progress(min(1.0, share), text=f"{words}{figures} · {task.seconds:.0f} s{note}")
            shown = shown or meanwhile()
        bar.empty()
    if task.error is not None:
        show_error(task.error)
    return task.result


def kept(name: str, of: object, make: Callable[[], T]) -> T:
    """What `make` returned: kept in the session's state as `name`, unless None, and made anew when `of` has changed."""
    before, made = st.session_state.get(name, (None, None))
    if made is None or before != of:
        made = make()
        st.session_state[name] = (of, made)
    return cast("T", made)
