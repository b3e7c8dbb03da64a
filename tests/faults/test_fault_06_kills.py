"""Fault 6: SIGKILL at four points of a request, 40 each; the fifth, a batch submit, is in test_fault_06_batch_submit.

Figures: acknowledged vectors or charges lost (0); holds left (0); texts billed again beyond the calls in flight (0).
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from router.engine import Router
from router.pipeline.validate import digest
from router.sandbox import Sandbox, expected_vectors
from router.store.ledger import LEASE_S
from router.store.vectors import Cache
from tests.faults.kills import POINTS
from tests.faults.ledger_oracle import MODEL, audit, audit_folder
from tests.faults.racers import Racer

CALLS = 4
A_CALL = 5
"""Texts a call; so that a request has several calls, some done and some under way when it is killed."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Racer]:
    """The program that forks the children that die."""
    with Racer(None) as racer:
        yield racer


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One killed request. `first` was answered before; `log` is what the child had done by the time it died."""

    folder: Path
    first: list[str]
    then: list[str]
    log: list[list[str]]

    def logged(self, word: str) -> list[list[str]]:
        """The lines of the log that begin with a word."""
        return [line[1:] for line in self.log if line[0] == word]


def kill(forks: Racer, sandbox: Sandbox, folder: Path, moment: str, number: int) -> Trial:
    """Have a child embed, and die at a moment of one of its calls."""
    rng = random.Random(f"{moment} {number}")
    sandbox.reset()
    sandbox.configure(latency_ms=rng.choice([0, 0, 3]))
    # Five texts a call, and calls of one request at the same time in some trials and one by one in others.
    (folder / "router.toml").write_text(
        f"[providers.openai]\nmax_texts_per_call = {A_CALL}\nmax_in_flight = {rng.choice([1, 2, 8])}\n", "utf-8"
    )
    first = [f"{moment} {number} first {n}" for n in range(A_CALL)]
    then = [f"{moment} {number} then {n}" for n in range(A_CALL * CALLS)]
    log = folder / "log"
    partial = rng.random() < 0.5
    most = CALLS if partial or moment != "held" else 1
    ended = forks.ask(
        "killed_request", folder=str(folder), env=sandbox.environment, first=first, then=then, moment=moment,
        nth=rng.randint(1, most), model=MODEL, log=str(log), partial=partial,
    )  # fmt: skip
    assert ended == signal.SIGKILL, "the child ended before it came to the moment"
    lines = [line.split() for line in log.read_text("utf-8").splitlines()]
    assert ["acknowledged"] in lines
    sandbox.configure(latency_ms=0)
    return Trial(folder=folder, first=first, then=then, log=lines)


def stored(folder: Path, texts: list[str]) -> set[str]:
    """Which of the texts have a vector on disk."""
    cache = Cache(folder / "vectors.db")
    try:
        found = cache.lookup([digest(text) for text in texts])
    finally:
        cache.close()
    return {key.hex() for rows in found.values() for key in rows}


async def recover(trial: Trial, sandbox: Sandbox) -> tuple[int, int]:
    """Start the program again after the lease; check all that must hold. Texts billed again, orphans resolved."""
    kept = stored(trial.folder, trial.first + trial.then)
    acknowledged = {digest(text).hex() for text in trial.first} | {d for line in trial.logged("stored") for d in line}
    assert acknowledged <= kept, "an acknowledged vector is lost"
    before = audit_folder(trial.folder)
    async with Router.open(trial.folder, env=sandbox.environment, clock=lambda: time.time() + 2 * LEASE_S) as router:
        conn = router.database.reader()
        books = audit(conn)
        assert (books.held, books.pending) == (0, 0), "a hold leaked"
        assert conn.execute("SELECT count(*) FROM claims").fetchone() == (0,), "a claim leaked"
        assert sandbox.bill().nanodollars <= books.shown, "the provider billed more than the ledger shows"
        for number, amount in trial.logged("settled"):
            charges = conn.execute("SELECT kind, amount FROM charges WHERE hold = ?", (number,)).fetchall()
            assert charges == [("settled", int(amount))], "an acknowledged charge is lost"
        never_sent = conn.execute(
            "SELECT count(*) FROM holds WHERE sent = 0 AND state NOT IN ('released')"
        ).fetchone()  # fmt: skip
        assert never_sent == (0,), "a hold that was never sent became a charge"

        result = await router.embed(trial.first + trial.then, policy="quality", model=MODEL)
        assert np.allclose(result.vectors, expected_vectors(MODEL, trial.first + trial.then), atol=1e-5)
        books = audit(router.database.reader())
    assert books.held == 0
    bill = sandbox.bill()
    assert bill.nanodollars <= books.shown
    again = {key for key, times in bill.digests.items() if times > 1}
    assert bill.most_often <= 2
    assert again.isdisjoint(kept), "a text whose vector was on disk was paid for again"
    in_flight = sum(int(n) for (n,) in trial.logged("sent")) - sum(len(line) for line in trial.logged("stored"))
    assert len(again) <= in_flight, "more was billed again than the calls in flight"
    return len(again), before.pending


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_request_loses_nothing_and_hides_nothing(
    forks: Racer, sandbox: Sandbox, fresh: Callable[[str], Path], count: Callable[[int, int], int],
    figure: Callable[[int, str], None], point: str,
) -> None:  # fmt: skip
    """What was acknowledged is there, orphan holds are resolved, and only calls in flight are billed again."""
    trials = count(3, 40)
    again = orphans = 0
    for number in range(trials):
        trial = kill(forks, sandbox, fresh(str(number)), POINTS[point][number % 2], number)
        more, resolved = await recover(trial, sandbox)
        again, orphans = again + more, orphans + resolved
    assert orphans > 0  # else no kill came while money was held
    if point in ("after send", "before commit"):
        assert again > 0  # else no kill came while an answer was not yet on disk
    figure(
        6, f"SIGKILL {point}, {trials} kills: 0 acknowledged vectors or charges lost, {orphans} orphan holds resolved,"
        f" 0 left; {again} texts billed again, all of them in flight",
    )  # fmt: skip
