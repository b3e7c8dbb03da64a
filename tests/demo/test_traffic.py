"""The demo's made-up traffic: books that balance, figures that agree, and something to see on every page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router import Router
from router.demo import write
from router.demo.traffic import INCIDENT
from router.reporting import figures
from router.store.database import connect
from tests.faults.ledger_oracle import audit, audit_folder

NOW = datetime(2026, 11, 21, 14, tzinfo=UTC).timestamp()
DAY = 86_400.0
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ninety days, as `make demo` writes them."""
    data = tmp_path_factory.mktemp("demo") / "data"
    assert write(data, now=NOW)
    return data


@pytest.fixture
async def router(folder: Path) -> AsyncIterator[Router]:
    """An engine on them."""
    async with Router.open(folder, env={}, clock=lambda: NOW) as opened:
        yield opened


def test_the_books_balance(folder: Path) -> None:
    """Balances are the fold of the entries, nothing is held, and no program is left registered."""
    books = audit_folder(folder)
    assert (books.held, books.pending) == (0, 0)
    assert books.settled > books.unconfirmed > 0
    conn = connect(folder / "router.db", readonly=True)
    assert conn.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    assert conn.execute("SELECT value FROM settings WHERE key = 'demo'").fetchone() == ("made-up traffic",)
    conn.close()


async def test_rollups_requests_and_ledger_show_the_same(router: Router) -> None:
    """Money, texts, failures and requests, however they are summed."""
    whole = figures.totals(router.usage, since=NOW - 100 * DAY, until=NOW + 1)
    rows = router.database.reader().execute(
        "SELECT count(*), sum(charged), sum(unconfirmed), sum(avoided), sum(cache), sum(cache + local + api + batch),"
        " sum(status NOT IN ('done', 'partial')) FROM requests"
    )
    shown = (whole.requests, whole.charged, whole.unconfirmed, whole.saved, whole.cached, whole.texts)
    assert (*shown, whole.errors) == rows.fetchone()
    assert router.ledger.totals() == (whole.charged, whole.unconfirmed, 0)
    audit(router.database.reader())


async def test_there_is_something_to_see_on_every_page(router: Router) -> None:
    """All routes, several models, policies and collections, refusals, a month near its budget, an incident."""
    span = {"since": NOW - 100 * DAY, "until": NOW + 1}
    for group, least in (("route", 4), ("model", 4), ("policy", 5), ("collection", 4)):
        assert len(router.usage.sums(**span, by=[group])) >= least, group  # type: ignore[arg-type]  # its own
    months: dict[tuple[str, str], int] = {}
    for policy, month, spent in router.database.reader().execute(
        "SELECT policy, strftime('%Y-%m', at, 'unixepoch'), sum(charged + unconfirmed) FROM requests GROUP BY 1, 2"
    ):
        months[policy, month] = spent
    for policy in router.policies.all():
        for budget in policy.budgets:
            if budget.window == "month":
                spent = max((s for (name, _), s in months.items() if name == policy.name), default=0)
                assert spent <= budget.amount
                if policy.name in ("quality", "research"):
                    assert spent > budget.amount * 0.9
    assert len(router.ledger.unconfirmed()) > 0
    down = datetime.fromtimestamp(NOW - (INCIDENT - 1) * DAY, UTC).date()
    assert {datetime.fromtimestamp(c.at, UTC).date() for c in router.ledger.unconfirmed()} == {down}
    (refused,) = router.database.reader().execute("SELECT count(*) FROM requests WHERE status = 'refused'").fetchone()
    assert refused > 10


async def test_the_cache_fills_and_weeks_have_weekends(router: Router) -> None:
    """The hit rate grows from month to month; a Sunday is quieter than a Wednesday, a night than a day."""
    rates = [
        figures.totals(router.usage, since=NOW - since * DAY, until=NOW - (since - 30) * DAY).hit_rate
        for since in (90, 60, 30)
    ]
    assert rates == sorted(rates)  # type: ignore[type-var]  # every month has texts
    by_day = dict(
        router.database.reader()
        .execute("SELECT strftime('%w', at, 'unixepoch'), count(*) FROM requests GROUP BY 1")
        .fetchall()
    )
    assert by_day["0"] < by_day["3"] / 1.5
    by_hour = dict(
        router.database.reader()
        .execute("SELECT strftime('%H', at, 'unixepoch'), count(*) FROM requests GROUP BY 1")
        .fetchall()
    )
    assert by_hour["13"] > 5 * by_hour.get("04", 0)


async def test_its_policies_replay_to_their_own_cost(router: Router) -> None:
    """The demo's replay page tells the truth, too."""
    for policy in router.policies.all():
        found = await router.replay(policy, since=NOW - 30 * DAY, until=NOW)
        assert (found.changed, found.draft.cost) == (0, found.real.cost), policy.name
        assert bool(found.left_out) == (policy.name == "nightly")


def test_the_same_seed_writes_the_same_books(tmp_path: Path) -> None:
    """Row for row; another seed writes others. A folder with books is left alone."""

    def rows(name: str, **options: int) -> list[object]:
        assert write(tmp_path / name, now=NOW, days=4, **options)
        conn = connect(tmp_path / name / "router.db", readonly=True)
        found = conn.execute("SELECT * FROM requests").fetchall() + conn.execute("SELECT * FROM replay").fetchall()
        conn.close()
        return found

    first = rows("a")
    assert rows("b") == first
    assert rows("c", seed=8) != first
    assert not write(tmp_path / "a", now=NOW, days=4)
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if not p.name.startswith("router.db-")) == ["router.db"]
