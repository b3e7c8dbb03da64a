"""Waiting for what comes, however slow the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


async def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Return as soon as something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.003)


def noted(owner: object, method: str) -> list[tuple[Any, ...]]:
    """The calls of an object's method from now on, as they come: their positional arguments."""
    calls: list[tuple[Any, ...]] = []
    plain = getattr(owner, method)

    def call(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return plain(*args, **options)

    setattr(owner, method, call)
    return calls
