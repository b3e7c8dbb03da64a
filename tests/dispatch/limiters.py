"""A limiter on a clock of its own, and what leaves through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from router.config import Endpoint
from router.dispatch.limiter import BREAK_AFTER, Limiter
from router.domain.errors import (
    Overloaded,
    ProviderError,
)
from tests.dispatch.virtual import VirtualLoop, run

LONG = 1e9
"""A deadline that never comes."""


@dataclass(slots=True, kw_only=True)
class World:
    """A limiter, and what left through it: seconds on the loop's clock."""

    loop: VirtualLoop
    limiter: Limiter
    sent: list[float] = field(default_factory=list)
    most: int = 0

    async def call(
        self, outcome: ProviderError | Mapping[str, str] | None = None, *, seconds: float = 0.1, tokens: int = 1,
        deadline: float = LONG,
    ) -> None:  # fmt: skip
        """One call that takes so long and ends so: an error, or an answer with these headers."""
        async with self.limiter.slot(tokens, deadline) as ticket:
            self.sent.append(self.loop.time())
            self.most = max(self.most, self.limiter.health().in_flight)
            await asyncio.sleep(seconds)
            if isinstance(outcome, ProviderError):
                self.limiter.failed(ticket, outcome)
                return
        self.limiter.succeeded(ticket, outcome or {})  # the dispatcher unpacks an answer when its place is free again


def play(story: Callable[[World], Awaitable[None]], **limits: object) -> World:
    """Run a story on a fresh limiter."""
    loop = VirtualLoop()
    endpoint = Endpoint(name="openai", wire="openai")
    for name, value in limits.items():
        setattr(endpoint, name, value)
    world = World(loop=loop, limiter=Limiter(endpoint, clock=loop.time))

    async def go() -> None:
        await story(world)
        health = world.limiter.health()
        assert health.in_flight == 0, "a place was not given back"

    run(go(), loop)
    return world


async def break_it(world: World, error: ProviderError | None = None) -> None:
    """Let the provider fail until the breaker opens."""
    for _ in range(BREAK_AFTER):
        await world.call(error or Overloaded("503"))
    assert world.limiter.unhealthy()
