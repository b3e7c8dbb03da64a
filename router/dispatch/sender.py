"""One paid call from its hold to its settlement: the one place where calls are sent again.

What is done about a failure is `next_step`'s to say. A 429 is known to be unbilled and is queued again under the same
hold until the deadline. What may have been billed is sent at most three times, each time under a hold of its own. A
call that is too large, that the provider rejects, or that its server fails on, is divided until the text that is to
blame stands alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from router.dispatch.booking import end, keep
from router.dispatch.delivery import Delivery, Route
from router.dispatch.limiter import Ticket
from router.dispatch.steps import Attempt, Division, next_step
from router.domain.errors import (
    BadReply,
    BudgetExceeded,
    CallRejected,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Refused,
    RouterError,
    StoreError,
    Unreachable,
)
from router.domain.values import Unit
from router.providers.base import EmbedCall, Floats, Reply, check
from router.store.entries import Hold

GRACE_S = 0.5
"""What a provider has, beyond its time-out, to say itself that it is over."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0


class _NotSent(Exception):
    """A call must not leave, for this reason."""

    def __init__(self, error: RouterError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """A call that is to be divided: its hold, which is not ended yet, and its sends that may have been billed."""

    hold: Hold
    error: ProviderError
    sends: int


class Sender:
    """Sends the calls of one request and gathers what came of them."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._closed: RouterError | None = None
        self._refused = self._refused_alone = 0
        self._probe = asyncio.Lock()
        self.delivery = Delivery()
        self.texts = 1
        """Of the whole request."""

    async def deliver(self, hold: Hold, *, marked: bool) -> None:
        """Send the call of this hold until it is answered or given up. Never raises for a provider's fault."""
        async with self._turn():
            failed = await self._attempt(hold, marked=marked)
        if failed is not None:
            await self._divide(failed)

    # ---- one call ----

    async def _attempt(self, hold: Hold, *, marked: bool, sends: int = 0, part: bool = False) -> _Failed | None:
        """Send a call until it is answered or given up (None), or is to be divided.

        `sends`: of its texts that may have been billed before. `part`: of a call that is being divided.
        """
        route = self._route
        limited = unreached = 0
        while True:
            call = EmbedCall(model=route.model, texts=tuple(u.text for u in hold.units), role=route.role)
            try:
                weight = sum(u.likely for u in hold.units)  # by the bound, a rate limit would be used to a fifth
                ready = None if marked else partial(self._mark, hold)
                async with route.limiter.slot(weight, route.deadline, self._stopped, ready) as ticket:
                    marked = True
                    self._require_leave(hold)
                    reply = await self._send(call, ticket, part)
                await asyncio.sleep(0)  # the next call leaves before this one's answer is unpacked
                vectors = self._check(call, ticket, reply, part)
            except _NotSent as unsent:
                await self._give_up(hold, unsent.error)
                return None
            except StoreError as error:
                self._closed = error
                await self._give_up(hold, error)
                return None
            except ProviderError as error:
                limited += isinstance(error, RateLimited)
                unreached += isinstance(error, Unreachable)
                sends += error.billed != "no"
                step = next_step(error, Attempt(texts=len(hold.units), sends=sends, unreached=unreached))
                if step == "resend" and not route.limiter.may_resend():
                    step = "divide" if error.action == "resend_then_divide" and len(hold.units) > 1 else "give_up"
                if step == "wait":
                    if await self._wait(error, limited + unreached):
                        continue
                    await self._give_up(hold, self._closed or _out_of_time(error))
                    return None
                if step == "resend":
                    again = await self._again(hold, error, sends)
                    if again is None:
                        return None
                    hold = again
                    continue
                if step == "divide":
                    self._refused += error.action == "divide"
                    return _Failed(hold=hold, error=error, sends=sends)
                if step == "stop":
                    self._closed = self._closed or error
                await self._fail_alone(hold, error)
                return None
            except Exception:  # none that we know of: booked, so that no hold is left, and passed on
                if marked:
                    await route.ledger.fail(hold, "It ended in an unknown error.", billed=None, price=route.price)
                else:
                    await route.ledger.release(hold)
                raise
            try:
                await keep(route, self.delivery, hold, vectors, reply.tokens)
            except StoreError as error:  # charged, and lost: the disk is full or gone
                self._closed = error  # and whatever were sent now would be lost too
                self.fail(hold.units, error)
            return None

    async def _mark(self, hold: Hold) -> None:
        """Note that the call is about to leave; a crash from here on books it as one that may have been billed."""
        if self._closed is not None:
            raise _NotSent(self._closed)
        try:
            there = await self._route.ledger.mark_sent(hold)
        except Refused as error:
            raise _NotSent(error) from error
        if not there:
            raise _NotSent(_hold_gone())

    def _require_leave(self, hold: Hold) -> None:
        """The last look before a call leaves: it may have waited long, and its policy may be another one by now."""
        if self._closed is not None:
            raise _NotSent(self._closed)
        try:
            there = self._route.ledger.may_leave(hold)
        except Refused as error:
            raise _NotSent(error) from error
        if not there:
            raise _NotSent(_hold_gone())

    async def _send(self, call: EmbedCall, ticket: Ticket, part: bool) -> Reply:
        """One send, with a deadline on the clock of its own: what has left is paid for, so the request waits for it.

        A provider that keeps the deadline itself comes first: it knows whether the call had left. Tells the
        limiter where it failed.
        """
        limiter = self._route.limiter
        try:
            async with asyncio.timeout(limiter.endpoint.timeout_s + GRACE_S):
                return await self._route.provider.embed(call)
        except TimeoutError as exc:
            error = OutcomeUnknown(f"{limiter.endpoint.name} did not answer in time.", "It may have been billed.")
            limiter.failed(ticket, error, part=part)
            raise error from exc
        except ProviderError as error:
            limiter.failed(ticket, error, part=part)
            raise

    def _check(self, call: EmbedCall, ticket: Ticket, reply: Reply, part: bool) -> Floats:
        """The reply's vectors, if they can be trusted; tells the limiter how the call went."""
        limiter = self._route.limiter
        try:
            vectors = check(call, reply)
        except BadReply as error:
            limiter.failed(ticket, error, part=part)
            raise
        limiter.succeeded(ticket, reply.headers)
        return vectors

    # ---- a call that failed ----

    async def _again(self, hold: Hold, error: ProviderError, sends: int) -> Hold | None:
        """Book what may have been billed; a new hold for another send, or None when it is given up."""
        retry = not self._stopped() and time.monotonic() < self._route.deadline
        holds = await end(self._route, self.delivery, hold, error, (hold.units,) if retry else ())
        if isinstance(holds, Refused) or not holds:
            self.fail(hold.units, _reason(error, holds))
            return None
        if not await self._wait(error, sends):
            await self._give_up(holds[0], self._closed or error)
            return None
        return holds[0]

    async def _fail_alone(self, hold: Hold, error: ProviderError) -> None:
        """Give up a call that cannot be divided, and name its texts."""
        if error.action == "divide":
            error.hint = "Nothing was billed for it. Leave the text out, or shorten it."
            self._refused += 1
            self._refused_alone += 1
            if not self.delivery.vectors and self._refused_alone >= 2 * Division(self.texts).depth:
                self._closed = self._closed or _refuses_all(error, self.texts)
        await end(self._route, self.delivery, hold, error)
        self.fail(hold.units, error)

    async def _give_up(self, hold: Hold, error: RouterError) -> None:
        """Release the hold of a call that is not sent."""
        await self._route.ledger.release(hold)
        self.fail(hold.units, error)

    def fail(self, units: Iterable[Unit], error: RouterError) -> None:
        """Note why these texts have no vector."""
        for unit in units:
            self.delivery.failed[unit.digest] = error

    # ---- a call in parts ----

    async def _divide(self, failed: _Failed) -> None:
        """Send a call in parts until each text is answered or named, or `Division` says that it is in vain.

        Both halves of a part are sent before one of them is divided further, down to a single text; only when
        something was answered that way are several pairs sent at once. Parts that may be billed go one after the other.
        """
        units = failed.hold.units
        careful = failed.error.billed != "no"
        division = Division(len(units), paid=self._route.price(1) > 0)
        pairs: list[tuple[Hold, ...]] = []
        to_halve, alone = [failed], list[ProviderError]()
        sends, error = failed.sends, failed.error
        turn = await self._take_turn()
        try:
            pairs += await self._halve(to_halve)
            self.delivery.divided += careful and bool(pairs)
            while pairs and not division.over():
                first = max(0, len(pairs) - (1 if careful else division.pairs_at_once()))
                parts = [part for pair in pairs[first:] for part in pair]
                del pairs[first:]
                results = await self._send_parts(parts, sends, careful)
                for part, result in zip(parts, results, strict=True):
                    problem = result.error if result else self.delivery.failed.get(part.units[0].digest)
                    unsure = isinstance(problem, ProviderError) and problem.billed != "no"
                    division.note(len(part.units), answered=problem is None, unsure=unsure)
                    self.delivery.in_vain += unsure
                    if isinstance(problem, ProviderError) and unsure and len(part.units) == 1:
                        alone.append(problem)
                    if result is not None:
                        error = result.error
                        to_halve.append(result)
                pairs += await self._halve(to_halve)
                if turn and not self._in_doubt():
                    self._probe.release()
                    turn = False
            if pairs:
                self._abandon(units, division, error)
            for problem in alone if division.answered else ():
                problem.blames_text = True
                problem.hint = "The server fails on this text and not on others. Leave it out, or change it."
        finally:
            for other in to_halve:
                with contextlib.suppress(StoreError):  # the ledger books it as soon as it can
                    await self._fail_alone(other.hold, other.error)
            for part in (part for pair in pairs for part in pair):
                with contextlib.suppress(StoreError):
                    await self._give_up(part, self.delivery.failed.get(part.units[0].digest) or error)
            if turn:
                self._probe.release()

    async def _send_parts(self, parts: Sequence[Hold], sends: int, careful: bool) -> list[_Failed | None]:
        """Send each part, all of them to their end; what came of each."""
        in_turn = asyncio.Semaphore(1 if careful else len(parts))

        async def one(part: Hold) -> _Failed | None:
            async with in_turn:
                return await self._attempt(part, marked=True, sends=sends, part=True)

        results = await asyncio.gather(*map(one, parts), return_exceptions=True)
        failed = [r for r in results if not isinstance(r, BaseException)]
        if len(failed) < len(parts):  # one ended in an error that nobody knows; it is booked, and now the others are
            for other in failed:
                if other is not None:
                    await self._fail_alone(other.hold, other.error)
            raise next(r for r in results if isinstance(r, BaseException))
        return failed

    async def _halve(self, calls: list[_Failed]) -> list[tuple[Hold, ...]]:
        """Take calls that failed from the list, and hold their halves; none where nothing more must be sent."""
        pairs = []
        while calls:
            hold, error, sends = calls[-1].hold, calls[-1].error, calls[-1].sends
            careful = error.billed != "no"
            on = not self._stopped() and (not careful or await self._wait(error, sends))
            calls.pop()
            units = hold.units
            middle = len(units) // 2
            halves = (units[:middle], units[middle:]) if on else ()
            holds = await end(self._route, self.delivery, hold, error, halves)
            if not isinstance(holds, Refused) and holds:
                pairs.append(holds)
                continue
            short = isinstance(holds, BudgetExceeded) and not careful
            why = BudgetExceeded("There is no money left to send the call in two halves.") if short else None
            self.fail(units, why or self._closed or _reason(error, holds))
        return pairs

    def _abandon(self, units: Sequence[Unit], division: Division, error: ProviderError) -> None:
        """Name the texts of a call that was not divided to its end."""
        if not self.delivery.vectors and error.action == "divide":
            self._closed = everything = self._closed or _refuses_all(error, self.texts)
            self.fail(units, everything)
            return
        why = type(error)(
            f"{error.message.removesuffix('.')}: given up after {division.sent:,} parts of a call of {len(units):,}"
            " texts; this text was in a part that failed.",
            "Leave out the texts that are named, or, if the server takes few texts a call, set max_texts_per_call in"
            " router.toml; then try again.",
        )
        done = self.delivery
        self.fail((u for u in units if u.digest not in done.vectors and u.digest not in done.failed), why)

    # ---- turns and waits ----

    def _in_doubt(self) -> bool:
        """True where calls were refused and none was answered: it may be the set-up that is wrong, and not a text."""
        return bool(self._refused) and not self.delivery.vectors and self._closed is None

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """While in doubt, one call at a time is tried; the others wait here."""
        turn = await self._take_turn()
        try:
            yield
        finally:
            if turn:
                self._probe.release()

    async def _take_turn(self) -> bool:
        """True: this call is the one that is tried, and must release `_probe`."""
        if not self._in_doubt():
            return False
        await self._probe.acquire()
        if self._in_doubt():
            return True
        self._probe.release()
        return False

    def _stopped(self) -> bool:
        return self._closed is not None or self._route.cancelled()

    async def _wait(self, error: ProviderError, attempt: int) -> bool:
        """Wait before the next send, never less than the provider asked.

        False: that would pass the deadline, or nothing more is to be sent.
        """
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 16))
        wait = random.uniform(FIRST_WAIT_S / 2, longest)
        if isinstance(error, RateLimited) and error.retry_after is not None:
            wait = error.retry_after + random.uniform(0, min(0.25, 0.05 + error.retry_after / 10))
        end = time.monotonic() + wait
        if end > self._route.deadline:
            return False
        while (left := end - time.monotonic()) > 0 and not self._stopped():
            await asyncio.sleep(min(left, 1.0))
        return not self._stopped()


def _reason(error: ProviderError, holds: tuple[Hold, ...] | Refused) -> RouterError:
    """Why a call that failed is not sent again: for its failure, unless its policy forbids it by now."""
    return holds if isinstance(holds, Refused) and not isinstance(holds, BudgetExceeded) else error


def _refuses_all(error: ProviderError, texts: int) -> CallRejected:
    refused = CallRejected(
        f"{error.message.removesuffix('.')}: it refused every call and every part of one that was tried, of {texts:,}"
        " texts, and answered none.",
        "Nothing was billed. Check the base URL, the model's name and what the endpoint takes.",
    )
    refused.action = "stop"
    return refused


def _hold_gone() -> OutcomeUnknown:
    """The sweeper took this process for dead and ended the hold."""
    return OutcomeUnknown("The hold of this call had run out before it was sent.", "Try again.")


def _out_of_time(error: ProviderError) -> ProviderError:
    if not isinstance(error, RateLimited):
        return error
    asked = "" if error.retry_after is None else f" and asked for a pause of {error.retry_after:,.0f} s"
    return RateLimited(
        f"{error.message.removesuffix('.')}{asked}: the request cannot wait as long as that.",
        "Nothing was billed for it. Try again later.",
        retry_after=error.retry_after,
    )
