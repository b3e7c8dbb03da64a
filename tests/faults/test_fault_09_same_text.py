"""Fault 9: 64 clients across 4 processes ask for the same new text at once. Figure: texts billed a trial (1)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from router.sandbox import Sandbox
from tests.faults.ledger_oracle import MODEL, audit_folder
from tests.faults.racers import Racer, all_ask

PROCESSES = 4
CLIENTS = 16
"""A process; 64 in all."""


def test_the_same_new_text_asked_for_at_once_is_paid_once(
    sandbox: Sandbox, fresh: Callable[[str], Path], count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """64 clients of 4 processes get their vector, and the provider sees the text once; so for 100 texts at once."""
    trials = count(8, 1_000)
    folder = fresh("data")
    cost = 0
    with ExitStack() as stack:
        racers = [stack.enter_context(Racer(folder)) for _ in range(PROCESSES)]
        all_ask(racers, "open_router", env=sandbox.environment)

        def everyone_asks(texts: list[str]) -> None:
            nonlocal cost
            answers = all_ask(racers, "embed", clients=CLIENTS, texts=texts, model=MODEL)
            assert [a["wrong"] for a in answers] == [0] * PROCESSES
            assert [a["unconfirmed"] for a in answers] == [0] * PROCESSES
            cost += sum(a["cost"] for a in answers)

        for trial in range(trials):
            sandbox.configure(latency_ms=trial % 4 * 3)
            everyone_asks([f"the text of trial {trial}"])
            bill = sandbox.bill()
            assert (bill.texts, bill.calls) == (trial + 1, trial + 1), "the same text was paid for twice"
        for trial in range(count(2, 20)):
            everyone_asks([f"text {n} of a hundred, {trial}" for n in range(100)])
            bill = sandbox.bill()
            assert bill.texts == trials + 100 * (trial + 1)
        assert bill.most_often == 1
        books = audit_folder(folder)
    assert books.settled == cost == bill.nanodollars
    assert (books.unconfirmed, books.held, books.pending) == (0, 0, 0)
    figure(9, f"{PROCESSES * CLIENTS} clients in {PROCESSES} processes, {trials:,} trials: 1 text billed in each;"
           f" the same 100 texts at once: 100 billed")  # fmt: skip
