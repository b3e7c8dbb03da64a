"""Programs of their own for the fault tests: `Racer` starts one, and each order is a line of JSON there and back.

`python -m tests.faults.racers FOLDER` opens ledgers and routers on a data folder, as the orders say;
`python -m tests.faults.racers --forks` forks a child for every order, cheap enough to kill hundreds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Racer:
    """Another program. Answers come in the order of the orders."""

    def __init__(self, folder: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.racers", "--forks" if folder is None else str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, do: str, **details: Any) -> None:
        """Give an order; `hear` takes its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """The answer to the oldest order that is not answered."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the other program died; see what it wrote to stderr"
        return json.loads(line)

    def ask(self, do: str, **details: Any) -> Any:
        """Give an order and wait for its answer."""
        self.tell(do, **details)
        return self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()
        assert kind is not None or self._process.returncode == 0, "the other program failed at its end"


def all_ask(racers: list[Racer], do: str, **details: Any) -> list[Any]:
    """The same order to all at once; their answers."""
    for racer in racers:
        racer.tell(do, **details)
    return [racer.hear() for racer in racers]


class Program:
    """The far side: what a racer can be told to do."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.now: float | None = None
        self.holds: list[Any] = []

    def clock(self) -> float:
        return time.time() if self.now is None else self.now

    # ---- ledgers ----

    async def open_ledger(self, *, mutant: bool = False) -> str:
        """Open a ledger and take a lease."""
        from router.store.ledger import Ledger
        from tests.faults.ledger_oracle import open_database

        kind = _check_then_act() if mutant else Ledger
        self.ledger = kind(self.stack.enter_context(open_database(self.folder)), self.clock)
        await self.ledger.renew()
        return self.ledger.process

    async def race(self, *, tries: int, at_once: int, amount: int) -> dict[str, int]:
        """Try so many holds of `amount` nanodollars each; how many were taken and refused."""
        from router.domain.errors import BudgetExceeded
        from tests.faults.ledger_oracle import hold, unit

        done = {"taken": 0, "refused": 0}
        places = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with places:
                try:
                    await hold(self.ledger, unit(f"{os.getpid()} {number}", amount))
                except BudgetExceeded:
                    done["refused"] += 1
                else:
                    done["taken"] += 1

        await asyncio.gather(*(one(number) for number in range(tries)))
        return done

    async def hold(self, *, names: list[str], amount: int, sent: bool) -> list[int]:
        """Take a hold for each of these texts and keep it."""
        from tests.faults.ledger_oracle import hold, unit

        opened = await hold(self.ledger, *(unit(name, amount) for name in names), sent=sent, apart=True)
        self.holds += opened.holds
        return [h.id for h in opened.holds]

    async def settle(self) -> list[bool]:
        """Settle the holds that were kept, at what was held; which of them were still ours."""
        kept, self.holds = self.holds, []
        return [await self.ledger.settle(h, h.amount, h.amount) for h in kept]

    async def renew(self, *, now: float) -> None:
        """Say that this program lives, at a time."""
        self.now = now
        await self.ledger.renew()

    async def sweep(self) -> tuple[int, int]:
        """End the holds of dead programs."""
        return await self.ledger.sweep()

    # ---- routers ----

    async def open_router(self, *, env: dict[str, str]) -> None:
        """Start the program on the folder."""
        from router.engine import Router

        self.router = await self.stack.enter_async_context(Router.open(self.folder, env=env))

    async def embed(self, *, clients: int, texts: list[str], model: str) -> dict[str, Any]:
        """So many clients ask for the same texts at once; what all paid, and how many got a wrong vector."""
        import numpy as np

        from router.sandbox import expected_vectors

        ask = (self.router.embed(texts, policy="quality", model=model) for _ in range(clients))
        results = await asyncio.gather(*ask)
        right = expected_vectors(model, texts)
        wrong = sum(not np.allclose(result.vectors, right, atol=1e-5) for result in results)
        return {
            "cost": sum(r.cost for r in results),
            "unconfirmed": sum(r.unconfirmed for r in results),
            "wrong": wrong,
        }

    # ---- the lock ----

    async def lock(self, *, file: str) -> None:
        """Take a database's write lock and keep it."""
        from router.store.database import connect

        self.locker = connect(self.folder / file)
        self.locker.execute("BEGIN IMMEDIATE")

    async def unlock(self) -> None:
        """Let go of the lock."""
        self.locker.execute("ROLLBACK")
        self.locker.close()


def _check_then_act() -> type[Any]:
    """The mutant: a ledger that asks whether there is room, and then takes without asking again under the lock."""
    import router.store.ledger as module
    from router.domain.errors import BudgetExceeded

    def room(*args: object) -> None: ...

    assert callable(module.require_room)  # else the mutant would be no mutant
    module.require_room = room  # this program has no other ledger

    class CheckThenAct(module.Ledger):
        async def open(self, groups: Any, purpose: Any, **details: Any) -> Any:
            wanted = sum(unit.tokens for group in groups for unit in group)
            if any(s.budget.hard and s.left < wanted for s in self.states(purpose.policy)):
                raise BudgetExceeded("There is no room.")
            await asyncio.sleep(0.01)  # what lies between checking and acting in real programs
            return await super().open(groups, purpose, **details)

    return CheckThenAct


async def serve(folder: Path) -> None:
    """Do what the lines on stdin say until they end."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        program = Program(folder, stack)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            answer = await getattr(program, order.pop("do"))(**order)
            print(json.dumps(answer), flush=True)


def serve_forks() -> None:
    """Fork a child for every line; the answer is the signal that ended it, or 0. Has no thread of its own."""
    import openai
    import sqlite_utils  # noqa: F401  # loaded once, here, and not in every child

    from router.engine import Router  # noqa: F401  # the same
    from tests.faults import kills

    assert openai.AsyncOpenAI  # the SDK loads its parts on first use
    for line in sys.stdin:
        order = json.loads(line)
        work: Callable[..., None] = getattr(kills, order.pop("do"))
        child = os.fork()
        if child == 0:
            try:
                work(**order)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a child failed; see what it wrote to stderr"
        print(json.dumps(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--forks":
        serve_forks()
    else:
        asyncio.run(serve(Path(sys.argv[1])))
