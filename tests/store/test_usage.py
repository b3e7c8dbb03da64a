"""Usage: sums that add up in every time zone, latencies that add up, and nothing counted twice."""

from __future__ import annotations

import random
from typing import Any

import pytest

from router.domain.values import RouteCounts, Saved
from router.store.database import Database
from router.store.entries import Purpose
from router.store.ledger import Ledger
from router.store.usage import MOST_ROWS, QUARTER_S, REPLAY_DAYS, Outcome, Usage
from tests.faults.ledger_oracle import MODEL, hold, unit
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
        "routes": RouteCounts(cache=4, api=6), "tokens": 10, "saved": Saved(cache=40, repeats=20),
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
    assert (total.avoided_cache, total.avoided_repeats, total.saved, total.errors) == (40, 20, 60, 0)
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


# ---- the requests of a list, and behind a bar --------------------------------------------------


async def test_a_list_of_requests_goes_on_where_the_page_before_ended(usage: Usage, clock: Clock) -> None:
    """Newest first, also among those of one moment; none twice, none left out, and no page without an end."""
    for n in range(7):
        clock.now += n % 2
        await usage.record(outcome(), **{**WHO, "policy": "pq"[n % 3 == 0]})  # type: ignore[arg-type]  # its own
    span: dict[str, Any] = {"since": 0, "until": clock.now + 1}
    for where in ({}, {"policy": "p"}):
        whole = [r["id"] for r in usage.requests(**span, where=where)]
        assert whole == sorted(whole, reverse=True)
        paged, place = [], None
        while page := usage.requests(**span, where=where, limit=2, before=place):
            paged += [r["id"] for r in page]
            place = page[-1]["place"]
        assert paged == whole
        assert len(whole) == (4 if where else 7)
    assert len(usage.requests(**span, limit=10**9)) <= MOST_ROWS


BARS = {"policy": ("p", "q"), "model": ("a/x", "a/y", "b/z"), "route": ("api", "batch"), "collection": ("", "wiki")}


@pytest.mark.parametrize("seed", range(2))
async def test_the_requests_behind_a_bar_add_up_to_it(usage: Usage, ledger: Ledger, clock: Clock, seed: int) -> None:
    """Whatever hour they began in: settled late, broken off, swept, confirmed, struck; and each of them once."""
    dice, start = random.Random(seed), clock.now
    other = Ledger(ledger.database, clock)
    for n in range(30):
        clock.now += dice.choice([1, 20, 900])
        await ledger.renew()
        bar = {name: dice.choice(values) for name, values in BARS.items()}
        who = {"policy": bar["policy"], "version": 1, "collection": bar["collection"], "role": "document"}
        number = await usage.begin(**who)  # type: ignore[arg-type]  # its own arguments
        for part in range(dice.choice([1, 1, 3])):
            purpose = Purpose(request=number, kind="k", **(bar | {"model": dice.choice(BARS["model"])}))  # type: ignore[arg-type]  # the same
            units = [[unit(f"{n}.{part}", dice.randrange(1, 99))]]
            opened = await ledger.open(units, purpose, price=lambda t: t, stored=lambda _: set(), sent=True)
            hold_of = opened.holds[0]
            clock.now += dice.choice([0, 1, 700])
            match dice.randrange(4):
                case 0:
                    await ledger.fail(hold_of, "lost", billed=None, price=lambda t: t)
                case 1 if clock.now - start > 60:  # taken for dead by another process, then settled after all
                    clock.now += 60
                    await other.renew()
                    await other.sweep()
                    await ledger.settle(hold_of, 7, 7)
                case _:
                    await ledger.settle(hold_of, hold_of.amount, 7)
        for charge in ledger.unconfirmed():
            if dice.random() < 0.2:
                await ledger.reconcile(charge.id, confirm=dice.random() < 0.5)
    hours = range(int(start), int(clock.now) + 3600, 3600)
    seen = 0
    for since in hours:
        span: dict[str, Any] = {"since": since, "until": since + 3600}
        for name, values in BARS.items():
            sums = {key[0]: s for key, s in usage.sums(**span, by=[name])}
            for value in values:
                seen += same(usage, span, {name: value}, [sums[value]] if value in sums else [])
        both = [s for (model, _), s in usage.sums(**span, by=["model", "policy"], where={"policy": "p"}) if model < "b"]
        seen += same(usage, span, {"model": ("a/x", "a/y"), "policy": "p"}, both)
    assert seen > 100
    assert {kind for (kind,) in usage.database.reader().execute("SELECT kind FROM charges")} > {"struck", "settled"}


def same(usage: Usage, span: dict[str, Any], where: dict[str, Any], bar: list[Any]) -> int:
    """Hold the requests behind a bar, page by page, against the bar; how many there are."""
    found: list[dict[str, Any]] = []
    place = None
    while page := usage.behind(**span, where=where, limit=2, before=place):
        found += page
        place = page[-1]["place"]
    assert len({r["id"] for r in found}) == len(found)
    assert [r["place"] for r in found] == sorted((r["place"] for r in found), reverse=True)
    assert sum(r["paid"] for r in found) == sum(s.charged for s in bar)
    assert sum(r["unsure"] for r in found) == sum(s.unconfirmed for s in bar)
    dear: list[dict[str, Any]] = []
    place = None
    while page := usage.behind(**span, where=where, limit=2, before=place, order="cost"):
        dear += page
        place = page[-1]["place"]
    amounts = [(r["id"], r["paid"], r["unsure"]) for r in found]
    assert [(r["id"], r["paid"], r["unsure"]) for r in dear] == sorted(
        amounts, key=lambda a: (a[1] + a[2], a[0]), reverse=True
    )
    return len(found)


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize("seed", range(2))
async def test_the_most_expensive_are_those_of_all_requests(
    usage: Usage, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int, few: int
) -> None:
    """Random books, windows and policies, page by page, however many there are: as SQL of the test's own has them."""
    monkeypatch.setattr("router.store.usage.FEW", few)
    dice, start = random.Random(seed), clock.now
    for _ in range(120):
        clock.now += dice.choice([0, 1, 400, 5_000])
        money = {"charged": dice.choice([0, 0, 5, dice.randrange(10**6)]), "unconfirmed": dice.choice([0, 0, 7])}
        who = {**WHO, "policy": dice.choice("pqr")}
        await usage.record(outcome(**money), **who)  # type: ignore[arg-type]  # its own arguments
    conn = usage.database.reader()
    for _ in range(20):
        since = dice.uniform(start, clock.now)
        until = dice.uniform(since, clock.now + 2)
        policy = dice.choice(["p", "q", None])
        truth = [
            row[0]
            for row in conn.execute(
                "SELECT id FROM requests WHERE at BETWEEN :since AND :until AND at <> :until AND"
                " (:policy IS NULL OR policy = :policy) ORDER BY unconfirmed + charged DESC, at DESC, id DESC",
                {"since": since, "until": until, "policy": policy},
            )
        ]
        found: list[int] = []
        place = None
        where = {"policy": policy} if policy else {}
        limit = dice.choice([1, 3, 50])
        while page := usage.requests(since=since, until=until, where=where, limit=limit, before=place, order="cost"):
            found += [row["id"] for row in page]
            place = page[-1]["place"]
        assert found == truth
