"""Alerts: a budget that reaches 50, 80 or 100 per cent, or is heading there, is reported once a window.

An alert is written to the store (for the pages), logged, and posted to the operator's webhook if there is one. Its row
in the store is what makes it once, whichever of several processes on the data folder looks first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from router.config import Secret
from router.domain import money
from router.domain.policy import window_bounds
from router.domain.values import BudgetState
from router.reporting import figures
from router.store.alerts import MOST_TRIES, Alert, AlertKind, AlertStore, Key
from router.store.balances import ACCOUNT
from router.store.ledger import Ledger
from router.store.policies import Policies
from router.store.usage import Usage

logger = logging.getLogger(__name__)

THRESHOLDS = (50, 80, 100)
"""Per cent of a budget."""
EVERY_S = 60.0
"""Time between two looks at the budgets."""
POST_S = 5.0
"""The longest that the webhook may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A budget whose window runs: since when (epoch seconds), and what it comes to at this pace, if that is known."""

    state: BudgetState
    start: int
    expected: int | None


def due(watched: Iterable[Watched], given: Collection[Key], now: float) -> list[Alert]:
    """The alerts to give now: every threshold reached or forecast that was not reported in its window.

    What is reached already is no forecast any more; a budget of zero reaches them all with the first nanodollar.
    """
    alerts = []
    for one in watched:
        budget, used = one.state.budget, one.state.used
        for threshold in THRESHOLDS:
            kind: AlertKind = "actual"
            expected = used
            if not _reaches(used, threshold, budget.amount):
                kind, expected = "forecast", one.expected or 0
                if not _reaches(expected, threshold, budget.amount):
                    continue
            alert = Alert(
                at=now, owner=one.state.owner, start=one.start, kind=kind, threshold=threshold, used=used,
                expected=expected, **asdict(budget),
            )  # fmt: skip
            if alert.key not in given:
                alerts.append(alert)
    return alerts


def _reaches(used: int, threshold: int, amount: int) -> bool:
    return used > 0 and used * 100 >= threshold * amount


class Alerts:
    """Watches the budgets of a data folder; `webhook` is the operator's address, which may hold a secret."""

    def __init__(
        self,
        store: AlertStore,
        ledger: Ledger,
        policies: Policies,
        usage: Usage,
        clock: Callable[[], float],
        webhook: Secret | None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._policies = policies
        self._usage = usage
        self._clock = clock
        self._webhook = webhook
        self._looked = float("-inf")

    async def watch(self) -> None:
        """`check`, if the last one was about a minute ago. Called often, by the engine's heartbeat.

        Raises:
            StoreError: the database cannot be read or written.
        """
        now = self._clock()
        if abs(now - self._looked) < EVERY_S:
            return
        self._looked = now
        with self._store.database.errors():  # the heartbeat also renews the lease: it goes on
            await self.check()

    async def check(self) -> list[Alert]:
        """Look at every budget, report what is due, and return it; ends within seconds, whatever the webhook does.

        Raises:
            StoreError: the database cannot be written; nothing was reported.
        """
        found = await asyncio.to_thread(self._due)
        fresh = await self._store.add(found) if found else []
        for alert in fresh:
            logger.warning("%s", alert.message)
        if self._webhook is not None:
            waiting = await asyncio.to_thread(self._store.undelivered, self._clock())
            await asyncio.gather(*(self._post(number, alert, self._webhook) for number, alert in waiting))
        return fresh

    def recent(self, limit: int = 50) -> list[Alert]:
        """The latest alerts, newest first."""
        return self._store.recent(limit)

    # ---- looking ----

    def _due(self) -> list[Alert]:
        watched = list(self._watched())
        return due(watched, self._store.given_since(min((w.start for w in watched), default=0)), self._clock())

    def _watched(self) -> Iterable[Watched]:
        at = datetime.fromtimestamp(self._clock(), UTC)
        owners = {f"policy/{p.name}": (p.name, p.timezone) for p in self._policies.all()}
        owners[ACCOUNT] = ("", self._policies.account_zone())
        for owner, (name, zone) in owners.items():
            for state in self._ledger.states(name):
                if state.owner == owner and state.budget.window != "request":
                    start, _ = window_bounds(state.budget.window, at, zone)
                    yield Watched(state=state, start=int(start.timestamp()), expected=self._expected(state, name, zone))

    def _expected(self, state: BudgetState, policy: str, zone: str) -> int | None:
        if state.resets is None or not state.used:
            return None
        now = self._clock()
        today = figures.today(now, zone)
        first, where = today - timedelta(days=figures.LOOK_BACK), {"policy": policy} if policy else None
        history = figures.days(self._usage, first=first, last=today, zone=zone, where=where)
        window = state.budget.window
        ahead = figures.forecast(history, spent=state.expected, limit=None, now=now, window=window, zone=zone)
        return None if ahead is None else ahead.expected

    # ---- posting ----

    async def _post(self, number: int, alert: Alert, webhook: Secret) -> None:
        """One try, counted before it is made."""
        now = self._clock()
        tries = await self._store.begin_try(number, now)
        if tries is None:
            return
        problem = await _send(alert, webhook)
        if not problem:
            await self._store.set_delivered(number, now)
            return
        more = "it is tried again" if tries < MOST_TRIES else "it is given up"
        logger.warning("The webhook did not take an alert (%s); %s.", problem, more)


async def _send(alert: Alert, webhook: Secret) -> str:
    """What went wrong, or "". The address is part of no message: it may hold the operator's secret."""
    import httpx2

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it logs every address
    usd = {key: money.to_json(getattr(alert, key)) for key in ("amount", "used", "expected")}
    body = {"text": alert.message, **asdict(alert), **usd}
    try:
        async with asyncio.timeout(POST_S), httpx2.AsyncClient(timeout=POST_S) as client:
            answer = await client.post(webhook.reveal(), json=body)
    except TimeoutError:
        return f"no answer within {POST_S:.0f} s"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return type(error).__name__
    return "" if answer.is_success else f"HTTP {answer.status_code}"
