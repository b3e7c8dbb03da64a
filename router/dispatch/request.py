"""All paid calls of one request: held and claimed, sent at once, and texts that others are paying for waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from router.dispatch.delivery import Delivery, Route
from router.dispatch.division import deliver
from router.dispatch.packing import pack
from router.dispatch.sender import Sender
from router.domain.errors import BudgetExceeded, OutcomeUnknown, Refused, StoreBusy
from router.domain.values import Unit
from router.store.entries import Hold, Opened, Purpose
from router.store.ledger import Price

FIRST_POLL_S = 0.01
LONGEST_POLL_S = 0.25


class PaidRequest:
    """Sends what one request has to pay for.

    `partial` requests hold call by call, and go on when the money ends; others hold everything first, or are
    refused with nothing spent.
    """

    def __init__(self, route: Route, purpose: Purpose, *, partial: bool, progress: Callable[[int], None]) -> None:
        self._route = route
        self._purpose = purpose
        self._partial = partial
        self._progress = progress
        self._sender = Sender(route)
        self._tight = asyncio.Lock()
        self._under_way = 0
        self._ended = asyncio.Event()

    async def run(self, units: Sequence[Unit]) -> Delivery:
        """What came of these units; those in neither `vectors` nor `failed` are in the cache by now.

        Raises:
            BudgetExceeded, Refused, StoreBusy: not `partial`, and nothing was spent.
        """
        self._sender.texts = len(units)
        waiting = await self._wait_for(await self._round(units))
        while waiting:
            try:
                busy = await self._round(waiting)
            except (Refused, StoreBusy) as error:  # too late to say that nothing was spent
                self._sender.fail(waiting, error)
                break
            waiting = await self._wait_for(busy)
        return self._sender.delivery

    async def _round(self, units: Sequence[Unit]) -> list[Unit]:
        """Send what nobody else is paying for; returns what somebody else is."""
        route = self._route
        endpoint = route.limiter.endpoint
        groups = pack(units, route.model.limits, max_texts=endpoint.max_texts_per_call, limiters=endpoint.max_in_flight)
        if self._partial:
            return await self._call_by_call(groups)
        opened = await self._open(groups)
        once = len(opened.holds) == 1
        await _all(self._deliver(hold, marked=once) for hold in opened.holds)
        return list(opened.busy)

    async def _call_by_call(self, groups: Sequence[Sequence[Unit]]) -> list[Unit]:
        busy: list[Unit] = []
        places = asyncio.Semaphore(self._route.limiter.endpoint.max_in_flight)

        async def one(group: Sequence[Unit]) -> None:
            async with places:
                busy.extend(await self._fill(group))

        await _all(one(group) for group in groups)
        return busy

    async def _fill(self, group: Sequence[Unit]) -> list[Unit]:
        """Send a group in as few calls as its budgets allow at a time; returns what somebody else is paying for."""
        busy: list[Unit] = []
        while group:
            try:
                opened, group = await self._hold_what_fits(group)
            except (Refused, StoreBusy) as error:
                self._sender.fail(group, error)
                break
            busy += opened.busy
            try:
                for hold in opened.holds:
                    await self._deliver(hold, marked=True)
            finally:
                self._one_less()
        return busy

    async def _hold_what_fits(self, group: Sequence[Unit]) -> tuple[Opened, Sequence[Unit]]:
        """Hold a call of as many of these texts as the budgets take; gives what is left of them too.

        A hold is the most that a call can cost. So while calls of ours are under way, the end of one is waited for: it
        gives back what it did not need. Only then is the call made smaller, down to its smallest text. One call waits
        like this at a time, and those behind it in turn.

        Raises:
            BudgetExceeded: not even the smallest text fits, with nothing of ours under way.
            Refused: the policy or the kill switch says no, or the request was cancelled.
            StoreBusy: the lock was not had.
        """
        if not self._tight.locked():
            with contextlib.suppress(BudgetExceeded):
                return await self._begin(group), ()
        async with self._tight:
            part, left = group, 0
            while True:
                self._ended.clear()
                self._require_wanted()
                try:
                    opened = await self._open([part])
                except BudgetExceeded as error:
                    if self._under_way:
                        await self._ended.wait()
                        part = group
                        continue
                    if len(part) == 1:
                        raise
                    left = error.left
                else:
                    self._under_way += 1
                    held = {unit.digest for unit in part}
                    return opened, [unit for unit in group if unit.digest not in held]
                fit = _that_fit(part, left, self._route.price)
                # Smaller each time: where a limit is passed already, not even what costs nothing is taken.
                part = fit if 0 < len(fit) < len(part) else [min(group, key=lambda unit: unit.tokens)]

    async def _begin(self, group: Sequence[Unit]) -> Opened:
        """Hold one call; it counts as under way from here until `_one_less`."""
        self._require_wanted()
        self._under_way += 1
        try:
            return await self._open([group])
        except BaseException:
            self._one_less()
            raise

    def _require_wanted(self) -> None:
        if self._route.cancelled():
            raise Refused("The request was cancelled.")

    def _one_less(self) -> None:
        self._under_way -= 1
        self._ended.set()

    async def _open(self, groups: Sequence[Sequence[Unit]]) -> Opened:
        route = self._route
        return await route.ledger.open(
            groups, self._purpose, price=route.price, stored=route.stored, sent=len(groups) == 1
        )

    async def _deliver(self, hold: Hold, *, marked: bool) -> None:
        await deliver(self._sender, hold, marked=marked)
        self._progress(len(self._sender.delivery.vectors))

    async def _wait_for(self, units: Sequence[Unit]) -> list[Unit]:
        """Wait until nobody claims these texts any more; the next round finds them stored, or pays for them."""
        if not units:
            return []
        pause = FIRST_POLL_S
        busy = partial(asyncio.to_thread, partial(self._route.ledger.busy, self._purpose.kind))
        in_batches = await busy([u.digest for u in units], in_batches=True)
        if in_batches:
            error = Refused(
                "This text is being embedded by a batch that is under way, which may take a day.",
                "Wait for its job to end, or cancel the job.",
            )
            self._sender.fail([u for u in units if u.digest in in_batches], error)
            units = [u for u in units if u.digest not in in_batches]
        digests = [u.digest for u in units]
        while digests and await busy(digests):
            if time.monotonic() + pause > self._route.deadline or self._route.cancelled():
                self._sender.fail(units, OutcomeUnknown("Another request is still paying for this text.", "Try again."))
                return []
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * 1.5)
        return list(units)


def _that_fit(units: Sequence[Unit], left: int, price: Price) -> list[Unit]:
    """The texts that together cost `left` nanodollars at most, those that come first rather than the small ones."""
    total = sum(unit.tokens for unit in units)
    most = bisect_right(range(total + 1), left, key=price) - 1
    chosen: list[Unit] = []
    for unit in units:
        if unit.tokens <= most:
            chosen.append(unit)
            most -= unit.tokens
    return chosen


async def _all(work: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run all of it to the end, then raise the first error there was: no call is left alone half booked."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
