"""Usage: sums that add up in every time zone, latencies that add up, and nothing counted twice."""

from __future__ import annotations

import pytest

from router.domain.values import Avoided, RouteCounts
from router.store.database import Database
from router.store.ledger import Ledger
from router.store.usage import QUARTER_S, REPLAY_DAYS, Outcome, Usage
from tests.faults.books import MODEL, hold, unit
from tests.store.conftest import Clock

WHO = {"policy": "p", "version": 1, "collection": "", "role": "document"}


@pytest.fixture
def usage(database: Database, clock: Clock) -> Usage:
    """Usage on the same file and clock as the ledger."""
    clock.now = 1_800_000_000.0 // QUARTER_S * QUARTER_S
    return Usage(database, clock)


def outcome(**changes: object) -> Outcome:
    """A request of ten texts: four cached, six paid for, two repeats."""
    usual: dict[str, object] = {
        "status": "done", "model": MODEL, "texts": 12, "distinct": 10, "repeated": 2, "charged": 120,
        "routes": RouteCounts(cache=4, api=6), "tokens": 10, "avoided": Avoided(cache=40, repeats=20),
        "latency_ms": 5.0,
    }  # fmt: skip
    return Outcome(**{**usual, **changes})  # type: ignore[arg-type]  # its own fields


async def test_a_charge_and_its_request_are_counted_once(usage: Usage, ledger: Ledger, clock: Clock) -> None:
    """Texts, tokens and money of a charge come with its settlement, the rest with the request: the sums are whole."""
    number = await usage.begin(**WHO)  # type: ignore[arg-type]  # its own arguments
    one = (await hold(ledger, *(unit(str(n), 20) for n in range(6)), request=number)).holds[0]
    await ledger.settle(one, 120, 6)
    assert await usage.record(outcome(), request=number, **WHO) == number  # type: ignore[arg-type]  # the same
    total = usage.total(since=clock.now, until=clock.now + 1)
    assert (total.requests, total.texts, total.repeated, total.tokens, total.charged) == (1, 10, 2, 6, 120)
    assert (total.avoided_cache, total.avoided_repeats, total.avoided, total.errors) == (40, 20, 60, 0)
    by_route = dict(usage.sums(since=clock.now, until=clock.now + 1, by=["route"]))
    assert {key: s.texts for key, s in by_route.items()} == {("api",): 6, ("cache",): 4}
    row = usage.request(number)
    assert row is not None
    assert (row["status"], row["charged"], row["cache"], row["api"], row["avoided"]) == ("done", 120, 4, 6, 60)


async def test_unconfirmed_money_is_taken_off_when_it_is_struck(usage: Usage, ledger: Ledger, clock: Clock) -> None:
    """An orphan shows as unconfirmed; settled late, it shows as charged and no more as unconfirmed."""
    other = Ledger(ledger.database, clock)
    one = (await hold(ledger, unit("a", 20))).holds[0]
    clock.now += 60
    await other.renew()
    await other.sweep()
    since, until = clock.now - 60, clock.now + 1
    assert (usage.total(since=since, until=until).unconfirmed, usage.total(since=since, until=until).charged) == (20, 0)
    await ledger.settle(one, 15, 1)
    total = usage.total(since=since, until=until)
    assert (total.unconfirmed, total.charged, total.texts, total.tokens) == (0, 15, 1, 1)


async def test_quarter_hours_are_cut_at_their_edges(usage: Usage, clock: Clock) -> None:
    """A request counts in its own quarter-hour; bounds widen to whole ones; the end is not within."""
    start = clock.now
    for offset in (0, QUARTER_S - 1, QUARTER_S, 2 * QUARTER_S):
        clock.now = start + offset
        await usage.record(outcome(), **WHO)  # type: ignore[arg-type]  # its own arguments
    counts = [s.requests for _, s in usage.sums(since=start, until=start + 3 * QUARTER_S, by=["quarter"])]
    assert counts == [2, 1, 1]
    assert usage.total(since=start, until=start + QUARTER_S).requests == 2
    assert usage.total(since=start + 1, until=start + QUARTER_S + 1).requests == 3
    assert usage.total(since=start + 9 * QUARTER_S, until=start + 10 * QUARTER_S).requests == 0


async def test_sums_are_grouped_and_filtered_by_known_names_only(usage: Usage, clock: Clock) -> None:
    """Policy, model and route; an unknown name is left out and never reaches the SQL; values are bound, not pasted."""
    await usage.record(outcome(), **WHO)  # type: ignore[arg-type]  # its own arguments
    await usage.record(outcome(status="failed"), **{**WHO, "policy": "x' OR 1=1 --"})  # type: ignore[arg-type]  # the same
    span = {"since": clock.now, "until": clock.now + 1}
    assert {k: s.errors for k, s in usage.sums(**span, by=["policy"])} == {("p",): 0, ("x' OR 1=1 --",): 1}
    assert usage.total(**span, where={"policy": "x' OR 1=1 --"}).requests == 1
    assert usage.total(**span, where={"policy": "' OR ''='"}).requests == 0
    assert len(usage.sums(**span, by=["1; DROP TABLE rollups"])) == 1
    assert [r["policy"] for r in usage.requests(**span)] == ["x' OR 1=1 --", "p"]


async def test_latency_is_the_bucket_in_which_the_share_ends(usage: Usage, clock: Clock) -> None:
    """Ninety-five of a hundred requests are quick: p95 says so, p96 does not; none at all is zero."""
    for n in range(100):
        await usage.record(outcome(latency_ms=3.0 if n < 95 else 900.0), **WHO)  # type: ignore[arg-type]  # its own
    span = {"since": clock.now, "until": clock.now + 1}
    assert 3.0 <= usage.latency(**span, share=0.95) < 3.0 * 2**0.5
    assert 900.0 <= usage.latency(**span, share=0.96) < 900.0 * 2**0.5
    assert usage.latency(since=0, until=1, share=0.95) == 0.0


async def test_digests_are_forgotten_and_sums_are_not(usage: Usage, database: Database, clock: Clock) -> None:
    """After 35 days a request can no longer be replayed; what it cost stays."""
    await usage.record(outcome(), **WHO, replay=(b"d" * 32, b"tttt", b"cccc"))  # type: ignore[arg-type]  # its own
    clock.now += REPLAY_DAYS * 86_400
    await usage.record(outcome(), **WHO, replay=(b"e" * 32, b"tttt", b"cccc"))  # type: ignore[arg-type]  # the same
    await usage.forget()
    assert len(database.reader().execute("SELECT * FROM replay").fetchall()) == 2  # not before the time is over
    clock.now += 1
    await usage.forget()
    assert [row[1] for row in database.reader().execute("SELECT * FROM replay")] == [b"e" * 32]
    assert usage.total(since=0, until=clock.now + QUARTER_S).requests == 2
