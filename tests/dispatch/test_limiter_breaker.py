"""A limiter leaves a failing provider alone, tries it with one call, and bounds what is sent again."""

from __future__ import annotations

import asyncio

import pytest

from router.config import Endpoint
from router.dispatch.limiter import BREAK_AFTER, BREAK_S, Limiter, Ticket
from router.domain.errors import (
    BadReply,
    KeyRejected,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    RateLimited,
    Unreachable,
)
from tests.dispatch.limiters import World, break_it, play


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("503"), OutcomeUnknown("reset"), Unreachable("refused"), BadReply("half a JSON"),
        BadReply("one vector short", tokens=1),
    ],
    ids=["5xx", "unknown", "unreachable", "unreadable", "billed and wrong"],
)  # fmt: skip
def test_failures_in_a_row_open_the_breaker(error: ProviderError) -> None:
    """Five of them, of any kind that may have cost money for nothing or never arrived; then nothing is sent."""

    async def story(world: World) -> None:
        for _ in range(BREAK_AFTER - 1):
            await world.call(error)
        assert world.limiter.unhealthy() == ""
        await world.call(error)
        assert error.message in world.limiter.unhealthy()
        for _ in range(3):
            with pytest.raises(Unreachable):
                await world.call()

    assert len(play(story, max_in_flight=16).sent) == BREAK_AFTER


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Now and then a failure is no reason to leave a provider alone."""

    async def story(world: World) -> None:
        for _ in range(10):
            for _ in range(BREAK_AFTER - 1):
                await world.call(Overloaded("503"))
            await world.call()
            assert world.limiter.unhealthy() == ""

    play(story)


def test_while_it_is_open_nothing_is_sent_and_nobody_waits() -> None:
    """A hundred calls fail at once, also those that stood in the queue when it opened; the state says until when."""

    async def story(world: World) -> None:
        for _ in range(BREAK_AFTER - 1):
            await world.call(Overloaded("503"))
        assert world.limiter.width() == 1
        fatal = asyncio.create_task(world.call(Overloaded("503"), seconds=2))
        await asyncio.sleep(0)
        calls = [asyncio.create_task(world.call()) for _ in range(100)]
        await fatal
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(e) for e in ended] == [Unreachable] * 100
        assert world.loop.time() == pytest.approx(1_002.4, abs=0.01), "they waited"
        assert "failed 5 times in a row" in str(ended[0])
        assert world.limiter.health().open_until > 0

    assert len(play(story, max_in_flight=16).sent) == BREAK_AFTER


def test_half_open_one_call_tries_and_the_others_follow_it() -> None:
    """When its time is over, one call goes; once that is answered, all go. Nobody is refused meanwhile."""

    async def story(world: World) -> None:
        await break_it(world)
        await asyncio.sleep(BREAK_S + 0.1)
        assert world.limiter.unhealthy() == ""
        opened = world.loop.time()
        await asyncio.gather(*(world.call(seconds=1) for _ in range(20)))
        tries = [at for at in world.sent if opened <= at < opened + 1]
        assert len(tries) == 1
        assert world.limiter.health().failures_in_row == 0

    assert len(play(story).sent) == BREAK_AFTER + 20


def test_half_open_and_failed_again_it_stays_away_for_as_long_again() -> None:
    """A trial that fails is the only call that is sent, and the wait starts anew."""

    async def story(world: World) -> None:
        await break_it(world)
        for _ in range(3):
            await asyncio.sleep(BREAK_S + 0.1)
            before = len(world.sent)
            tries = [world.call(Overloaded("503"), seconds=1) for _ in range(20)]
            ended = await asyncio.gather(*tries, return_exceptions=True)
            assert len(world.sent) == before + 1
            assert sum(isinstance(e, Unreachable) for e in ended) == 19
            assert world.limiter.unhealthy()

    play(story)


@pytest.mark.parametrize(
    "error",
    [RateLimited("429", retry_after=0.5), KeyRejected("401"), BadReply("short", tokens=1), None],
    ids=["429", "key", "billed and wrong", "cancelled"],
)
def test_a_trial_that_ends_in_any_way_lets_the_next_one_try(error: ProviderError | None) -> None:
    """A 429, a rejected key, a bad answer or a cancelled call leave no trial under way for ever."""

    async def story(world: World) -> None:
        await break_it(world)
        await asyncio.sleep(BREAK_S + 0.1)
        if error is None:
            trial = asyncio.create_task(world.call(seconds=10))
            await asyncio.sleep(1)
            trial.cancel()
            await asyncio.gather(trial, return_exceptions=True)
        else:
            await world.call(error)
        await asyncio.sleep(BREAK_S + 0.1)
        await world.call()
        assert world.limiter.health().failures_in_row == 0

    play(story)


def test_a_trial_that_must_wait_for_its_rate_is_still_the_trial() -> None:
    """Half-open with an empty bucket: the call waits for its turn and then goes."""

    async def story(world: World) -> None:
        await break_it(world)
        await asyncio.sleep(BREAK_S + 0.1)
        await world.call(RateLimited("429", retry_after=20), seconds=0)
        await world.call()
        assert world.loop.time() >= 1_000 + BREAK_S + 20

    play(story)


def _resend(limiter: Limiter) -> bool:
    """Take a resend from the budget, if it has one; asking takes none."""
    may = limiter.may_resend()
    assert limiter.may_resend() == may
    if may:
        limiter.take_resend()
    return may


def test_resends_are_a_share_of_what_succeeds() -> None:
    """The first twenty, and then one for every five calls that are answered; saved up to twenty at most."""

    async def story(world: World) -> None:
        limiter = world.limiter
        assert [_resend(limiter) for _ in range(25)] == [True] * 20 + [False] * 5
        for _ in range(9):
            await world.call()
        assert [_resend(limiter) for _ in range(3)] == [True, False, False]
        for _ in range(500):
            await world.call()
        assert [_resend(limiter) for _ in range(25)].count(True) == 20

    play(story)


def test_the_retry_budget_is_a_fifth_of_what_succeeds() -> None:
    """A first twenty resends, then one for every five calls that were answered."""
    limiter = Limiter(Endpoint(name="openai", wire="openai"))
    ticket = Ticket(sent_at=0.0, requests=0, tokens=0)
    assert [_resend(limiter) for _ in range(21)] == [True] * 20 + [False]
    for _ in range(5):
        limiter.succeeded(ticket, {})
    assert [_resend(limiter) for _ in range(2)] == [True, False]
