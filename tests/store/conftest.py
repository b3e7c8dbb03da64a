"""A database, a clock that is turned by hand, and a ledger on both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from router.store.database import Database
from router.store.ledger import Ledger
from tests.faults.ledger_oracle import open_database, set_policy


@dataclass(slots=True)
class Clock:
    """Epoch seconds, as tests set them."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until it is turned."""
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty `router.db`."""
    with open_database(tmp_path) as database:
        yield database


@pytest.fixture
async def ledger(database: Database, clock: Clock) -> Ledger:
    """A ledger with a lease, and policies without a budget: a hold under a policy that there is not is refused."""
    ledger = Ledger(database, clock)
    for name in ("p", "q", "a", "b", "c", "other"):
        await set_policy(database, clock, name=name)
    await ledger.renew()
    return ledger
