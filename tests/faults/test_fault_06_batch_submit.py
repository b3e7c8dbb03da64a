"""Fault 6, the fifth point: SIGKILL in a batch submit, 40 times; the other four are in test_fault_06_kills.py.

Figures: acknowledged vectors or charges lost (0); holds left (0); texts billed again (0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.sandbox import Sandbox
from tests.faults.batch_kills import SUBMIT
from tests.faults.racers import Racer
from tests.faults.test_fault_23_batch_ends import killed_and_recovered


@pytest.fixture(scope="module")
def forks() -> Iterator[Racer]:
    """The program that forks the children that die."""
    with Racer(None) as racer:
        yield racer


async def test_a_submission_that_is_killed_loses_nothing(
    forks: Racer, sandbox: Sandbox, fresh: Callable[[str], Path], count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """Its hold is neither lost nor left: the batch is found again, or was never there and its money is released."""
    kills = count(4, 40)
    orphans = 0
    for number in range(kills):
        moment = SUBMIT[(number * 2) % len(SUBMIT)]
        done = await killed_and_recovered(forks, sandbox, fresh(str(number)), moment, number + 1_000)
        assert (done.batches, done.billed_again) == (done.needed, 0)
        orphans += done.open_when_killed
    assert orphans > 0
    figure(
        6, f"SIGKILL in a batch submit, {kills} kills: 0 acknowledged vectors or charges lost, {orphans} open holds"
        f" taken over, 0 left; 0 texts billed again",
    )  # fmt: skip
