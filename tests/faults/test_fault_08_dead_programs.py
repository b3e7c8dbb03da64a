"""Fault 8: two programs on one data folder while a third was killed. Figure: orphan holds not resolved exactly once,
and live holds touched (0 and 0 in 200 trials)."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

from router.domain.values import Budget
from router.store.ledger import LEASE_S
from tests.faults.ledger_oracle import audit_folder, open_database, set_policy
from tests.faults.racers import Racer, all_ask

AMOUNT = 100


def test_orphans_are_resolved_once_and_live_holds_are_left_alone(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """While two programs hold money and sweep at the same time, each hold of the killed third is ended once."""
    trials = count(8, 200)
    now = 1_800_000_000.0

    async def prepare() -> None:
        with open_database(tmp_path) as database:
            await set_policy(database, lambda: now, Budget(amount=10**12, window="total"))

    asyncio.run(prepare())
    resolved = spent = 0
    with Racer(tmp_path) as one, Racer(tmp_path) as two, Racer(None) as forks:
        both = [one, two]
        all_ask(both, "open_ledger")
        for trial in range(trials):
            rng = random.Random(trial)
            all_ask(both, "renew", now=now)
            live = [
                set(racer.ask("hold", names=[f"{trial} live {who} {n}" for n in range(3)], amount=AMOUNT, sent=n_sent))
                for who, (racer, n_sent) in enumerate(zip(both, (True, False), strict=True))
            ]
            names = [f"{trial} dead {n}" for n in range(rng.randint(1, 8))]
            unsent = rng.randint(0, len(names))
            ended = forks.ask(
                "killed_holder", folder=str(tmp_path), now=now, names=names, amount=AMOUNT, unsent=unsent,
                tail=rng.choice([0, 5]),
            )  # fmt: skip
            assert ended == signal.SIGKILL
            assert all_ask(both, "sweep") == [[0, 0], [0, 0]], "a lease that has not run out was swept"
            orphans = audit_folder(tmp_path).pending - 6
            assert orphans >= len(names)

            now += LEASE_S + 1
            all_ask(both, "renew", now=now)
            swept = all_ask(both, "sweep")
            assert sum(a + b for a, b in swept) == orphans, "an orphan hold was not resolved exactly once"
            assert sum(released for _, released in swept) == unsent
            resolved += orphans
            spent += (orphans - unsent + 6) * AMOUNT
            assert audit_folder(tmp_path).pending == 6, "a live hold was touched"
            assert all_ask(both, "sweep") == [[0, 0], [0, 0]]
            assert all_ask(both, "settle") == [[True] * 3] * 2
            books = audit_folder(tmp_path)
            assert (books.held, books.pending, books.shown) == (0, 0, spent)
            assert len(live[0] | live[1]) == 6
    figure(8, f"{trials} killed programs beside two live ones: {resolved} orphan holds, each resolved once;"
           f" 0 of {6 * trials:,} live holds touched")  # fmt: skip
