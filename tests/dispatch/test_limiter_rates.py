"""How fast a limiter lets calls leave: the operator's rate, and the one that it learns."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import RateLimited
from router.sandbox.limits import Limiter
from tests.dispatch.limiters import LONG, World, play


def most_in(sent: list[float], seconds: float) -> int:
    """The most calls that left within any stretch of so many seconds."""
    window: deque[float] = deque()
    most = 0
    for at in sent:
        window.append(at)
        while window[0] <= at - seconds:
            window.popleft()
        most = max(most, len(window))
    return most


@settings(max_examples=30)
@given(rpm=st.integers(30, 1_200), n=st.integers(1, 120))
def test_the_operators_rate_is_never_passed(rpm: int, n: int) -> None:
    """In no minute leave more than the rate and the second's worth that it starts with."""

    async def story(world: World) -> None:
        await asyncio.gather(*(world.call() for _ in range(n)))

    world = play(story, requests_per_minute=rpm, max_in_flight=64)
    assert most_in(world.sent, 60) <= rpm + rpm / 60 + 1
    assert most_in(world.sent, 1) <= 2 * rpm / 60 + 1
    assert world.sent[-1] - 1_000 <= n / (rpm / 60) + 0.1, "slower than the rate allows"


def test_the_operators_tokens_a_minute_are_never_passed() -> None:
    """Calls of 100 tokens at 6,000 a minute: one a second, after the second's worth at the start."""

    async def story(world: World) -> None:
        await asyncio.gather(*(world.call(tokens=100) for _ in range(20)))

    world = play(story, tokens_per_minute=6_000)
    assert [round(at - 1_000) for at in world.sent] == list(range(20))


@pytest.mark.parametrize("burst", [60.0, 1.0], ids=["a minute saved up", "a second saved up"])
@pytest.mark.parametrize(("rpm", "tpm"), [(1_200, None), (None, 60_000)], ids=["requests", "tokens"])
def test_a_rate_is_learned_from_the_headers(burst: float, rpm: int | None, tpm: int | None) -> None:
    """At 95 % or more of what the provider's buckets let through, with hardly a 429, and nothing set beforehand."""
    refused = 0

    async def story(world: World) -> None:
        nonlocal refused
        provider = Limiter(rpm, tpm, None, world.loop.time(), burst)

        left = 3_000

        async def work() -> None:
            nonlocal refused, left
            while left > 0:
                left -= 1
                while not await send():
                    refused += 1

        async def send() -> bool:
            async with world.limiter.slot(50, LONG) as ticket:
                wait = provider.admit(50, world.loop.time(), 0.1)
                headers = provider.headers()
                if wait is None:
                    provider.in_flight -= 1
                    await asyncio.sleep(0.25)
                    world.sent.append(world.loop.time())
                    world.limiter.succeeded(ticket, headers)
                    return True
                world.limiter.failed(ticket, RateLimited("429", retry_after=wait, headers=headers))
            await asyncio.sleep(wait)
            return False

        await asyncio.gather(*(work() for _ in range(32)))

    world = play(story, max_in_flight=32)
    rate = 20.0
    saved = rate * burst
    best = (3_000 - saved) / rate
    took = world.sent[-1] - 1_000
    assert took <= best / 0.95 + 1, f"{took:.0f} s, and {best:.0f} s would do"
    assert refused <= 60


def test_retry_after_stops_everything_where_no_other_call_was_taken() -> None:
    """A 429 of the only call in flight is about the rate: nobody leaves before the provider said."""

    async def story(world: World) -> None:
        await world.call(RateLimited("429", retry_after=30), seconds=0)
        await asyncio.gather(*(world.call() for _ in range(5)))

    world = play(story)
    assert min(world.sent[1:]) >= 1_030
