"""Alerts: a budget that reaches 50, 80 or 100 per cent, or is heading there, is told once a window.

Told means: written into the books (for the pages), logged, and posted to the operator's webhook if there is one. The
row in the books is what makes it once, whichever of several programs on the data folder looks first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from router.config import Settings
from router.domain import money
from router.domain.policy import describe_budget, window_bounds
from router.domain.values import Budget, BudgetState, Window
from router.reporting import figures
from router.store.balances import ACCOUNT
from router.store.database import Connection, Database, Error, translate
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
MOST_TRIES = 3
AGAIN_S = 30.0
"""Least time between two tries; longer than one can take, so that no two programs post the same alert at once."""
STALE_S = 3_600.0
"""An alert that was not delivered for so long is not news any more."""

Kind = Literal["actual", "forecast"]
Key = tuple[str, str, int, int, bool, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A budget whose window runs: since when (epoch seconds), and what it comes to at this pace, if that is known."""

    state: BudgetState
    start: int
    expected: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A threshold that a budget has reached (`actual`), or will at this pace (`forecast`). Money in nanodollars.

    Attributes:
        at: when it was seen, epoch seconds; start: when the window began.
        owner: `account` or `policy/NAME`.
        threshold: per cent of `amount`.
        expected: used at the window's end; for `actual`, what is used.
    """

    at: float
    owner: str
    window: Window
    start: int
    amount: int
    hard: bool
    kind: Kind
    threshold: int
    used: int
    expected: int

    @property
    def key(self) -> Key:
        """What it is told once for. A budget whose amount was changed is another budget."""
        return self.owner, self.window, self.start, self.amount, self.hard, self.kind, self.threshold

    @property
    def message(self) -> str:
        """One sentence for people."""
        whose = "the account" if self.owner == ACCOUNT else f"the policy '{self.owner.removeprefix('policy/')}'"
        budget = f"{describe_budget(Budget(amount=self.amount, window=self.window, hard=self.hard))} of {whose}"
        if self.kind == "actual":
            return f"{self.threshold} % is used of the budget {budget}: {money.show(self.used)} by now."
        end = f"{money.show(self.expected)} by the end of the window"
        return (
            f"At this pace {self.threshold} % will be used of the budget {budget}: {end}, {money.show(self.used)} now."
        )


def due(watched: Iterable[Watched], told: Collection[Key], now: float) -> list[Alert]:
    """The alerts to tell now: every threshold reached or forecast that was not told in its window.

    What is reached already is no forecast any more; a budget of zero reaches them all with the first nanodollar.
    """
    alerts = []
    for one in watched:
        budget, used = one.state.budget, one.state.used
        for threshold in THRESHOLDS:
            kind: Kind = "actual"
            expected = used
            if not _reaches(used, threshold, budget.amount):
                kind, expected = "forecast", one.expected or 0
                if not _reaches(expected, threshold, budget.amount):
                    continue
            alert = Alert(
                at=now,
                owner=one.state.owner,
                window=budget.window,
                start=one.start,
                amount=budget.amount,
                hard=budget.hard,
                kind=kind,
                threshold=threshold,
                used=used,
                expected=expected,
            )
            if alert.key not in told:
                alerts.append(alert)
    return alerts


def _reaches(used: int, threshold: int, amount: int) -> bool:
    return used > 0 and used * 100 >= threshold * amount


class Books(Protocol):
    """What of a router is looked at."""

    settings: Settings
    clock: Callable[[], float]
    database: Database
    ledger: Ledger
    policies: Policies
    usage: Usage


class Alerts:
    """Watches the budgets of a router."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._looked = float("-inf")

    async def watch(self) -> None:
        """`check`, if the last one was about a minute ago. Called often, by the engine's housekeeping.

        Raises:
            StoreError: the books cannot be read or written.
        """
        now = self._books.clock()
        if abs(now - self._looked) < EVERY_S:
            return
        self._looked = now
        try:
            await self.check()
        except Error as error:  # the housekeeping also renews the lease: it goes on
            raise translate(error, self._books.database.path) from error

    async def check(self) -> list[Alert]:
        """Look at every budget, tell what is due, and give it back; ends within seconds, whatever the webhook does.

        Raises:
            StoreError: the books cannot be written; nothing was told.
        """
        found = await asyncio.to_thread(self._due)
        fresh = await self._books.database.write(lambda conn: _insert(conn, found)) if found else []
        for alert in fresh:
            logger.warning("%s", alert.message)
        if self._books.settings.webhook is not None:
            waiting = await asyncio.to_thread(self._undelivered)
            await asyncio.gather(*(self._post(number, alert) for number, alert in waiting))
        return fresh

    def recent(self, limit: int = 50) -> list[Alert]:
        """What was told lately, newest first."""
        return [alert for _, alert in self._read("ORDER BY at DESC, id DESC LIMIT ?", limit)]

    # ---- looking ----

    def _due(self) -> list[Alert]:
        watched = list(self._watched())
        told = {alert.key for _, alert in self._read("WHERE start >= ?", min((w.start for w in watched), default=0))}
        return due(watched, told, self._books.clock())

    def _watched(self) -> Iterable[Watched]:
        books = self._books
        at = datetime.fromtimestamp(books.clock(), UTC)
        owners = {f"policy/{p.name}": (p.name, p.timezone) for p in books.policies.all()}
        owners[ACCOUNT] = ("", books.policies.account_zone())
        for owner, (name, zone) in owners.items():
            for state in books.ledger.states(name):
                if state.owner == owner and state.budget.window != "request":
                    start, _ = window_bounds(state.budget.window, at, zone)
                    yield Watched(state=state, start=int(start.timestamp()), expected=self._expected(state, name, zone))

    def _expected(self, state: BudgetState, policy: str, zone: str) -> int | None:
        if state.resets is None or not state.used:
            return None
        now = self._books.clock()
        today = figures.today(now, zone)
        history = figures.days(
            self._books.usage,
            first=today - timedelta(days=figures.LOOK_BACK),
            last=today,
            zone=zone,
            where={"policy": policy} if policy else None,
        )
        ahead = figures.forecast(
            history, spent=state.expected, limit=None, now=now, window=state.budget.window, zone=zone
        )
        return None if ahead is None else ahead.expected

    def _read(self, rest: str, *values: float) -> list[tuple[int, Alert]]:
        names = Alert.__dataclass_fields__
        rows = self._books.database.reader().execute(f"SELECT id, {', '.join(names)} FROM alerts_sent {rest}", values)
        return [(row[0], Alert(**{**dict(zip(names, row[1:], strict=True)), "hard": bool(row[6])})) for row in rows]

    # ---- telling ----

    def _undelivered(self) -> list[tuple[int, Alert]]:
        now = self._books.clock()
        return self._read(
            "WHERE delivered IS NULL AND tries < ? AND at > ? AND tried <= ? ORDER BY id LIMIT 100",
            MOST_TRIES,
            now - STALE_S,
            now - AGAIN_S,
        )

    async def _post(self, number: int, alert: Alert) -> None:
        """One try, counted before it is made."""
        now, write = self._books.clock(), self._books.database.write

        def claim(conn: Connection) -> int | None:
            row = conn.execute(
                "UPDATE alerts_sent SET tries = tries + 1, tried = ? WHERE id = ? AND delivered IS NULL AND tries < ?"
                " AND tried <= ? RETURNING tries",
                (now, number, MOST_TRIES, now - AGAIN_S),
            ).fetchone()
            return None if row is None else int(row[0])

        tries = await write(claim)
        if tries is None:  # another program has just taken it
            return
        problem = await self._send(alert)
        if not problem:
            await write(lambda conn: conn.execute("UPDATE alerts_sent SET delivered = ? WHERE id = ?", (now, number)))
            return
        more = "it is tried again" if tries < MOST_TRIES else "it is given up"
        logger.warning("The webhook did not take an alert (%s); %s.", problem, more)

    async def _send(self, alert: Alert) -> str:
        """What went wrong, or "". The address is part of no message: it may hold the operator's secret."""
        import httpx2

        logging.getLogger("httpx2").setLevel(logging.WARNING)  # at INFO it logs every address
        webhook = self._books.settings.webhook
        assert webhook is not None  # `check` looked
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


def _insert(conn: Connection, alerts: Iterable[Alert]) -> list[Alert]:
    """Those that nobody wrote down before."""
    fresh = []
    for alert in alerts:
        values = asdict(alert)
        cursor = conn.execute(
            f"INSERT OR IGNORE INTO alerts_sent ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            [int(v) if isinstance(v, bool) else v for v in values.values()],
        )
        if cursor.rowcount == 1:
            fresh.append(alert)
    return fresh
