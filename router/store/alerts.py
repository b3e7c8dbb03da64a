"""Alerts in `router.db`: the row of an alert is what makes it once, whichever process sees it first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from router.domain import money
from router.domain.policy import describe_budget
from router.domain.values import Budget, Window
from router.store.balances import ACCOUNT
from router.store.database import Connection, Database, marks

MOST_TRIES = 3
"""Deliveries of one alert to the webhook, before it is given up."""
AGAIN_S = 30.0
"""Least time between two tries; longer than one can take, so that no two processes post the same alert at once."""
STALE_S = 3_600.0
"""An alert that was not delivered within this time is not delivered any more."""

AlertKind = Literal["actual", "forecast"]
Key = tuple[str, str, int, int, bool, str, int]


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
    kind: AlertKind
    threshold: int
    used: int
    expected: int

    @property
    def key(self) -> Key:
        """What it is given once for. A budget whose amount was changed is another budget."""
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


class AlertStore:
    """Reads and writes alerts, and what the webhook has taken of them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def add(self, alerts: Iterable[Alert]) -> list[Alert]:
        """Write alerts down; returns those that were not there yet."""
        return await self.database.write(lambda conn: [alert for alert in alerts if _insert(conn, alert)])

    def recent(self, limit: int = 50) -> list[Alert]:
        """The newest alerts first."""
        return [alert for _, alert in self._read("ORDER BY at DESC, id DESC LIMIT ?", limit)]

    def given_since(self, start: float) -> set[Key]:
        """The keys of the alerts on windows that began then or later, in epoch seconds."""
        return {alert.key for _, alert in self._read("WHERE start >= ?", start)}

    def undelivered(self, now: float) -> list[tuple[int, Alert]]:
        """Alerts, by number, that may be posted to the webhook now."""
        return self._read(
            "WHERE delivered IS NULL AND tries < ? AND at > ? AND tried <= ? ORDER BY id LIMIT 100",
            MOST_TRIES, now - STALE_S, now - AGAIN_S,
        )  # fmt: skip

    async def begin_try(self, number: int, now: float) -> int | None:
        """Count a try before it is made; returns the count, or None where another process has just begun one."""

        def write(conn: Connection) -> int | None:
            row = conn.execute(
                "UPDATE alerts_sent SET tries = tries + 1, tried = ? WHERE id = ? AND delivered IS NULL AND tries < ?"
                " AND tried <= ? RETURNING tries",
                (now, number, MOST_TRIES, now - AGAIN_S),
            ).fetchone()
            return None if row is None else int(row[0])

        return await self.database.write(write)

    async def set_delivered(self, number: int, now: float) -> None:
        """The webhook has taken an alert."""
        await self.database.execute("UPDATE alerts_sent SET delivered = ? WHERE id = ?", now, number)

    def _read(self, rest: str, *values: float) -> list[tuple[int, Alert]]:
        names = Alert.__dataclass_fields__
        rows = self.database.reader().execute(f"SELECT id, {', '.join(names)} FROM alerts_sent {rest}", values)
        return [(row[0], Alert(**{**dict(zip(names, row[1:], strict=True)), "hard": bool(row[6])})) for row in rows]


def _insert(conn: Connection, alert: Alert) -> bool:
    values = asdict(alert)
    cursor = conn.execute(
        f"INSERT OR IGNORE INTO alerts_sent ({', '.join(values)}) VALUES ({marks(values)})",
        [int(v) if isinstance(v, bool) else v for v in values.values()],
    )
    return bool(cursor.rowcount == 1)
