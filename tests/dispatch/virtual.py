"""An event loop whose clock jumps: waiting costs no time, so that minutes of pacing are tested in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A step takes a microsecond while anything can run; when nothing can, time jumps to the next timer.

    A wait for something that can never come is an error and not a hang. No threads may be used on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        selector = self._selector  # type: ignore[attr-defined]  # asyncio's own
        look = selector.select

        def select(timeout: float | None) -> Any:
            if timeout is None:
                raise RuntimeError("everything waits for something that will never come")
            self.now += timeout + 1e-6
            return look(0)

        selector.select = select

    def time(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run work to its end on a virtual loop, and close it."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work)
