"""Embedding that a page started: it runs on the engine's loop, so a rerun or a closed tab does not end it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait

import streamlit as st

from pages.components.draw import say_no
from router.domain.errors import RouterError
from router.domain.values import Role
from router.host import Host
from router.request.results import Result


class Work:
    """One `embed` under way. Kept in the session's state; the page looks at it on every run."""

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
        self.options = {"policy": policy, "role": role, "model": model, "dimensions": dimensions}
        self.ids = list(ids) or [str(n) for n in range(1, len(texts) + 1)]
        self.done = 0
        self.total = 0
        self.started = time.monotonic()
        self.ended: float | None = None
        self.future = host.submit(
            host.router.embed(
                self.texts,
                policy=policy,
                role=role,
                model=model,
                dimensions=dimensions,
                progress=self._progress,
            )
        )
        self.future.add_done_callback(self._end)

    def _progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def _end(self, _: object) -> None:
        self.ended = time.monotonic()

    def is_for(self, texts: Sequence[str], options: Mapping[str, object]) -> bool:
        """Whether this is what the page asks for now."""
        return self.texts == list(texts) and self.options == options

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def result(self) -> Result | None:
        """The result, once it is there; None where the router said no."""
        return None if self.error is not None else self.future.result()

    @property
    def error(self) -> RouterError | None:
        """What the router said no with, once it ended so."""
        error = self.future.exception()
        if error is None or isinstance(error, RouterError):
            return error
        raise error


def wait_for(work: Work, words: str) -> bool:
    """Show the progress until the work is done; True where there is a result. A rerun may leave at any time."""
    if not work.future.done():
        bar = st.progress(0.0, text=words)
        while not wait([work.future], timeout=0.15).done:
            share = work.done / work.total if work.total else 0.0
            figures = f": {work.done:,} of {work.total:,}" if work.total else ""
            bar.progress(share, text=f"{words}{figures} · {work.seconds:.0f} s")
        bar.empty()
    if work.error is not None:
        say_no(work.error)
        return False
    return True
