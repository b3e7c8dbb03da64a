"""Dashboard: the Overview and Spend pages over 10 million requests against the same pages over 10 thousand.

Both databases hold ninety days of requests by the same policies, models and collections; the rows are made by SQL, and
the rollups from the rows. Each page is run whole, as for a new visitor, in turn on one and the other; the figure is the
ratio of medians, and must be at most 1.5. The readings that the pages make are timed by themselves too: what they give
must be what a full scan over the requests gives, and the p95 must be in the bucket of the true one.

`--rows N` makes the large one smaller; `--keep FOLDER` keeps the databases there, and finds them again that day.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlite_utils
from streamlit.testing.v1 import AppTest

import router.host
from router.domain.policy import BUILT_IN
from router.domain.values import Policy
from router.host import Host
from router.reporting import figures
from router.store.database import Connection, Database, connect
from router.store.ledger import Ledger
from router.store.migrations import NAMES, migrations
from router.store.usage import LATENCY_BOUNDS_MS, Usage

SMALL, LARGE = 10_000, 10_000_000
DAYS = 90
RUNS = 15
LIMIT = 1.5
NOW = time.time() // 60 * 60
MAIN = Path(__file__).resolve().parents[1] / "pages" / "main.py"
POLICIES = ("default", "economy", "quality", "local", "research", "nightly")
COLLECTIONS = ("", "handbook", "wiki", "catalogue")
MODELS = (
    "openai/text-embedding-3-small", "openai/text-embedding-3-large", "voyage/voyage-4-large", "voyage/voyage-4-lite",
    "cohere/embed-v4.0", "local/all-MiniLM-L6-v2",
)  # fmt: skip

# A number a row, mixed so that the digits of one say nothing of the next. Each policy has two models and two
# collections. Routes: half from the cache alone, a fifth local, a quarter paid, a few by batch, a few refused.
_REQUESTS = """
WITH RECURSIVE
  n (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last),
  mixed (i, h) AS (SELECT i, ((i * 2654435761) % 4294967296 * 40503 / 7) % 16777216 FROM n),
  kinds AS (SELECT i, h, h % 6 AS p, h / 6 % 100 AS r, h / 600 % 40 AS c, h / 24000 % 30 + 1 AS m, h % 1021 AS l
            FROM mixed),
  rows AS (
    SELECT i, p, (p + h / 1200 % 2) % 6 AS model, (p + h / 2400 % 2) % 4 AS collection, l, c AS cached, m AS missed,
      CASE WHEN r < 50 THEN 'cache' WHEN r < 70 THEN 'local' WHEN r < 95 THEN 'api' WHEN r < 97 THEN 'batch'
      ELSE 'refused' END AS route, h % 3 AS repeated FROM kinds)
INSERT INTO requests SELECT NULL, :start + i * :step,
  CASE route WHEN 'refused' THEN 'refused' ELSE 'done' END, (SELECT name FROM names WHERE kind = 'p' AND n = p), 1,
  (SELECT name FROM names WHERE kind = 'c' AND n = collection), 'document',
  (SELECT name FROM names WHERE kind = 'm' AND n = model), '', 384,
  cached + missed + repeated, cached + missed, CASE route WHEN 'refused' THEN 0 ELSE repeated END,
  CASE route WHEN 'refused' THEN 0 WHEN 'cache' THEN cached + missed ELSE cached END,
  CASE route WHEN 'local' THEN missed ELSE 0 END, CASE route WHEN 'api' THEN missed ELSE 0 END,
  CASE route WHEN 'batch' THEN missed ELSE 0 END, CASE route WHEN 'refused' THEN cached + missed ELSE 0 END,
  CASE WHEN route IN ('api', 'batch') THEN 120 * missed ELSE 0 END,
  CASE WHEN route IN ('api', 'batch') AND NOT (l % 50 = 0 AND i > :late) THEN 2400 * missed ELSE 0 END,
  CASE WHEN route IN ('api', 'batch') AND l % 50 = 0 AND i > :late THEN 2400 * missed ELSE 0 END,
  CASE route WHEN 'refused' THEN 0 WHEN 'cache' THEN 2400 * (cached + missed)
  WHEN 'local' THEN 2400 * (cached + missed) ELSE 2400 * cached END
  + CASE route WHEN 'refused' THEN 0 ELSE 2400 * repeated END,
  (SELECT ms FROM times WHERE n = l), '', '[]', '' FROM rows
"""

# As `append_charge` and `close_request` book a request, summed for a day's requests at once.
_ROLLUPS = """
WITH q AS (SELECT *, CAST(at / 900 AS INTEGER) AS quarter,
  CASE WHEN batch THEN 'batch' WHEN api THEN 'api' WHEN local THEN 'local' ELSE 'cache' END AS main
  FROM requests WHERE at >= :since AND at < :until),
parts AS (
  SELECT quarter, policy, collection, model, main AS route, 1 AS requests, api + batch AS texts, tokens, charged,
    unconfirmed, 0 AS a_cache, 2400 * repeated AS a_repeats, 0 AS a_local, repeated, status = 'refused' AS errors FROM q
  UNION ALL SELECT quarter, policy, collection, model, 'cache', 0, cache, 0, 0, 0, 2400 * cache, 0, 0, 0, 0
    FROM q WHERE cache
  UNION ALL SELECT quarter, policy, collection, model, 'local', 0, local, 0, 0, 0, 0, 0, 2400 * local, 0, 0
    FROM q WHERE local)
INSERT INTO rollups (quarter, policy, collection, model, route, requests, texts, tokens, charged, unconfirmed,
  avoided_cache, avoided_repeats, avoided_local, repeated, errors)
SELECT quarter, policy, collection, model, route, sum(requests), sum(texts), sum(tokens), sum(charged),
  sum(unconfirmed), sum(a_cache), sum(a_repeats), sum(a_local), sum(repeated), sum(errors)
FROM parts GROUP BY 1, 2, 3, 4, 5
"""
_LATENCIES = """
INSERT INTO latencies SELECT CAST(at / 900 AS INTEGER), policy, collection, model,
  CASE WHEN batch THEN 'batch' WHEN api THEN 'api' WHEN local THEN 'local' ELSE 'cache' END, bucket, count(*)
FROM requests JOIN times ON ms = latency_ms WHERE at >= :since AND at < :until AND NOT batch GROUP BY 1, 2, 3, 4, 5, 6
"""
_CHARGES = """
INSERT INTO charges (hold, kind, amount, tokens, scopes, request, policy, collection, model, route, at)
SELECT id, CASE WHEN charged THEN 'settled' ELSE 'unconfirmed' END, charged + unconfirmed, tokens, '[]', id, policy,
  collection, model, CASE WHEN batch THEN 'batch' ELSE 'api' END, at FROM requests WHERE charged OR unconfirmed
"""


def fill(path: Path, rows: int) -> None:
    """Ninety days of made-up requests and their rollups, by SQL alone."""
    conn = connect(path)
    # What the last migration makes, it makes from the rows: as an upgrade would, and quicker than row by row.
    migrations().apply(sqlite_utils.Database(conn), stop_before="m007_roll_up_by_grain")
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-400000", "foreign_keys=OFF"):
        conn.execute(f"PRAGMA {pragma}")
    conn.execute("CREATE TEMP TABLE names (kind TEXT, n INTEGER, name TEXT, PRIMARY KEY (kind, n)) WITHOUT ROWID")
    for kind, names in (("p", POLICIES), ("c", COLLECTIONS), ("m", MODELS)):
        conn.executemany("INSERT INTO names VALUES (?, ?, ?)", [(kind, n, name) for n, name in enumerate(names)])
    conn.execute("CREATE TEMP TABLE times (n INTEGER PRIMARY KEY, ms REAL UNIQUE, bucket INTEGER)")
    quantiles = statistics.NormalDist(3.2, 1.1).quantiles(1022)
    times = [round(2.718281828**x, 6) for x in quantiles]
    conn.executemany(
        "INSERT INTO times VALUES (?, ?, ?)",
        [(n, ms, next(b for b, bound in enumerate(LATENCY_BOUNDS_MS) if ms <= bound)) for n, ms in enumerate(times)],
    )
    start = NOW - DAYS * 86_400
    part = 1_000_000
    for first in range(0, rows, part):
        span = {
            "first": first,
            "last": min(rows, first + part),
            "start": start,
            "step": DAYS * 86_400 / rows,
            "late": rows - 3_000,
        }
        conn.execute(_REQUESTS, span)
    day = start // 86_400 * 86_400
    while day < NOW:
        for sql in (_ROLLUPS, _LATENCIES):
            conn.execute(sql, {"since": day, "until": day + 86_400})
        day += 86_400
    conn.execute(_CHARGES)
    migrations().apply(sqlite_utils.Database(conn))
    conn.execute("PRAGMA journal_mode=WAL")
    conn.close()


# ---- what the pages read -----------------------------------------------------------------------


class Books:
    """What of a router the readings use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path, migrations, NAMES, page_size=4096)
        self.usage = Usage(self.database, lambda: NOW)
        self.ledger = Ledger(self.database, lambda: NOW)


def overview(books: Books) -> Any:
    """What pages/overview.py reads."""
    usage = books.usage
    last = figures.today(NOW, "UTC")
    first, _ = figures.window_days("month", NOW, "UTC")
    since = figures.bounds_of(min(first, last - timedelta(days=29)), "UTC")[0]
    everything = figures.totals(usage, since=since, until=NOW)
    history = figures.days(usage, first=last - timedelta(days=29), last=last, zone="UTC")
    month = figures.totals(usage, since=figures.bounds_of(first, "UTC")[0], until=NOW)
    figures.forecast(history, spent=month.spent, limit=10**10, now=NOW, window="month", zone="UTC")
    figures.p95s(usage, history, zone="UTC")
    for name in ("", *(p.name for p in BUILT_IN)):
        books.ledger.states(name)
    usage.requests(since=since, until=NOW + 1, limit=10)
    return SimpleNamespace(figures=everything, since=since, until=NOW, where={}, zone="UTC")


def spend(days: int = 30, by: str = "route", policy: str = "", zone: str = "UTC") -> Callable[[Books], Any]:
    """What pages/spend.py reads, for a range, a group and a filter."""

    def read(books: Books) -> Any:
        usage, where = books.usage, {"policy": policy} if policy else {}
        last = figures.today(NOW, zone)
        first = last - timedelta(days=days - 1)
        since = figures.bounds_of(first, zone)[0]
        totals = figures.totals(usage, since=since, until=NOW + 1, where=where)
        report = figures.days(usage, first=first, last=last, zone=zone, by=by, where=where)
        if by != "route":
            figures.days(usage, first=first, last=last, zone=zone, where=where)
        figures.p95s(usage, report, zone=zone, where=where)
        figures.groups(usage, since=since, until=NOW + 1, by="collection", where=where)
        books.ledger.states(policy)
        month, _ = figures.window_days("month", NOW, zone)
        back = min(month, last - timedelta(days=figures.LOOK_BACK + 1))
        figures.days(usage, first=back, last=last, zone=zone, where=where)
        usage.latencies(since=since, until=NOW + 1, shares=(0.5, 0.95), where=where)
        usage.requests(since=since, until=NOW + 1, where=where, limit=100)
        books.ledger.unconfirmed()
        return SimpleNamespace(figures=totals, since=since, until=NOW + 1, where=where, zone=zone)

    return read


def behind(limit: int, **where: Any) -> Callable[[Books], Any]:
    """A page of the requests behind the bar of a day five weeks ago; also the small database fills it."""
    start = (NOW // 86_400 - 35) * 86_400

    def read(books: Books) -> Any:
        found = books.usage.behind(since=start, until=start + 86_400, where=where, limit=limit)
        assert len(found) == limit
        return None

    return read


READINGS: dict[str, Callable[[Books], Any]] = {
    "Overview": overview,
    "Spend": spend(),
    "Spend, 90 days by model": spend(90, "model"),
    "Spend, one policy": spend(30, "collection", "research"),
    "Spend, one policy, Paris": spend(30, "route", "research", "Europe/Paris"),
    "Behind a bar by route": behind(25, route="api"),
    "Behind a bar by provider": behind(5, model=MODELS[:2]),
}


# ---- the pages ---------------------------------------------------------------------------------

PAGES: dict[str, tuple[str, dict[str, str]]] = {
    "Overview": ("overview", {}),
    "Spend": ("spend", {}),
    "Spend, 90 days by model": ("spend", {"range": "90d", "by": "model"}),
    "Spend, a week by the hour": ("spend", {"range": "7d", "step": "hour"}),
    "Spend, one policy, Paris": ("spend", {"only": "research"}),
    "Spend, behind a bar": ("spend", {"bar": f"{datetime.fromtimestamp(NOW, UTC):%Y-%m-%d}", "of": "api"}),
}


def page(host: Host, name: str, query: dict[str, str]) -> None:
    """Run a page for a new visitor."""
    router.host._host = host
    app = AppTest.from_file(MAIN, default_timeout=600)
    for key, value in query.items():
        app.query_params[key] = value
    if name != "overview":
        app.switch_page(f"{name}.py")
    app.run()
    assert not app.exception, app.exception
    assert any(metric.label == "p95" for metric in app.metric), "the page shows no figures"


@contextlib.contextmanager
def hosted(folder: Path) -> Iterator[Host]:
    """The app's engine on a data folder, with a policy in another time zone."""
    host = Host(folder)
    try:
        ids = [model.id for model in host.router.catalog.models]
        host.run(host.router.policies.save(Policy(name="research", timezone="Europe/Paris"), ids))
        yield host
    finally:
        host.close()


# ---- the same by a full scan -------------------------------------------------------------------


def check(conn: Connection, shown: Any) -> None:
    """Hold what is shown against the requests themselves. The ends of a stretch are whole quarter-hours."""
    if shown is None:
        return
    since, until = shown.since // 900 * 900, -(-shown.until // 900) * 900
    where = "at >= ? AND at < ?" + "".join(f" AND {column} = ?" for column in shown.where)
    values = (since, until, *shown.where.values())
    figures = shown.figures
    scanned = conn.execute(
        "SELECT count(*), sum(status = 'refused'), sum(cache + local + api + batch + repeated),"
        " sum(cache + local + api + batch), sum(cache), sum(tokens), sum(charged), sum(unconfirmed), sum(avoided)"
        f" FROM requests NOT INDEXED WHERE {where}",
        values,
    ).fetchone()
    assert scanned == (
        figures.requests, figures.errors, figures.asked, figures.texts, figures.cached, figures.tokens,
        figures.charged, figures.unconfirmed, figures.saved,
    ), (scanned, figures)  # fmt: skip
    (n,) = conn.execute(f"SELECT count(*) FROM requests WHERE {where} AND NOT batch", values).fetchone()
    (true,) = conn.execute(
        f"SELECT latency_ms FROM requests WHERE {where} AND NOT batch ORDER BY latency_ms LIMIT 1 OFFSET ?",
        (*values, max(0, -(-n * 95 // 100) - 1)),
    ).fetchone()
    bucket = next(bound for bound in LATENCY_BOUNDS_MS if true <= bound)
    assert figures.p95_ms == bucket, (figures.p95_ms, true)


@contextlib.contextmanager
def opened(folder: Path, rows: int) -> Iterator[Books]:
    """The books of so many requests; made unless they are there."""
    path = folder / str(rows) / "router.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        began = time.perf_counter()
        aside = path.with_suffix(".part")
        aside.unlink(missing_ok=True)
        fill(aside, rows)
        aside.rename(path)
        print(f"{rows:>12,} requests made in {time.perf_counter() - began:.0f} s,", end=" ")
        print(f"{path.stat().st_size / 2**20:,.0f} MiB", flush=True)
    books = Books(path)
    try:
        yield books
    finally:
        books.database.close()


def main() -> int:
    """Print the medians and their ratios; 1 where that of a page is above `LIMIT`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=LARGE)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    os.environ["ROUTER_WORKER"] = "0"
    logging.disable(logging.WARNING)  # Streamlit's, that no browser is there
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both = [stack.enter_context(opened(folder, rows)) for rows in (SMALL, options.rows)]
        print("Readings")
        for name, read in READINGS.items():
            check(both[1].database.reader(), read(both[1]))
            compare(name, [lambda books=books, read=read: read(books) for books in both])
        hosts = [stack.enter_context(hosted(books.path.parent)) for books in both]
        print("Pages")
        worst = max(
            compare(name, [lambda host=host, shown=shown: page(host, *shown) for host in hosts])
            for name, shown in PAGES.items()
        )
    print(f"worst page {worst:.2f}x, limit {LIMIT}x; every figure is that of a full scan, every p95 in its bucket")
    return int(worst > LIMIT)


def compare(name: str, both: Sequence[Callable[[], Any]]) -> float:
    """The second's median time by the first's, run in turn; printed."""
    times: list[list[float]] = [[], []]
    for run in range(RUNS + 1):
        for n, do in enumerate(both):
            began = time.perf_counter()
            do()
            if run:  # the first is to fill the caches of both
                times[n].append(time.perf_counter() - began)
    small, large = (statistics.median(t) * 1000 for t in times)
    print(f"  {name:<26} {large:7.1f} ms against {small:7.1f} ms: {large / small:.2f}x", flush=True)
    return large / small


if __name__ == "__main__":
    sys.exit(main())
