"""Children that die by SIGKILL in the middle of their work. The product has no hooks: they are put in here."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.domain.errors import RouterError
from router.engine import Router
from router.providers.openai import OpenAIProvider
from router.store.database import Database
from router.store.ledger import Ledger
from router.store.vectors import Cache
from tests.faults.batch_kills import killed_batch, killed_opening  # noqa: F401  # orders, found here by their names
from tests.faults.ledger_oracle import hold, open_database, unit

POINTS = {
    "before send": ("held", "leaving"),
    "after send": ("answered", "on the way"),
    "before commit": ("storing", "settling"),
    "after commit": ("stored", "settled"),
}
"""Each point of fault 6, and the two moments that the trials take in turn."""


def die() -> None:
    """End this process as a power cut would, as far as a process can."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_request(*, folder: str, env: dict[str, str], first: list[str], then: list[str], moment: str, nth: int,
                   model: str, log: str, partial: bool) -> None:  # fmt: skip
    """Embed `first`; then `then`, and die at the nth such moment. What was done is written to `log` as it is done."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(*words: object) -> None:
        os.write(out, (" ".join(map(str, words)) + "\n").encode())

    seen = {"armed": 0, moment: 0}

    def come(which: str) -> None:
        if seen["armed"] and which == moment:
            seen[moment] += 1
            if seen[moment] >= nth:
                die()

    _hook(come, note)

    async def work() -> None:
        async with Router.open(folder, env=env) as router:
            await router.embed(first, policy="quality", model=model)
            note("acknowledged")
            seen["armed"] = 1
            try:
                await router.embed(then, policy="quality", model=model, partial=partial)
            except RouterError as error:
                note("error", error)

    asyncio.run(work())


def _hook(come: Callable[[str], None], note: Callable[..., None]) -> None:
    """Wrap the steps of a paid call, so that each tells `come` where it is, and `note` what it did."""
    opened, embed, store, settle, submit = (
        Ledger.open, OpenAIProvider.embed, Cache.store, Ledger.settle, Database.submit,
    )  # fmt: skip

    async def open_(self: Ledger, *args: Any, **details: Any) -> Any:
        result = await opened(self, *args, **details)
        come("held")
        return result

    async def embed_(self: OpenAIProvider, call: Any) -> Any:
        come("leaving")
        note("sent", len(call.texts))
        answer = asyncio.ensure_future(embed(self, call))
        await asyncio.sleep(0.001)  # the call is written to the socket, or on its way there
        come("on the way")
        reply = await answer
        come("answered")
        return reply

    async def store_(self: Cache, kind: Any, digests: Any, *args: Any) -> None:
        await store(self, kind, digests, *args)
        note("stored", *(digest.hex() for digest in digests))
        come("stored")

    async def settle_(self: Ledger, held: Any, amount: int, tokens: int, **more: Any) -> bool:
        done = await settle(self, held, amount, tokens, **more)
        note("settled", held.id, amount)
        come("settled")
        return done

    def submit_(self: Database, fn: Callable[..., Any], **details: Any) -> Any:
        moments = {"Cache.store": "storing", "Ledger.settle": "settling"}
        moment = moments.get(fn.__qualname__.split(".<locals>")[0])

        def then_come(conn: Any) -> Any:
            result = fn(conn)
            come(str(moment))  # written, and not yet committed
            return result

        return submit(self, then_come if moment else fn, **details)

    Ledger.open = open_  # type: ignore[method-assign]  # this process is about to die
    OpenAIProvider.embed = embed_  # type: ignore[method-assign]  # the same
    Cache.store = store_  # type: ignore[method-assign]  # the same
    Ledger.settle = settle_  # type: ignore[method-assign]  # the same
    Database.submit = submit_  # type: ignore[method-assign]  # the same


def killed_holder(*, folder: str, now: float, names: list[str], amount: int, unsent: int, tail: int) -> None:
    """Take a hold for each text, mark all but `unsent` as sent, and die while `tail` more holds are under way."""

    async def work() -> None:
        with open_database(Path(folder)) as database:
            ledger = Ledger(database, lambda: now)
            await ledger.renew()
            opened = await hold(ledger, *(unit(name, amount) for name in names), sent=False, apart=True)
            for one in opened.holds[unsent:]:
                await ledger.mark_sent(one)
            more = [hold(ledger, unit(f"{names[0]} and {n}", amount)) for n in range(tail)]
            tasks = [asyncio.ensure_future(coroutine) for coroutine in more]
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            die()

    asyncio.run(work())
