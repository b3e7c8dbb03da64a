"""What `doctor` looks at in the databases of a data folder, by connections of its own.

Every function raises StoreError where the file cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from router.store.balances import Scope, balances, fold
from router.store.database import Connection, Error, connect, translate
from router.store.vectors import Cache

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


def durability(path: Path) -> tuple[str, str]:
    """The journal mode of a database and the synchronous level of our connections to it: `wal` and `FULL`, if sound."""
    with _opened(path) as conn:
        (mode,) = conn.execute("PRAGMA journal_mode").fetchone()
        (level,) = conn.execute("PRAGMA synchronous").fetchone()
    return mode, SYNCHRONOUS[level]


def unbalanced(ledger: Path) -> list[Scope]:
    """The balances that are not the sum of their entries, seen at one moment."""
    with _opened(ledger) as conn:
        conn.execute("BEGIN")
        kept, summed = balances(conn), fold(conn)
    nothing = (0, 0, 0)
    return sorted(s for s in kept.keys() | summed.keys() if kept.get(s, nothing) != summed.get(s, nothing))


def damaged_vectors(path: Path) -> dict[str, int]:
    """How many damaged vectors were ever found in a cache, and removed, by model."""
    with closing(Cache(path)) as cache:
        return cache.damages()


@contextmanager
def _opened(path: Path) -> Iterator[Connection]:
    try:
        with closing(connect(path, readonly=True)) as conn:
            yield conn
    except Error as error:
        raise translate(error, path) from error
