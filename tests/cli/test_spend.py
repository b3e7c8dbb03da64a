"""`spend`: sums over periods and groups, days of a time zone among them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from router import Router
from router.cli.spend import start_of, sum_up
from router.domain.errors import BadInput
from router.domain.values import RouteCounts, Saved
from router.sandbox import Fault, Sandbox
from router.store.usage import Outcome

SMALL = "openai/text-embedding-3-small"
NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "zone", "start"),
    [
        ("1d", "UTC", datetime(2026, 11, 21, tzinfo=UTC)),
        ("30d", "UTC", datetime(2026, 10, 23, tzinfo=UTC)),
        ("2w", "UTC", datetime(2026, 11, 8, tzinfo=UTC)),
        ("12h", "UTC", datetime(2026, 11, 21, 3, 30, tzinfo=UTC)),
        ("1d", "Asia/Tokyo", datetime(2026, 11, 21, 15, tzinfo=UTC)),  # the 22nd has begun there
        ("2026-10-25", "Europe/Paris", datetime(2026, 10, 24, 22, tzinfo=UTC)),
        ("2026-10-26", "Europe/Paris", datetime(2026, 10, 25, 23, tzinfo=UTC)),  # clocks were set back
        ("all", "Asia/Tokyo", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_period_begins_at_a_midnight_of_the_zone(since: str, zone: str, start: datetime) -> None:
    """Days and weeks are whole and end today; hours roll."""
    assert start_of(since, NOW, zone) == start


@pytest.mark.parametrize("since", ["", "month", "30", "-3d", "3y", "2026-13-01", "2027-01-01", "2026-11-22"])
def test_a_wrong_period_is_refused(since: str) -> None:
    """Also one that has not begun."""
    with pytest.raises(BadInput):
        start_of(since, NOW, "UTC")


async def test_days_are_those_of_the_zone_and_none_is_missing(tmp_path: Path) -> None:
    """Half past midnight in Paris is the evening before in UTC; days without a request are there with zeros."""
    times = {
        datetime(2026, 11, 18, 23, 30, tzinfo=UTC): 1,
        datetime(2026, 11, 19, 10, 0, tzinfo=UTC): 2,
        datetime(2026, 11, 21, 9, 0, tzinfo=UTC): 4,
    }
    clock = [NOW.timestamp()]
    async with Router.open(tmp_path, env={}, clock=lambda: clock[-1]) as router:
        for moment, count in times.items():
            clock.append(moment.timestamp())
            outcome = Outcome(status="done", routes=RouteCounts(cache=count), saved=Saved(cache=10 * count))
            await router.usage.record(outcome, policy="p", version=1, collection="", role="document")

        def texts(zone: str) -> dict[str, int]:
            spent = sum_up(router, start_of("4d", NOW, zone), NOW, "day", zone)
            assert spent.total.texts == sum(row.texts for row in spent.parts)
            assert spent.total.saved == 10 * spent.total.texts
            return {row.key[-2:]: row.texts for row in spent.parts}

        assert texts("UTC") == {"18": 1, "19": 2, "20": 0, "21": 4}
        assert texts("Europe/Paris") == {"18": 0, "19": 3, "20": 0, "21": 4}
        evening = sum_up(router, start_of("63h", NOW, "UTC"), NOW, "day", "UTC")  # from 00:30 on the 19th
        assert [row.texts for row in evening.parts] == [2, 0, 4]
        everything = sum_up(router, start_of("all", NOW, "UTC"), NOW, "day", "UTC")
        assert [row.key for row in everything.parts] == ["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"]


def test_spending_adds_up_in_every_grouping(shell, openai: Sandbox) -> None:
    """One run that pays and one from the cache: the totals are the bill, whatever they are grouped by."""
    shell("embed", shell.jsonl(["a", "b", "c"]), "--model", SMALL)
    shell("embed", shell.jsonl(["a", "b", "c", "d"]), "--model", SMALL, "--policy", "quality")
    bill = openai.bill()
    for by in ("route", "provider", "model", "policy", "collection", "day"):
        said = shell("spend", "--by", by, "--since", "3d", "--json").json
        assert Decimal(said["settled_usd"]) * 10**9 == bill.nanodollars
        assert (said["texts"], said["hit_rate"]) == (7, round(3 / 7, 6))
        assert (said["unconfirmed_usd"], said["held_usd"]) == ("0.000000000", "0.000000000")
        assert Decimal(said["avoided_usd"]) > 0
        for key in ("settled_usd", "avoided_usd", "texts"):
            assert sum(Decimal(row[key]) for row in said["rows"]) == Decimal(said[key])
        if by == "day":
            assert len(said["rows"]) == 3
        elif by == "route":
            assert {row["route"]: row["texts"] for row in said["rows"]} == {"api": 4, "cache": 3}
        elif by == "provider":
            assert {row["provider"]: row["texts"] for row in said["rows"]} == {"openai": 7}
        elif by == "policy":
            assert {row["policy"]: row["texts"] for row in said["rows"]} == {"default": 3, "quality": 4}
    assert "42.9 % from the cache" in shell("spend").out


def test_unconfirmed_money_is_shown_apart(shell, openai: Sandbox) -> None:
    """A call that broke off may have been billed; it is neither settled nor forgotten."""
    openai.faults.add(Fault("reset"))
    assert shell("embed", shell.jsonl(["a"]), "--model", SMALL).code == 0
    said = shell("spend", "--json").json
    assert said["unconfirmed_usd"] == said["settled_usd"] == "0.000000020"
    assert openai.bill().nanodollars == 40


def test_nothing_spent_has_no_hit_rate(shell) -> None:
    """Not zero: nothing was asked."""
    said = shell("spend", "--json").json
    assert (said["texts"], said["hit_rate"], said["rows"]) == (0, None, [])


@pytest.mark.parametrize("options", ["--since soon", "--by month", "--timezone Mars"])
def test_a_wrong_question_is_exit_2(shell, options: str) -> None:
    """Said, not guessed."""
    said = shell("spend", *options.split())
    assert said.code == 2
    assert options.split()[1] in said.err
