"""One paid call from its hold to its settlement: the one place where calls are sent again.

What is done about a failure is `next_step`'s to say. A 429 is known to be unbilled and is retried under the same hold
until the deadline. What may have been billed is sent at most three times, each time under a hold of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from router.dispatch.delivery import Delivery, Route
from router.dispatch.limiter import Ticket
from router.dispatch.settle import settle_failure, store_and_settle
from router.dispatch.steps import Attempt, DivisionLimit, next_step
from router.domain.errors import (
    BudgetExceeded,
    CallRejected,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Refused,
    RouterError,
    StoreError,
)
from router.domain.values import Unit
from router.providers.base import EmbedCall, Floats, Reply, check
from router.store.entries import Hold

GRACE_S = 0.5
"""What a provider has, beyond its time-out, to say itself that it is over."""


class _NotSent(Exception):
    """A call must not leave, for this reason."""

    def __init__(self, error: RouterError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True, kw_only=True)
class Call:
    """A call on its way.

    Attributes:
        hold: what pays for it, and its texts.
        attempt: how it stands.
        marked: its hold says that it may have left.
        part: it is a part of a call that is divided.
        error: why it is to be divided, once it is.
    """

    hold: Hold
    attempt: Attempt
    marked: bool
    part: bool = False
    error: ProviderError | None = None


class Sender:
    """Sends the calls of one request, and knows what they share.

    Attributes:
        delivery: what came of them.
        texts: of the whole request.
        closed: why nothing more is sent, or None.
        refused: calls and parts of calls that the provider would not embed as they are.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self.delivery = Delivery()
        self.texts = 1
        self.closed: RouterError | None = None
        self.refused = self._refused_alone = 0
        self._probe = asyncio.Lock()

    async def send(self, call: Call) -> None:
        """Send a call until it is answered, given up, or to be divided: then it has an `error`.

        Never raises for a provider's fault.
        """
        again = True
        while again:
            try:
                vectors, tokens = await self._exchange(call)
            except _NotSent as unsent:
                return await self.give_up(call.hold, unsent.error)
            except StoreError as error:
                self.closed = error
                return await self.give_up(call.hold, error)
            except ProviderError as error:
                again = await self._react(call, error)
            except Exception:  # none that we know of: settled, so that no hold is left, and passed on
                why, billed = "It ended in an unknown error.", None if call.marked else 0
                await self.route.ledger.fail(call.hold, why, billed=billed, price=self.route.price)
                raise
            else:
                return await self._keep(call.hold, vectors, tokens)

    # ---- one send ----

    async def _exchange(self, call: Call) -> tuple[Floats, int | None]:
        """Send a call once; its vectors, and the tokens that the provider says it billed. The limiter is told.

        Raises:
            _NotSent: it must not leave.
            ProviderError: it failed, or its answer cannot be trusted.
        """
        route, units = self.route, call.hold.units
        texts = EmbedCall(model=route.model, texts=tuple(u.text for u in units), role=route.role)
        weight = sum(u.likely for u in units)  # by the bound, a rate limit would be used to a fifth
        ready = None if call.marked else partial(self._require_leave, call.hold, mark=True)
        async with route.limiter.slot(weight, route.deadline, self.stopped, ready) as ticket:
            call.marked = True
            await self._require_leave(call.hold)  # it may have waited long, and its policy may be another one by now
            with self._failures_told(ticket, call):
                reply = await self._embed(texts)
        await asyncio.sleep(0)  # the next call leaves before this one's answer is unpacked
        with self._failures_told(ticket, call):
            vectors = check(texts, reply)
        route.limiter.succeeded(ticket, reply.headers)
        return vectors, reply.tokens

    async def _require_leave(self, hold: Hold, *, mark: bool = False) -> None:
        """Raise _NotSent where a call must not leave. `mark`: after a crash from here on it may have been billed."""
        if self.closed is not None:
            raise _NotSent(self.closed)
        ledger = self.route.ledger
        try:
            # The last look is on the loop (47 µs): a change of threads would leave time for a change behind it.
            there = await ledger.mark_sent(hold) if mark else ledger.may_leave(hold)
        except Refused as error:
            raise _NotSent(error) from error
        if not there:  # the sweeper took this process for dead
            raise _NotSent(OutcomeUnknown("The hold of this call had run out before it was sent.", "Try again."))

    @contextlib.contextmanager
    def _failures_told(self, ticket: Ticket, call: Call) -> Iterator[None]:
        try:
            yield
        except ProviderError as error:
            self.route.limiter.failed(ticket, error, part=call.part)
            raise

    async def _embed(self, texts: EmbedCall) -> Reply:
        """Ask the provider, with a deadline of the call's own: what has left is paid for, so the request waits for it.

        A provider that keeps the deadline itself comes first: it knows whether the call had left.
        """
        endpoint = self.route.limiter.endpoint
        try:
            async with asyncio.timeout(endpoint.timeout_s + GRACE_S):
                return await self.route.provider.embed(texts)
        except TimeoutError as exc:
            raise OutcomeUnknown(f"{endpoint.name} did not answer in time.", "It may have been billed.") from exc

    # ---- what came of it ----

    async def _keep(self, hold: Hold, vectors: Floats, tokens: int | None) -> None:
        try:
            await store_and_settle(self.route, self.delivery, hold, vectors, tokens)
        except StoreError as error:  # charged, and lost: the disk is full or gone
            self.closed = error  # and whatever were sent now would be lost too
            self.fail(hold.units, error)

    async def _react(self, call: Call, error: ProviderError) -> bool:
        """Do what `next_step` says about a call that failed. True: it is to be sent again."""
        limiter, attempt = self.route.limiter, call.attempt.after(error)
        pause = attempt.pause_s(error)
        late = time.monotonic() + pause > self.route.deadline
        call.attempt = replace(attempt, late=late, stopped=self.stopped(), may_resend=limiter.may_resend())
        step = next_step(error, call.attempt)
        match step:
            case "resend":
                limiter.take_resend()
                holds = await self.hold_again(call.hold, error, (call.hold.units,))
                if holds:
                    call.hold = holds[0]
                    if await self.wait(pause):
                        return True
                    await self.give_up(call.hold, self.closed or error)
            case "retry" | "expire":
                if step == "retry" and await self.wait(pause):
                    return True
                await self.give_up(call.hold, self.closed or _out_of_time(error))
            case "divide":
                self.refused += error.action == "divide"
                call.error = error
            case "stop" | "give_up":
                if step == "stop":
                    self.closed = self.closed or error
                await self.fail_alone(call.hold, error)
        return False

    async def hold_again(self, hold: Hold, error: ProviderError, calls: Sequence[Sequence[Unit]]) -> tuple[Hold, ...]:
        """Settle a call that failed, and hold `calls` of its texts instead. Empty where that cannot be: its texts have
        failed then, as the call did, unless the policy forbids it by now or there is no money for what cost none.
        """
        holds = await settle_failure(self.route, self.delivery, hold, error, calls)
        if not isinstance(holds, Refused) and holds:
            return holds
        why: RouterError = self.closed or error
        if isinstance(holds, BudgetExceeded) and error.billed == "no":
            why = BudgetExceeded("There is no money left to send the call in two halves.")
        elif isinstance(holds, Refused) and not isinstance(holds, BudgetExceeded):
            why = self.closed or holds
        self.fail(hold.units, why)
        return ()

    async def give_up(self, hold: Hold, error: RouterError) -> None:
        """Release the hold of a call that is not sent, and name its texts."""
        await self.route.ledger.release(hold)
        self.fail(hold.units, error)

    async def fail_alone(self, hold: Hold, error: ProviderError) -> None:
        """Settle a call that is neither sent again nor divided, and name its texts."""
        if error.action == "divide":
            error = error.copy(hint="Nothing was billed for it. Leave the text out, or shorten it.")
            self.refused += 1
            self._refused_alone += 1
            if not self.delivery.vectors and self._refused_alone >= 2 * DivisionLimit(self.texts).depth:
                self.close_refused(error)
        await settle_failure(self.route, self.delivery, hold, error)
        self.fail(hold.units, error)

    def fail(self, units: Iterable[Unit], error: RouterError) -> None:
        """Note why these texts have no vector."""
        for unit in units:
            self.delivery.failed[unit.digest] = error

    # ---- what the calls share ----

    def close_refused(self, error: ProviderError) -> RouterError:
        """Close the request, of which everything was refused; gives the reason that it was closed for."""
        self.closed = self.closed or CallRejected(
            f"{error.message.removesuffix('.')}: it refused every call and every part of one that was tried, of"
            f" {self.texts:,} texts, and answered none.",
            "Nothing was billed. Check the base URL, the model's name and what the endpoint takes.",
            action="stop",
        )
        return self.closed

    def stopped(self) -> bool:
        """True where nothing more is to be sent."""
        return self.closed is not None or self.route.cancelled()

    def in_doubt(self) -> bool:
        """True where calls were refused and none was answered: it may be the set-up that is wrong, and not a text."""
        return bool(self.refused) and not self.delivery.vectors and self.closed is None

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[contextlib.AsyncExitStack]:
        """While in doubt one call at a time is tried; the others wait here. `aclose` of what it gives ends the turn."""
        async with contextlib.AsyncExitStack() as turn:
            if self.in_doubt():
                await turn.enter_async_context(self._probe)
                if not self.in_doubt():
                    await turn.aclose()
            yield turn

    async def wait(self, pause_s: float) -> bool:
        """Wait before the next send. False: that would be late, or nothing more is to be sent."""
        end = time.monotonic() + pause_s
        while end <= self.route.deadline and not self.stopped():
            if (left := end - time.monotonic()) <= 0:
                return True
            await asyncio.sleep(min(left, 1.0))
        return False


def _out_of_time(error: ProviderError) -> ProviderError:
    if not isinstance(error, RateLimited):
        return error
    asked = "" if error.retry_after is None else f" and asked for a pause of {error.retry_after:,.0f} s"
    return error.copy(
        message=f"{error.message.removesuffix('.')}{asked}: the request cannot wait as long as that.",
        hint="Nothing was billed for it. Try again later.",
    )
