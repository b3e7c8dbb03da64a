"""A lane on a clock of its own: how it narrows and widens, learns a rate, and leaves a failing provider alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config import Endpoint
from router.dispatch.lane import BREAK_AFTER, BREAK_S, WIDEN_S, Lane, Ticket
from router.domain.errors import (
    BadReply,
    BilledUsage,
    KeyRejected,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    RateLimited,
    Unreachable,
)
from router.sandbox.limits import Limiter
from tests.dispatch.virtual import VirtualLoop, run

LONG = 1e9
"""A deadline that never comes."""


@dataclass(slots=True, kw_only=True)
class World:
    """A lane, and what left through it: seconds on the loop's clock."""

    loop: VirtualLoop
    lane: Lane
    sent: list[float] = field(default_factory=list)
    most: int = 0

    async def call(
        self, outcome: ProviderError | Mapping[str, str] | None = None, *, seconds: float = 0.1, tokens: int = 1,
        deadline: float = LONG,
    ) -> None:  # fmt: skip
        """One call that takes so long and ends so: an error, or an answer with these headers."""
        async with self.lane.slot(tokens, deadline) as ticket:
            self.sent.append(self.loop.time())
            self.most = max(self.most, self.lane.health().in_flight)
            await asyncio.sleep(seconds)
            if isinstance(outcome, ProviderError):
                self.lane.failed(ticket, outcome)
                return
        self.lane.succeeded(ticket, outcome or {})  # the dispatcher unpacks an answer when its place is free again


def play(story: Callable[[World], Awaitable[None]], **limits: object) -> World:
    """Run a story on a fresh lane."""
    loop = VirtualLoop()
    endpoint = Endpoint(name="openai", wire="openai")
    for name, value in limits.items():
        setattr(endpoint, name, value)
    world = World(loop=loop, lane=Lane(endpoint, clock=loop.time))

    async def go() -> None:
        await story(world)
        health = world.lane.health()
        assert health.in_flight == 0, "a place was not given back"

    run(go(), loop)
    return world


async def break_it(world: World, error: ProviderError | None = None) -> None:
    """Let the provider fail until the breaker opens."""
    for _ in range(BREAK_AFTER):
        await world.call(error or Overloaded("503"))
    assert world.lane.unhealthy()


# ---- how many at once --------------------------------------------------------------------------


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
        assert world.lane.width() == 7

    play(story, max_in_flight=8)


def test_the_lane_finds_a_limit_of_four_and_stays_about_there() -> None:
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
            async with world.lane.slot(1, LONG) as ticket:
                if busy >= 4:
                    refused.append(world.loop.time())
                    world.lane.failed(ticket, RateLimited("429", retry_after=0.25))
                    return False
                busy += 1
                await asyncio.sleep(0.25)
                busy -= 1
                world.sent.append(world.loop.time())
                world.lane.succeeded(ticket, {})
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
        width = world.lane.width()
        assert width == 3
        while len(widened) < 2:
            await asyncio.gather(*(world.call(seconds=0.1) for _ in range(width - 1)))
            if world.lane.width() > width:
                widened.append(world.loop.time())
                others = asyncio.gather(*(world.call(seconds=0.1) for _ in range(width)))
                await world.call(RateLimited("429"), seconds=0.01)
                await others
                assert world.lane.width() == width
        first, second = widened[0] - 1_000, widened[1] - widened[0]
        assert first == pytest.approx(WIDEN_S, abs=0.5)
        assert second == pytest.approx(2 * WIDEN_S, abs=0.5)

    play(story, max_in_flight=8)


def test_a_time_out_halves_and_one_place_is_always_left() -> None:
    """Time-outs narrow fast; the lane never closes by narrowing."""

    async def story(world: World) -> None:
        widths = []
        for _ in range(BREAK_AFTER - 1):
            await world.call(OutcomeUnknown("time-out"))
            widths.append(world.lane.width())
        assert widths == [8, 4, 2, 1]
        await world.call()
        assert world.lane.health().failures_in_row == 0

    play(story, max_in_flight=16)


# ---- how fast ----------------------------------------------------------------------------------


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
            async with world.lane.slot(50, LONG) as ticket:
                wait = provider.admit(50, world.loop.time(), 0.1)
                headers = provider.headers()
                if wait is None:
                    provider.enter()()
                    await asyncio.sleep(0.25)
                    world.sent.append(world.loop.time())
                    world.lane.succeeded(ticket, headers)
                    return True
                world.lane.failed(ticket, RateLimited("429", retry_after=wait, headers=headers))
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


# ---- until when --------------------------------------------------------------------------------


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


# ---- whether at all ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("503"), OutcomeUnknown("reset"), Unreachable("refused"), BadReply("half a JSON"),
        BadReply("one vector short", usage=BilledUsage(tokens=1)),
    ],
    ids=["5xx", "unknown", "unreachable", "unreadable", "billed and wrong"],
)  # fmt: skip
def test_failures_in_a_row_open_the_breaker(error: ProviderError) -> None:
    """Five of them, of any kind that may have cost money for nothing or never arrived; then nothing is sent."""

    async def story(world: World) -> None:
        for _ in range(BREAK_AFTER - 1):
            await world.call(error)
        assert world.lane.unhealthy() == ""
        await world.call(error)
        assert error.message in world.lane.unhealthy()
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
            assert world.lane.unhealthy() == ""

    play(story)


def test_while_it_is_open_nothing_is_sent_and_nobody_waits() -> None:
    """A hundred calls fail at once, also those that stood in the queue when it opened; the state says until when."""

    async def story(world: World) -> None:
        for _ in range(BREAK_AFTER - 1):
            await world.call(Overloaded("503"))
        assert world.lane.width() == 1
        fatal = asyncio.create_task(world.call(Overloaded("503"), seconds=2))
        await asyncio.sleep(0)
        calls = [asyncio.create_task(world.call()) for _ in range(100)]
        await fatal
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(e) for e in ended] == [Unreachable] * 100
        assert world.loop.time() == pytest.approx(1_002.4, abs=0.01), "they waited"
        assert "failed 5 times in a row" in str(ended[0])
        assert world.lane.health().open_until > 0

    assert len(play(story, max_in_flight=16).sent) == BREAK_AFTER


def test_half_open_one_call_tries_and_the_others_follow_it() -> None:
    """When its time is over, one call goes; once that is answered, all go. Nobody is refused meanwhile."""

    async def story(world: World) -> None:
        await break_it(world)
        await asyncio.sleep(BREAK_S + 0.1)
        assert world.lane.unhealthy() == ""
        opened = world.loop.time()
        await asyncio.gather(*(world.call(seconds=1) for _ in range(20)))
        tries = [at for at in world.sent if opened <= at < opened + 1]
        assert len(tries) == 1
        assert world.lane.health().failures_in_row == 0

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
            assert world.lane.unhealthy()

    play(story)


@pytest.mark.parametrize(
    "error",
    [RateLimited("429", retry_after=0.5), KeyRejected("401"), BadReply("short", usage=BilledUsage(tokens=1)), None],
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
        assert world.lane.health().failures_in_row == 0

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


def test_resends_are_a_share_of_what_succeeds() -> None:
    """The first twenty, and then one for every five calls that are answered; saved up to twenty at most."""

    async def story(world: World) -> None:
        lane = world.lane
        assert [lane.may_resend() for _ in range(25)] == [True] * 20 + [False] * 5
        for _ in range(9):
            await world.call()
        assert [lane.may_resend() for _ in range(3)] == [True, False, False]
        for _ in range(500):
            await world.call()
        assert [lane.may_resend() for _ in range(25)].count(True) == 20

    play(story)


# ---- whatever comes ----------------------------------------------------------------------------

outcomes = st.sampled_from([
    None, None, None, RateLimited("429", retry_after=0.5), RateLimited("429"), Overloaded("503"), OutcomeUnknown("x"),
    KeyRejected("401"), BadReply("bad", usage=BilledUsage(tokens=1)), Unreachable("no"),
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


def test_the_retry_budget_is_a_fifth_of_what_succeeds() -> None:
    """A first twenty resends, then one for every five calls that were answered."""
    lane = Lane(Endpoint(name="openai", wire="openai"))
    ticket = Ticket(sent_at=0.0, requests=0, tokens=0)
    assert [lane.may_resend() for _ in range(21)] == [True] * 20 + [False]
    for _ in range(5):
        lane.succeeded(ticket, {})
    assert [lane.may_resend() for _ in range(2)] == [True, False]
