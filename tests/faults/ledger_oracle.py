"""What the fault tests look at in the books, and the smallest ledger that they can look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from router.domain.values import Budget, Policy, Unit
from router.store.balances import balances, fold
from router.store.database import Connection, Database, connect
from router.store.ledger import Ledger, Opened, Purpose
from router.store.migrations import NAMES, migrations
from router.store.policies import Policies

MODEL = "openai/text-embedding-3-small"
KIND = f"{MODEL}|"
MODELS = ["local/all-MiniLM-L6-v2", MODEL]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All money of the account, in nanodollars, and holds that are still pending."""

    settled: int
    unconfirmed: int
    held: int
    pending: int

    @property
    def shown(self) -> int:
        """What the ledger shows as spent."""
        return self.settled + self.unconfirmed


def audit(conn: Connection) -> Books:
    """The books, once every balance was found equal to the fold of the entries (I5), in one snapshot."""
    conn.execute("BEGIN")
    try:
        kept, entries = balances(conn), fold(conn)
        assert {k: v for k, v in kept.items() if any(v)} == {k: v for k, v in entries.items() if any(v)}
        (pending,) = conn.execute("SELECT count(*) FROM holds WHERE state = 'pending'").fetchone()
    finally:
        conn.execute("COMMIT")
    held, settled, unconfirmed = kept.get(("account", "total", 0), (0, 0, 0))
    assert min(held, settled, unconfirmed) >= 0
    return Books(settled=settled, unconfirmed=unconfirmed, held=held, pending=pending)


def audit_folder(folder: Path) -> Books:
    """`audit` of a data folder that other programs may have open."""
    conn = connect(folder / "router.db", readonly=True)
    try:
        return audit(conn)
    finally:
        conn.close()


@contextmanager
def open_database(folder: Path) -> Iterator[Database]:
    """`router.db` in a folder."""
    database = Database(folder / "router.db", migrations, NAMES, page_size=4096)
    try:
        yield database
    finally:
        database.close()


async def set_policy(
    database: Database, clock: Callable[[], float], *budgets: Budget, name: str = "p", timezone: str = "UTC"
) -> None:
    """Save a policy of these budgets. No account budget is set."""
    await Policies(database, clock).save(Policy(name=name, budgets=budgets, timezone=timezone), MODELS)


def purpose(policy: str = "p", request: int = 1) -> Purpose:
    """What a hold of these tests is for."""
    return Purpose(request=request, policy=policy, model=MODEL, kind=KIND, route="api")


def unit(name: str, tokens: int) -> Unit:
    """A text of so many tokens; `one_each` makes a token a nanodollar."""
    return Unit(digest=blake2b(name.encode(), digest_size=32).digest(), text=name, tokens=tokens)


def one_each(tokens: int) -> int:
    """The price that makes a token a nanodollar."""
    return tokens


async def hold(
    ledger: Ledger, *units: Unit, policy: str = "p", request: int = 1, sent: bool = True, apart: bool = False
) -> Opened:
    """Hold a nanodollar a token for units that no cache has: one call, or a call each (`apart`)."""

    def nothing(digests: Sequence[bytes]) -> set[bytes]:
        return set()

    groups = [[u] for u in units] if apart else [units]
    return await ledger.open(groups, purpose(policy, request), price=one_each, stored=nothing, sent=sent)
