"""Rollups at two levels: a stretch is the same sum, however it is put together of days and quarter-hours."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlite_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.store import rollups
from router.store.database import Connection, Database, connect
from router.store.migrations import NAMES, migrations
from router.store.rollups import A_DAY, DIMENSIONS, Key

FIRST = 20_000 * A_DAY
SPAN = 4 * A_DAY
NAMES_OF = (("p", "q"), ("", "c"), ("m", "n"), ("api", "cache"))
everywhere = st.integers(FIRST - A_DAY, FIRST + SPAN + A_DAY)
some_filters = st.fixed_dictionaries(
    {}, optional={d: st.sampled_from(n) for d, n in zip(DIMENSIONS, NAMES_OF, strict=True)}
)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Connection, list[tuple[Key, int, int]]]]:
    """Four days of entries (key, charged, bucket), thin at their end, and the file they are in."""
    path = tmp_path_factory.mktemp("rollups") / "router.db"
    Database(path, migrations, NAMES, page_size=4096).close()
    conn = connect(path)
    dice = random.Random(5)
    entries = []
    conn.execute("BEGIN")
    for _ in range(600):
        quarter = FIRST + int(SPAN * dice.betavariate(1, 1.6))
        key: Key = (quarter, *(dice.choice(names) for names in NAMES_OF))  # type: ignore[assignment]  # four names
        entry = (key, dice.randrange(1, 100), dice.randrange(12))
        rollups.add(conn, key, {"requests": 1, "charged": entry[1]})
        rollups.add_latency(conn, key, entry[2])
        entries.append(entry)
    conn.execute("COMMIT")
    yield conn, entries
    conn.close()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(everywhere, everywhere, some_filters, st.sets(st.sampled_from((*DIMENSIONS, "quarter"))))
def test_a_stretch_is_the_sum_of_its_quarter_hours(
    books: tuple[Connection, list[tuple[Key, int, int]]], first: int, end: int, filters: dict[str, str], by: set[str]
) -> None:
    """Wherever it begins and ends, whatever it is filtered and grouped by; groups of nothing are not there."""
    conn, entries = books
    fields = ("quarter", *DIMENSIONS)
    columns = sorted(by)
    sums: dict[tuple[object, ...], list[int]] = {}
    buckets: Counter[int] = Counter()
    of_routes: dict[str, Counter[int]] = {}
    for key, charged, bucket in entries:
        named = dict(zip(fields, key, strict=True))
        if first <= key[0] < end and all(named[c] == v for c, v in filters.items()):
            total = sums.setdefault(tuple(named[c] for c in columns), [0, 0])
            total[0] += 1
            total[1] += charged
            buckets[bucket] += 1
            of_routes.setdefault(key[4], Counter())[bucket] += 1
    found = rollups.sums(conn, first, end, columns, filters)
    place = rollups.SUMS.index("charged")
    assert {key: [row[0], row[place]] for key, row in found.items()} == sums
    assert list(found) == sorted(found)
    assert rollups.histograms(conn, first, end, filters).get("", []) == sorted(buckets.items())
    by_route = rollups.histograms(conn, first, end, filters, by_route=True)
    assert by_route == {route: sorted(counts.items()) for route, counts in of_routes.items()}


def test_whole_days_are_not_read_by_quarter_hours(books: tuple[Connection, list[tuple[Key, int, int]]]) -> None:
    """Four days, or three and the one that is not over, are read as days, and in the coarsest grain that will do."""
    conn, entries = books
    last = max(key[0] for key, _, _ in entries)
    asked: list[str] = []
    conn.set_trace_callback(asked.append)
    try:
        rollups.sums(conn, FIRST, FIRST + 3 * A_DAY, ["route"], {})
        rollups.sums(conn, FIRST, last + 1, ["route"], {"policy": "p"})
        rollups.histograms(conn, FIRST, last + 1, {})
    finally:
        conn.set_trace_callback(None)
    read = [sql for sql in asked if "sum(" in sql]
    assert [f"span = 96 AND grain = {grain} " in sql for sql, grain in zip(read, (1, 4, 1), strict=True)] == [True] * 3


def test_older_books_are_summed_when_they_are_opened(
    tmp_path: Path, books: tuple[Connection, list[tuple[Key, int, int]]]
) -> None:
    """The migration makes from the old quarter-hours exactly what writing makes now."""
    conn, entries = books
    path = tmp_path / "old.db"
    old = connect(path)
    migrations().apply(sqlite_utils.Database(old), stop_before="m007_roll_up_by_grain")
    for key, charged, bucket in entries:
        old.execute(
            "INSERT INTO rollups (quarter, policy, collection, model, route, requests, charged)"
            " VALUES (?, ?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET requests = requests + 1,"
            " charged = charged + excluded.charged",
            (*key, charged),
        )
        old.execute(
            "INSERT INTO latencies VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
            (*key, bucket),
        )
    old.close()
    Database(path, migrations, NAMES, page_size=4096).close()
    new = connect(path, readonly=True)
    for name in ("rollups", "latencies"):
        assert new.execute(f"SELECT * FROM {name}").fetchall() == conn.execute(f"SELECT * FROM {name}").fetchall()
    new.close()
