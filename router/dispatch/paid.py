"""One paid call from its hold to its settlement: the one place where calls are sent again.

A 429 is known to be unbilled and is queued again under the same hold until the deadline. What may have been billed
is sent at most three times, each time under a hold of its own. A call that is too large, or that the provider
rejects, is never sent again unchanged: it is divided until the text that is to blame stands alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from router.dispatch.lane import Lane, Ticket
from router.domain.errors import (
    BadReply,
    BudgetExceeded,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    OutcomeUnknown,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RouterError,
    StoreError,
    Unreachable,
)
from router.domain.values import Model, Role, Unit
from router.providers.base import EmbedCall, Floats, Provider, Reply, check
from router.store.cache import Cache, Kind, kind_of
from router.store.entries import Hold
from router.store.ledger import Ledger, Price

MOST_SENDS = 3
"""Sends of one call that may have been billed."""
GRACE_S = 0.5
"""What a provider has, beyond its time-out, to say itself that it is over."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0


@dataclass(slots=True)
class Delivery:
    """What came of some calls.

    Attributes:
        vectors: full vectors by digest.
        failed: why a text has none, by digest.
        charged, unconfirmed: nanodollars.
        tokens: tokens that were billed.
        model: who answered last, of several ways to one space.
    """

    vectors: dict[bytes, Floats] = field(default_factory=dict)
    failed: dict[bytes, RouterError] = field(default_factory=dict)
    charged: int = 0
    unconfirmed: int = 0
    tokens: int = 0
    model: Model | None = None

    def add(self, later: Delivery) -> None:
        """Add what came of a later try for the same texts."""
        self.vectors.update(later.vectors)
        for digest in later.vectors:
            self.failed.pop(digest, None)
        self.failed.update(later.failed)
        self.charged += later.charged
        self.unconfirmed += later.unconfirmed
        self.tokens += later.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All that a call needs on its way: the model, its provider and lane, and the books.

    `fits` tells the kinds of cached vectors that may answer for the model.
    """

    model: Model
    role: Role
    provider: Provider
    lane: Lane
    ledger: Ledger
    cache: Cache
    price: Price
    fits: Callable[[Kind], bool]
    deadline: float
    cancelled: Callable[[], bool]


class _HoldGone(OutcomeUnknown):
    """The sweeper took this process for dead and ended the hold: the call must not leave."""


class Sender:
    """Sends the calls of one request and gathers what came of them."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._closed: RouterError | None = None
        self.delivery = Delivery()

    async def deliver(self, hold: Hold, *, marked: bool, sends: int = 0) -> None:
        """Send the call of this hold until it is answered or given up. Never raises for a provider's fault."""
        route = self._route
        limited = unreached = 0
        while True:
            call = EmbedCall(model=route.model, texts=tuple(u.text for u in hold.units), role=route.role)
            try:
                tokens = sum(u.tokens for u in hold.units)
                ready = None if marked else partial(self._mark, hold)
                async with route.lane.slot(tokens, route.deadline, route.cancelled, ready) as ticket:
                    marked = True
                    if self._closed is not None:
                        raise self._closed
                    reply = await self._send(call, ticket)
                await asyncio.sleep(0)  # the next call leaves before this one's answer is unpacked
                vectors = self._check(call, ticket, reply)
            except RateLimited as error:
                limited += 1
                if not await self._wait(error, limited):
                    await self._give_up(hold, _out_of_time(error))
                    return
            except Unreachable as error:
                unreached += 1
                if unreached >= MOST_SENDS or not await self._wait(error, unreached):
                    await self._give_up(hold, error)
                    return
            except (CallTooLarge, CallRejected) as error:
                await self._divide(hold, error, sends)
                return
            except (KeyRejected, QuotaExhausted, NotConfigured, StoreError) as error:
                self._closed = error  # it would be the same for every other call of this request
                await self._give_up(hold, error)
                return
            except _HoldGone as error:
                self.fail(hold.units, error)
                return
            except ProviderError as error:
                sends += 1
                again = await self._again(hold, error, sends)
                if again is None:
                    return
                hold = again
            except Exception:  # none that we know of: booked, so that no hold is left, and passed on
                if marked:
                    await route.ledger.fail(hold, "It ended in an unknown error.", billed=None, price=route.price)
                else:
                    await route.ledger.release(hold)
                raise
            else:
                try:
                    await self._keep(hold, vectors, reply.tokens)
                except StoreError as error:  # charged, and lost: the disk is full or gone
                    self._closed = error  # and whatever were sent now would be lost too
                    self.fail(hold.units, error)
                return

    async def _mark(self, hold: Hold) -> None:
        """Note that the call is about to leave; a crash from here on books it as one that may have been billed."""
        if self._closed is not None:
            raise self._closed
        if not await self._route.ledger.mark_sent(hold):
            raise _HoldGone("The hold of this call had run out before it was sent.", "Try again.")

    async def _send(self, call: EmbedCall, ticket: Ticket) -> Reply:
        """One send, with a deadline on the clock of its own: what has left is paid for, so the request waits for it.

        A provider that keeps the deadline itself comes first: it knows whether the call had left. Tells the lane where
        it failed.
        """
        lane = self._route.lane
        try:
            async with asyncio.timeout(lane.endpoint.timeout_s + GRACE_S):
                return await self._route.provider.embed(call)
        except TimeoutError as exc:
            error = OutcomeUnknown(f"{lane.endpoint.name} did not answer in time.", "It may have been billed.")
            lane.failed(ticket, error)
            raise error from exc
        except ProviderError as error:
            lane.failed(ticket, error)
            raise

    def _check(self, call: EmbedCall, ticket: Ticket, reply: Reply) -> Floats:
        """The reply's vectors, if they can be trusted; tells the lane how the call went."""
        lane = self._route.lane
        try:
            vectors = check(call, reply)
        except BadReply as error:
            lane.failed(ticket, error)
            raise
        lane.succeeded(ticket, reply.headers)
        return vectors

    async def _keep(self, hold: Hold, vectors: Floats, tokens: int | None) -> None:
        """Store, then settle: a crash between the two over-counts money for a while and loses no vector."""
        route, out = self._route, self.delivery
        units = hold.units
        try:
            await route.cache.store(
                kind_of(route.model, route.role, "whole"), [u.digest for u in units], [u.likely for u in units], vectors
            )
        finally:
            billed = sum(u.tokens for u in units) if tokens is None else tokens
            amount = route.price(billed)
            await route.ledger.settle(hold, amount, billed, confirmed=tokens is not None)
            out.charged += amount
            out.tokens += billed
        out.vectors.update(zip((u.digest for u in units), vectors, strict=True))

    async def _again(self, hold: Hold, error: ProviderError, sends: int) -> Hold | None:
        """Book what may have been billed; a new hold for another send, or None when it is given up."""
        route, out = self._route, self.delivery
        tokens = error.usage.tokens if isinstance(error, BadReply) and error.usage is not None else None
        billed = None if tokens is None else route.price(tokens)
        retry = sends < MOST_SENDS and not route.cancelled() and time.monotonic() < route.deadline
        retry = retry and route.lane.may_resend()
        holds = await route.ledger.fail(
            hold,
            error.message,
            billed=billed,
            tokens=tokens or 0,
            again=(hold.units,) if retry else (),
            price=route.price,
        )
        out.charged += billed or 0
        out.tokens += tokens or 0
        out.unconfirmed += hold.amount if billed is None else 0
        if not holds:
            self.fail(hold.units, error)
            return None
        if not await self._wait(error, sends):
            await self._give_up(holds[0], error)
            return None
        return holds[0]

    async def _divide(self, hold: Hold, error: ProviderError, sends: int) -> None:
        """Send the two halves instead; a text that stands alone is the one to blame."""
        route = self._route
        if len(hold.units) == 1:
            error.hint = "Nothing was billed for it. Leave the text out, or shorten it."
            await self._give_up(hold, error)
            return
        middle = len(hold.units) // 2
        halves = (hold.units[:middle], hold.units[middle:])
        holds = await route.ledger.fail(hold, error.message, billed=0, again=halves, price=route.price)
        if not holds:
            self.fail(hold.units, BudgetExceeded("There is no money left to send the call in two halves."))
            return
        await asyncio.gather(*(self.deliver(half, marked=True, sends=sends) for half in holds))

    async def _give_up(self, hold: Hold, error: RouterError) -> None:
        await self._route.ledger.release(hold)
        self.fail(hold.units, error)

    def fail(self, units: Sequence[Unit], error: RouterError) -> None:
        """Note why these texts have no vector."""
        for unit in units:
            self.delivery.failed[unit.digest] = error

    def forgive(self, units: Sequence[Unit]) -> None:
        """Forget that these texts failed: they are tried again."""
        for unit in units:
            self.delivery.failed.pop(unit.digest, None)

    async def _wait(self, error: ProviderError, attempt: int) -> bool:
        """Wait before the next send, never less than the provider asked.

        False: that would pass the deadline, or the request was cancelled.
        """
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 16))
        wait = random.uniform(FIRST_WAIT_S / 2, longest)
        if isinstance(error, RateLimited) and error.retry_after is not None:
            wait = error.retry_after + random.uniform(0, min(0.25, 0.05 + error.retry_after / 10))
        end = time.monotonic() + wait
        if end > self._route.deadline:
            return False
        while (left := end - time.monotonic()) > 0 and not self._route.cancelled():
            await asyncio.sleep(min(left, 1.0))
        return not self._route.cancelled()


def _out_of_time(error: RateLimited) -> RateLimited:
    asked = "" if error.retry_after is None else f" and asked for a pause of {error.retry_after:,.0f} s"
    return RateLimited(
        f"{error.message.removesuffix('.')}{asked}: the request cannot wait as long as that.",
        "Nothing was billed for it. Try again later.",
        retry_after=error.retry_after,
    )
