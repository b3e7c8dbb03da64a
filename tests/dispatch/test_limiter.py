"""How many calls a limiter lets leave at once: it narrows, widens, and ends every wait."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dispatch.limiter import BREAK_AFTER, BREAK_S, WIDEN_S
from router.domain.errors import (
    BadReply,
    KeyRejected,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    RateLimited,
    Unreachable,
)
from tests.dispatch.limiters import LONG, World, play


def test_no_more_than_the_operator_allows_are_in_flight() -> None:
    """`max_in_flight` is a ceiling from the first call on."""

    async def story(world: World) -> None:
        await asyncio.gather(*(world.call() for _ in range(50)))

    world = play(story, max_in_flight=7)
    assert (world.most, len(world.sent)) == (7, 50)


def test_a_429_narrows_to_those_that_were_taken() -> None:
    """With eight in flight of which one is refused, the provider takes seven."""

    async def story(world: World) -> None:
        refused = world.call(RateLimited("429", retry_after=0.1), seconds=0.05)
        await asyncio.gather(*(world.call() for _ in range(7)), refused)
        assert world.limiter.width() == 7

    play(story, max_in_flight=8)


def test_the_limiter_finds_a_limit_of_four_and_stays_about_there() -> None:
    """Against a provider that takes four at once: after it has learned, hardly a call is refused or a place left."""
    refused: list[float] = []

    async def story(world: World) -> None:
        busy = 0

        left = 2_000

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                while not await send():
                    await asyncio.sleep(0.25)

        async def send() -> bool:
            nonlocal busy
            async with world.limiter.slot(1, LONG) as ticket:
                if busy >= 4:
                    refused.append(world.loop.time())
                    world.limiter.failed(ticket, RateLimited("429", retry_after=0.25))
                    return False
                busy += 1
                await asyncio.sleep(0.25)
                busy -= 1
                world.sent.append(world.loop.time())
                world.limiter.succeeded(ticket, {})
                return True

        await asyncio.gather(*(work() for _ in range(32)))

    world = play(story, max_in_flight=32)
    took = world.sent[-1] - 1_000
    assert took <= 2_000 / 4 * 0.25 / 0.95, "less than 95 % of what the provider allows"
    late = [at for at in refused if at > 1_010]
    assert len(late) <= took / WIDEN_S + 1, "it probes more often than it may"


def test_widening_waits_and_a_failed_probe_waits_longer() -> None:
    """One place more after a quiet while; where that place is refused, the next try comes later."""
    widened: list[float] = []

    async def story(world: World) -> None:
        blocked = asyncio.gather(*(world.call(seconds=0.1) for _ in range(3)))
        await world.call(RateLimited("429"), seconds=0.01)
        await blocked
        width = world.limiter.width()
        assert width == 3
        while len(widened) < 2:
            await asyncio.gather(*(world.call(seconds=0.1) for _ in range(width - 1)))
            if world.limiter.width() > width:
                widened.append(world.loop.time())
                others = asyncio.gather(*(world.call(seconds=0.1) for _ in range(width)))
                await world.call(RateLimited("429"), seconds=0.01)
                await others
                assert world.limiter.width() == width
        first, second = widened[0] - 1_000, widened[1] - widened[0]
        assert first == pytest.approx(WIDEN_S, abs=0.5)
        assert second == pytest.approx(2 * WIDEN_S, abs=0.5)

    play(story, max_in_flight=8)


def test_a_time_out_halves_and_one_place_is_always_left() -> None:
    """Time-outs narrow fast; the limiter never closes by narrowing."""

    async def story(world: World) -> None:
        widths = []
        for _ in range(BREAK_AFTER - 1):
            await world.call(OutcomeUnknown("time-out"))
            widths.append(world.limiter.width())
        assert widths == [8, 4, 2, 1]
        await world.call()
        assert world.limiter.health().failures_in_row == 0

    play(story, max_in_flight=16)


def test_no_place_before_the_deadline_is_told_at_the_deadline() -> None:
    """A call that waits in the queue is given up when its time is over, neither sooner nor later."""

    async def story(world: World) -> None:
        long = asyncio.create_task(world.call(seconds=100))
        await asyncio.sleep(0)
        with pytest.raises(Unreachable, match="did not take the call in time"):
            await world.call(deadline=world.loop.time() + 5)
        assert world.loop.time() == pytest.approx(1_005, abs=0.01)
        await long

    assert len(play(story, max_in_flight=1).sent) == 1


def test_a_wait_beyond_the_deadline_is_told_at_once() -> None:
    """Where the rate leaves no place in time, nobody waits in vain."""

    async def story(world: World) -> None:
        await world.call(RateLimited("429", retry_after=864_000), seconds=0)
        with pytest.raises(Unreachable):
            await world.call(deadline=world.loop.time() + 600)
        assert world.loop.time() == pytest.approx(1_000, abs=0.01)

    assert len(play(story).sent) == 1


outcomes = st.sampled_from([
    None, None, None, RateLimited("429", retry_after=0.5), RateLimited("429"), Overloaded("503"), OutcomeUnknown("x"),
    KeyRejected("401"), BadReply("bad", tokens=1), Unreachable("no"),
])  # fmt: skip


@given(
    calls=st.lists(
        st.tuples(outcomes, st.sampled_from([0.0, 0.1, 3.0]), st.sampled_from([0.0, 0.5, 40.0])), max_size=60
    ),
    width=st.integers(1, 8), rpm=st.none() | st.integers(60, 600),
)  # fmt: skip
def test_every_call_ends_and_every_place_comes_back(
    calls: list[tuple[ProviderError | None, float, float]], width: int, rpm: int | None
) -> None:
    """Whatever the provider does: nobody waits for ever, no place is lost, the width is kept to."""

    async def story(world: World) -> None:
        work = []
        for outcome, seconds, pause in calls:
            work.append(asyncio.create_task(world.call(outcome, seconds=seconds, deadline=world.loop.time() + 300)))
            await asyncio.sleep(pause)
        ended = await asyncio.gather(*work, return_exceptions=True)
        assert {type(e) for e in ended} <= {type(None), Unreachable}
        await asyncio.sleep(BREAK_S)
        await world.call()  # and it is as good as new

    assert play(story, max_in_flight=width, requests_per_minute=rpm).most <= width
