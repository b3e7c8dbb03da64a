"""The limiter of a provider: how many calls at once, how fast, and whether any at all.

It learns. A 429 while other calls are in flight says how many the provider takes: the limiter narrows to those and
widens again by one after a while (additive increase); a time-out halves it. Rate-limit headers and Retry-After
pause it. A provider that fails again and again is left alone for a while (circuit breaker) and then tried by a
single call. One limiter a provider and process; used on the engine's loop only, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from router.config import Endpoint
from router.domain.errors import ProviderError, RateLimited, Unreachable

BREAK_AFTER = 5
"""Failures in a row that open the breaker."""
BREAK_S = 30.0
"""How long an open breaker stays open before one call may try."""
HOPELESS_S = 600.0
"""A provider that asks for a longer pause than this is unavailable until then, and not waited for."""
NEXT_IN_TURN = 4
"""Calls that are made ready while they wait for a place."""
WIDEN_S = 5.0
"""Seconds without a 429 before the limiter takes one call more; doubles with each widening that failed, to 60."""
MOST_RESENDS = 20.0
RESENDS_A_SUCCESS = 0.2
"""The retry budget: a fifth of the calls that succeed may be sent again, and a first twenty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A limiter's state, for the pages. `width` is the calls it takes at once; `open_until` is epoch seconds or 0."""

    provider: str
    width: int
    in_flight: int
    failures_in_row: int
    open_until: float
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A call on its way: when it left, and what the limiter had let through by then."""

    sent_at: float
    requests: int
    tokens: int


class Limiter:
    """Paces the calls to one provider. `width` is the calls at once, as learned so far."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float] = time.monotonic) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self.width = endpoint.max_in_flight
        self._in_flight = 0
        self._next = asyncio.Semaphore(NEXT_IN_TURN)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._widen_s = WIDEN_S
        self._widened_at = clock()
        self._probing = False
        self._halved_at = -math.inf
        self._regain = 0
        self._not_before = 0.0
        self._requests = _Bucket(endpoint.requests_per_minute, clock)
        self._tokens = _Bucket(endpoint.tokens_per_minute, clock)
        self._failures = 0
        self._open_until = 0.0
        self._last_error = ""
        self._resends = MOST_RESENDS

    @asynccontextmanager
    async def slot(
        self,
        tokens: int,
        deadline: float,
        cancelled: Callable[[], bool] = lambda: False,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Ticket]:
        """Wait for a place, then hold it while the call runs. `deadline` is on the limiter's clock.

        `ready` is awaited by the few calls that are next in turn, so that a place that falls free is not kept waiting.
        Tell what came of the ticket by `succeeded` or `failed`.

        Raises:
            Unreachable: the breaker is open, no place came before the deadline, or the call was cancelled while it
                waited; nothing was sent.
        """
        async with self._next:
            if ready is not None and not cancelled() and not self.unhealthy():
                await ready()
            try:
                await self._enter(tokens, deadline, cancelled)
            except BaseException:
                self._wake()  # the place that this call may have been woken for is another's
                raise
        try:
            yield Ticket(sent_at=self._clock(), requests=self._requests.taken, tokens=self._tokens.taken)
        finally:
            self._in_flight -= 1
            self._wake()

    def succeeded(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """A call was answered: close the breaker, widen if it is time, learn the rate from the headers."""
        self._failures = 0
        self._open_until = 0.0
        self._resends = min(MOST_RESENDS, self._resends + RESENDS_A_SUCCESS)
        self._learn(ticket, headers)
        now = self._clock()
        if self.width < self._regain:  # after an outage, back to what was taken before, twice as wide a round
            if ticket.sent_at >= self._widened_at:
                self.width = min(self._regain, self.width * 2)
                self._widened_at = now
        elif self.width < self.endpoint.max_in_flight and now - self._widened_at >= self._widen_s:
            self._regain = 0
            self.width += 1
            self._widened_at = now
            self._probing = True
        self._wake()

    def failed(self, ticket: Ticket, error: ProviderError, *, part: bool = False) -> None:
        """A call failed: narrow, pause, or open the breaker, as the error says.

        `part`: of a call that is divided, because one of its texts may be to blame: it does not count for the breaker.
        """
        now = self._clock()
        self._last_error = error.message
        if isinstance(error, RateLimited):
            self._learn(ticket, error.headers)
            rate = any(error.headers.get(f"x-ratelimit-remaining-{kind}") == "0" for kind in ("requests", "tokens"))
            others = self._in_flight - 1
            if others >= 1 and not rate:
                # The others were taken: the provider takes about so many at once.
                if self._probing:
                    self._widen_s = min(60.0, self._widen_s * 2)
                self.width = max(1, min(self.width, others))
                self._regain = 0
                self._widened_at = now
            elif error.retry_after is not None:
                self._not_before = max(self._not_before, now + error.retry_after)
            self._probing = False
            return
        if error.billed == "no" and not isinstance(error, Unreachable):
            return
        # A wrong answer that was billed says nothing of the load; calls that left before the last halving say it again.
        if error.billed != "yes" and ticket.sent_at >= self._halved_at:
            self._regain = max(self._regain, self.width)
            self.width = max(1, self.width // 2)
            self._halved_at = self._widened_at = now
        if not part:
            self._failures += 1
        if self._failures >= BREAK_AFTER:
            self._open_until = now + BREAK_S

    def may_resend(self) -> bool:
        """True while the retry budget lasts: what may have been billed is sent again only while most calls succeed."""
        return self._resends >= 1

    def take_resend(self) -> None:
        """Take one from the retry budget."""
        self._resends -= 1

    def unhealthy(self) -> str:
        """Why this provider is temporarily unavailable, or ""."""
        left = self._open_until - self._clock()
        pause = self._not_before - self._clock()
        if pause > max(left, HOPELESS_S):
            return f"{self.endpoint.name} asked to be sent nothing for {pause:,.0f} s more"
        if left <= 0:
            return ""
        return (
            f"{self.endpoint.name} failed {self._failures} times in a row; it is tried again in {left:.0f} s"
            f" (last: {self._last_error[:120]})"
        )

    def health(self) -> Health:
        """The limiter's state, for the pages."""
        pause = self._not_before - self._clock()
        left = max(self._open_until - self._clock(), pause if pause > HOPELESS_S else 0.0)
        return Health(
            provider=self.endpoint.name,
            width=self.width,
            in_flight=self._in_flight,
            failures_in_row=self._failures,
            open_until=time.time() + left if left > 0 else 0.0,
            last_error=self._last_error,
        )

    async def _enter(self, tokens: int, deadline: float, cancelled: Callable[[], bool]) -> None:
        while True:
            if cancelled():
                raise Unreachable("The request was cancelled before this call was sent.")
            if reason := self.unhealthy():
                raise Unreachable(f"Not sent: {reason}.", "Nothing was billed for it. Try again later.")
            now = self._clock()
            wait = max(self._not_before - now, self._requests.wait(1), self._tokens.wait(tokens))
            if now + wait > deadline:
                raise Unreachable(
                    f"{self.endpoint.name} did not take the call in time: its rate limit leaves no place for"
                    f" {wait:.0f} s more.",
                    "Nothing was billed for it. Try again later.",
                )
            if wait > 0:
                await asyncio.sleep(min(wait, 1.0))  # by the second, to see that the request was cancelled
            elif self._room() <= 0:
                await self._queue(deadline - now)
            else:
                break
        self._in_flight += 1
        self._requests.take(1)
        self._tokens.take(tokens)

    def _room(self) -> int:
        """Places that are free; of a provider that failed again and again, one in all until a call is answered."""
        return (1 if self._failures >= BREAK_AFTER else self.width) - self._in_flight

    async def _queue(self, timeout: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        with suppress(TimeoutError):  # `_enter` sees that the deadline has passed, `_wake` that nobody waits
            await asyncio.wait_for(future, timeout)

    def _wake(self) -> None:
        room = self._room()
        while room > 0 and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1

    def _learn(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """Rate limits from `x-ratelimit-*`: the rate, and what remains of it."""
        for bucket, kind, ours, taken in (
            (self._requests, "requests", self.endpoint.requests_per_minute, ticket.requests),
            (self._tokens, "tokens", self.endpoint.tokens_per_minute, ticket.tokens),
        ):
            limit, remaining = headers.get(f"x-ratelimit-limit-{kind}"), headers.get(f"x-ratelimit-remaining-{kind}")
            if limit and limit.isdecimal() and int(limit) > 0:
                bucket.rate(min(int(limit), ours or int(limit)))
                if remaining and remaining.isdecimal() and (ours is None or int(limit) <= ours):
                    bucket.correct(int(remaining), ticket.sent_at, taken)


class _Bucket:
    """Our picture of a provider's token bucket: refilled at `per_minute` / 60 a second; None is no limit.

    It starts with a second's worth, because nothing is known of what the provider lets save up; its headers correct
    the level up or down.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._per_s = 0.0
        self._level = 0.0
        self._at = clock()
        self.taken = 0
        if per_minute:
            self.rate(per_minute)

    def rate(self, per_minute: int) -> None:
        """Set the rate."""
        if self._per_s == 0.0:
            self._level = per_minute / 60
            self._at = self._clock()
        self._per_s = per_minute / 60

    def correct(self, remaining: int, sent_at: float, taken_then: int) -> None:
        """The provider said, of a call sent at `sent_at`, that so much remained; compute what does by now."""
        if self._per_s:
            now = self._clock()
            self._level = min(self._per_s * 60, remaining + (now - sent_at) * self._per_s) - (self.taken - taken_then)
            self._at = now

    def wait(self, amount: int) -> float:
        """Seconds until `amount` may go; an amount above a minute's worth goes when the bucket is full."""
        if self._per_s == 0.0:
            return 0.0
        now = self._clock()
        self._level = min(self._per_s * 60, self._level + (now - self._at) * self._per_s)
        self._at = now
        return max(0.0, (min(float(amount), self._per_s * 60) - self._level) / self._per_s)

    def take(self, amount: int) -> None:
        """Take it; the level may go below zero for a large amount, and is waited for."""
        self.taken += amount
        if self._per_s:
            self._level -= amount
