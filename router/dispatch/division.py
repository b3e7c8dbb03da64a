"""A call that fails as a whole is sent in parts, so that the text that is to blame stands alone."""

from __future__ import annotations

import asyncio
import contextlib

from router.dispatch.sender import Call, Sender
from router.dispatch.steps import Attempt, DivisionLimit
from router.domain.errors import ProviderError, StoreError
from router.store.entries import Hold


async def deliver(sender: Sender, hold: Hold, *, marked: bool) -> None:
    """Send the call of a hold until it is answered or given up, in parts where it must be.

    Never raises for a provider's fault.
    """
    call = Call(hold=hold, attempt=Attempt(texts=len(hold.units)), marked=marked)
    async with sender.turn():
        await sender.send(call)
    if call.error is not None:
        await _Division(sender, call, call.error).run()


class _Division:
    """Sends a call in parts until each text is answered or named, or `DivisionLimit` says that it is in vain.

    Both halves of a part are sent before one of them is divided further, down to a single text; only when something
    was answered that way are several pairs sent at once. Parts that may be billed go one after the other.
    """

    def __init__(self, sender: Sender, call: Call, error: ProviderError) -> None:
        self._sender = sender
        self._delivery = sender.delivery
        self._units = call.hold.units
        self._sends = call.attempt.sends
        self._careful = error.billed != "no"
        self._limit = DivisionLimit(len(self._units), paid=sender.route.price(1) > 0)
        self._error = error
        self._to_halve = [(call, error)]
        self._pairs: list[list[Call]] = []
        self._unsure_alone: list[bytes] = []

    async def run(self) -> None:
        """Divide the call. No hold is left at the end, whatever ends it."""
        async with self._sender.turn() as turn:
            try:
                await self._halve()
                self._delivery.divided += self._careful and bool(self._pairs)
                while self._pairs and not self._limit.over():
                    await self._send_pairs()
                    await self._halve()
                    if not self._sender.in_doubt():
                        await turn.aclose()
                if self._pairs:
                    self._abandon()
                self._blame_texts()
            finally:
                await self._end_holds()

    async def _halve(self) -> None:
        """Hold the halves of the calls that failed, unless nothing more must be sent."""
        sender = self._sender
        while self._to_halve:
            call, error = self._to_halve[-1]
            on = not sender.stopped() and (error.billed == "no" or await sender.wait(call.attempt.pause_s(error)))
            self._to_halve.pop()
            units = call.hold.units
            middle = len(units) // 2
            holds = await sender.hold_again(call.hold, error, (units[:middle], units[middle:]) if on else ())
            parts = [(half, Attempt(texts=len(half.units), sends=self._sends)) for half in holds]
            if parts:
                self._pairs.append([Call(hold=hold, attempt=fresh, marked=True, part=True) for hold, fresh in parts])

    async def _send_pairs(self) -> None:
        """Send the parts that are next, all of them to their end, and note what came of each."""
        pairs = 1 if self._careful else self._limit.pairs_at_once()
        parts = [part for pair in self._pairs[-pairs:] for part in pair]
        del self._pairs[-pairs:]
        results: list[BaseException | None] = []
        for group in [[part] for part in parts] if self._careful else [parts]:
            results += await asyncio.gather(*map(self._sender.send, group), return_exceptions=True)
        self._to_halve += [(part, part.error) for part in parts if part.error is not None]
        for result in results:
            if result is not None:  # an unknown error, or the database's: that call is settled, `_end_holds` is next
                raise result
        for part in parts:
            self._note(part)

    def _note(self, part: Call) -> None:
        units = part.hold.units
        problem = part.error or self._delivery.failed.get(units[0].digest)
        unsure = isinstance(problem, ProviderError) and problem.billed != "no"
        self._limit.note(len(units), answered=problem is None, unsure=unsure)
        self._delivery.in_vain += unsure
        if unsure and len(units) == 1:
            self._unsure_alone.append(units[0].digest)
        self._error = part.error or self._error

    def _abandon(self) -> None:
        """Name the texts of a call that was not divided to its end."""
        error, done = self._error, self._delivery
        if not done.vectors and error.action == "divide":
            self._sender.fail(self._units, self._sender.close_refused(error))
            return
        why = error.copy(
            message=f"{error.message.removesuffix('.')}: given up after {self._limit.sent:,} parts of a call of"
            f" {len(self._units):,} texts; this text was in a part that failed.",
            hint="Leave out the texts that are named, or, if the server takes few texts a call, set max_texts_per_call"
            " in router.toml; then try again.",
        )
        self._sender.fail((u for u in self._units if u.digest not in done.vectors and u.digest not in done.failed), why)

    def _blame_texts(self) -> None:
        """Texts that failed alone, where others of their call were answered, are why: trying again would not help."""
        for digest in self._unsure_alone if self._limit.answered else ():
            self._delivery.failed[digest] = blamed = self._delivery.failed[digest].copy(
                hint="The server fails on this text and not on others. Leave it out, or change it."
            )
            blamed.passes = False

    async def _end_holds(self) -> None:
        sender = self._sender
        for call, error in self._to_halve:
            with contextlib.suppress(StoreError):  # the ledger books it as soon as it can
                await sender.fail_alone(call.hold, error)
        for part in (part for pair in self._pairs for part in pair):
            with contextlib.suppress(StoreError):
                await sender.give_up(part.hold, self._delivery.failed.get(part.hold.units[0].digest) or self._error)
