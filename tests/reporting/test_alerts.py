"""Alerts: each threshold of each budget is reported once a window, to the store, the log and the webhook."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Router
from router.config import load_settings
from router.domain.errors import BadInput, StoreError
from router.domain.values import Budget, BudgetState, Policy
from router.reporting.alerts import EVERY_S, THRESHOLDS, Watched, due
from router.store.alerts import AGAIN_S, Alert
from tests.faults.ledger_oracle import MODEL, hold, unit

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


class Turned:
    """A clock that stands where it is put."""

    now = NOON

    def __call__(self) -> float:
        return self.now


class Hook:
    """A webhook on loopback that answers with the statuses it is given, then with 204."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.got.append(json.loads(body))
                self.send_response(hook.statuses.pop(0) if hook.statuses else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/s3cret"


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook that runs."""
    found = Hook()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
async def router(tmp_path: Path, hook: Hook) -> AsyncIterator[Router]:
    """A router with one policy of 100 nanodollars a month, no account budget, and the webhook."""
    async with Router.open(tmp_path, env={"ROUTER_WEBHOOK": hook.url}, clock=Turned()) as opened:
        await opened.policies.set_account_budgets([])
        await save(opened, Budget(amount=100, window="month"))
        yield opened


async def save(router: Router, *budgets: Budget) -> None:
    await router.policies.save(Policy(name="p", budgets=budgets), [MODEL])


async def spend(router: Router, amount: int) -> None:
    """Settle nanodollars now."""
    one = (await hold(router.ledger, unit(f"{amount} at {router.clock()}", amount))).holds[0]
    await router.ledger.settle(one, amount, amount)


def turn(router: Router, seconds: float) -> None:
    assert isinstance(router.clock, Turned)
    router.clock.now += seconds


def told(alerts: list[Alert]) -> list[tuple[str, int]]:
    return [(alert.kind, alert.threshold) for alert in alerts]


# ---- what is due -------------------------------------------------------------------------------


def watched(used: int, amount: int = 100, expected: int | None = None) -> Watched:
    state = BudgetState(owner="policy/p", budget=Budget(amount=amount, window="month"), used=used)
    return Watched(state=state, start=0, expected=expected)


@pytest.mark.parametrize(
    ("used", "expected", "alerts"),
    [
        (0, None, []),
        (49, None, []),
        (50, None, [("actual", 50)]),
        (79, 79, [("actual", 50)]),
        (10, 50, [("forecast", 50)]),
        (50, 100, [("actual", 50), ("forecast", 80), ("forecast", 100)]),
        (100, 300, [("actual", 50), ("actual", 80), ("actual", 100)]),
        (130, None, [("actual", 50), ("actual", 80), ("actual", 100)]),
    ],
)
def test_thresholds_are_reached_or_forecast(used: int, expected: int | None, alerts: list[tuple[str, int]]) -> None:
    """From the exact share on; what is reached is no forecast any more."""
    assert told(due([watched(used, expected=expected)], set(), NOON)) == alerts


def test_a_budget_of_zero_is_reached_with_the_first_nanodollar_and_not_before() -> None:
    """An idle budget of nothing is no news."""
    assert due([watched(0, 0)], set(), NOON) == []
    assert len(due([watched(1, 0)], set(), NOON)) == len(THRESHOLDS)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 400)), max_size=12), st.integers(0, 150))
def test_nothing_is_told_twice_and_nothing_reached_is_left_out(path: list[tuple[int, int]], amount: int) -> None:
    """However spending and forecast move in a window, each kind of each threshold is told once, once it is true."""
    keys: list[object] = []
    highest = 0
    for used, more in path:
        highest = max(highest, used)
        keys += [a.key for a in due([watched(used, amount, used + more)], set(keys), NOON)]  # type: ignore[arg-type]  # keys
    assert len(keys) == len(set(keys))
    actual = {key[-1] for key in keys if key[-2] == "actual"}  # type: ignore[index]  # a key is a tuple
    assert actual == {t for t in THRESHOLDS if highest > 0 and highest * 100 >= t * amount}


def test_a_changed_amount_is_another_budget() -> None:
    """Raised from 100 to 150 when 80 % was told: 80 % of the new one is told again."""
    keys = {a.key for a in due([watched(80)], set(), NOON)}
    assert told(due([watched(90, 150)], keys, NOON)) == [("actual", 50)]


def test_the_sentence_says_whose_budget_and_how_much() -> None:
    """For people; the amounts as on the pages."""
    first, *_, last = due([watched(50_000_000, 100_000_000, 120_000_000)], set(), NOON)
    assert first.message == "50 % is used of the budget $0.10 a month of the policy 'p': $0.0500 by now."
    assert last.message == (
        "At this pace 100 % will be used of the budget $0.10 a month of the policy 'p': $0.12 by the end of the window,"
        " $0.0500 now."
    )


# ---- telling -----------------------------------------------------------------------------------


async def test_an_alert_is_told_once_a_window(router: Router, hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    """To the store, the log and the webhook; again in the next window, and for another budget."""
    await spend(router, 80)
    with caplog.at_level(logging.INFO):
        assert told(await router.alerts.check()) == [("actual", 50), ("actual", 80)]
        assert await router.alerts.check() == []
    first, second = sorted(hook.got, key=lambda body: body["threshold"])  # sent at once, so in any order
    assert (first["threshold"], second["threshold"]) == (50, 80)
    assert first["amount"] == "0.000000100"
    assert first["text"].startswith("50 % is used of the budget")
    assert sum("80 % is used" in message for message in caplog.messages) == 1
    assert "s3cret" not in caplog.text
    await spend(router, 20)
    assert told(await router.alerts.check()) == [("actual", 100)]
    turn(router, 30 * DAY)
    assert await router.alerts.check() == []
    await spend(router, 55)
    assert told(await router.alerts.check()) == [("actual", 50)]
    await router.policies.set_account_budgets([Budget(amount=300, window="total")])
    assert [a.owner for a in await router.alerts.check()] == ["account"]
    assert [(a.owner, a.threshold) for a in router.alerts.recent(3)] == [
        ("account", 50),
        ("policy/p", 50),
        ("policy/p", 100),
    ]


async def test_a_pace_that_will_pass_the_budget_is_forecast(router: Router) -> None:
    """Ten a day from the 8th on: by the 30th it is more than a hundred."""
    turn(router, -2 * DAY)
    for _ in range(3):
        await spend(router, 10)
        turn(router, DAY)
    turn(router, -DAY)
    first = await router.alerts.check()
    assert told(first) == [("forecast", 50), ("forecast", 80), ("forecast", 100)]
    assert first[0].expected > 200
    assert await router.alerts.check() == []
    await spend(router, 25)
    assert told(await router.alerts.check()) == [("actual", 50)]


async def test_two_programs_tell_it_once(router: Router, hook: Hook, tmp_path: Path) -> None:
    """Both look at the same moment: one writes it down, one posts it."""
    await spend(router, 50)
    async with Router.open(tmp_path, env={"ROUTER_WEBHOOK": hook.url}, clock=router.clock) as other:
        both = await asyncio.gather(*(r.alerts.check() for r in (router, other) for _ in range(4)))
    assert sum(len(alerts) for alerts in both) == 1
    assert len(hook.got) == 1


async def test_a_webhook_that_fails_is_tried_three_times(
    router: Router, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    """Never more, never at once, and the failure is logged without the address."""
    hook.statuses = [500] * 9
    await spend(router, 50)
    with caplog.at_level(logging.DEBUG):
        for wait, posted in ((0, 1), (1, 1), (AGAIN_S, 2), (AGAIN_S, 3), (AGAIN_S, 3), (AGAIN_S, 3)):
            turn(router, wait)
            await router.alerts.check()
            assert len(hook.got) == posted
    assert "HTTP 500" in caplog.text
    assert "given up" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_webhook_that_is_not_there_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection is logged by its kind; the alert is in the store."""
    async with Router.open(tmp_path, env={"ROUTER_WEBHOOK": "http://127.0.0.1:9/s3cret"}, clock=Turned()) as router:
        await save(router, Budget(amount=10, window="day"))
        await spend(router, 5)
        with caplog.at_level(logging.DEBUG):
            assert len(await router.alerts.check()) == 1
        assert "ConnectError" in caplog.text
        assert "s3cret" not in caplog.text
        assert len(router.alerts.recent()) == 1


async def test_the_watch_looks_about_once_a_minute(router: Router, hook: Hook) -> None:
    """However often the heartbeat calls it; a clock that was set back does not stop it."""
    await router.alerts.watch()
    await spend(router, 50)
    turn(router, EVERY_S - 1)
    await router.alerts.watch()
    assert hook.got == []
    turn(router, 1)
    await router.alerts.watch()
    assert len(hook.got) == 1
    await spend(router, 30)
    turn(router, -3_600)
    await router.alerts.watch()
    assert len(hook.got) == 2


async def test_a_table_that_cannot_be_read_is_an_error_of_the_store(router: Router) -> None:
    """One that the heartbeat knows and outlives."""
    await router.database.write(lambda conn: conn.execute("ALTER TABLE alerts_sent RENAME TO gone"))
    with pytest.raises(StoreError, match="alerts_sent"):
        await router.alerts.watch()


# ---- where the webhook is set ------------------------------------------------------------------


def test_the_webhook_comes_from_the_environment_or_the_file(tmp_path: Path) -> None:
    """The environment wins; it is never printed; what is no URL is refused without being repeated."""
    assert load_settings(tmp_path, {}).webhook is None
    (tmp_path / "router.toml").write_text('[alerts]\nwebhook = "https://hooks.example/s3cret"\n')
    from_file = load_settings(tmp_path, {})
    assert from_file.webhook is not None
    assert from_file.webhook.reveal() == "https://hooks.example/s3cret"
    assert "s3cret" not in repr(from_file)
    from_env = load_settings(tmp_path, {"ROUTER_WEBHOOK": "http://127.0.0.1:1/x"}).webhook
    assert from_env is not None
    assert from_env.reveal() == "http://127.0.0.1:1/x"
    for wrong in ('[alerts]\nwebhook = "ftp://s3cret"\n', "[alerts]\nwebhook = 3\n", '[alerts]\nmail = "s3cret"\n'):
        (tmp_path / "router.toml").write_text(wrong)
        with pytest.raises(BadInput) as caught:
            load_settings(tmp_path, {})
        assert "s3cret" not in str(caught.value)
