"""Who asks for what in the demo, and when; the file is built aside and moved into place when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from router.config import load_settings
from router.demo.usage import DemoRequest, DemoUsage, Workload
from router.domain.policy import parse_budget
from router.domain.values import Policy
from router.store.database import Connection, Database
from router.store.migrations import NAMES, migrations
from router.store.policies import Policies

DAYS = 90
SEED = 7
INCIDENT = 24
"""So many days ago the paid providers were down for an afternoon."""
BUSY_MONTH = 2.3
"""How much more there is to embed in the month before the last, whose budgets are nearly spent."""


WORKLOADS = (
    Workload(policy="default", role="query", a_day=34, weekend=0.5, hours=(5, 23), texts=(1, 6), tokens=(9, 60),
             fresh=(0.7, 0.2)),
    Workload(policy="default", collection="wiki", a_day=9, texts=(8, 60), tokens=(300, 1_500), fresh=(0.65, 0.12)),
    Workload(policy="quality", collection="handbook", space="voyage-4", a_day=5, texts=(40, 190),
             tokens=(1_500, 7_500), fresh=(0.75, 0.14)),
    Workload(policy="nightly", collection="catalogue", batch=True, a_day=2, weekend=1.0, hours=(1, 4), texts=(120, 380),
             tokens=(200, 1_200), fresh=(0.5, 0.06), repeats=0.15),
    Workload(policy="research", dimensions=1024, a_day=8.5, weekend=0.1, texts=(20, 150), tokens=(400, 2_000),
             fresh=(0.8, 0.35)),
    Workload(policy="local", collection="notes", a_day=12, weekend=0.8, hours=(6, 24), texts=(1, 24),
             tokens=(40, 400), fresh=(0.6, 0.15)),
)  # fmt: skip

OWN_POLICIES = (
    Policy(name="default", budgets=(parse_budget("0.15/month"),)),
    Policy(name="nightly", goal="economy", min_quality=50.0, budgets=(parse_budget("1/month"),), deadline="24h"),
    Policy(
        name="research", goal="quality", allow=("openai/*",), when_exhausted="refuse",
        budgets=(parse_budget("2/month"), parse_budget("0.40/day:soft")), timezone="Europe/Paris",
    ),
)  # fmt: skip


def write(data: Path, *, now: float, days: int = DAYS, seed: int = SEED) -> bool:
    """Fill an empty data folder; False, and nothing is done, where there is data already.

    Args:
        data: the folder of the demo, made if it is missing.
        now: epoch seconds at which the traffic ends.
    """
    target = data / "router.db"
    if target.exists():
        return False
    aside = data / ".made-up"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        asyncio.run(_write(aside, now, days, seed))
        os.replace(aside / "router.db", target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


async def _write(folder: Path, now: float, days: int, seed: int) -> None:
    catalog = load_settings(folder, {}).catalog
    at = now - days * 86_400
    database = Database(folder / "router.db", migrations, NAMES, page_size=4096)
    try:
        policies = Policies(database, lambda: at)
        await policies.ensure_defaults()
        for policy in OWN_POLICIES:
            await policies.save(policy, [m.id for m in catalog.models])
        usage = DemoUsage(database, lambda: at, catalog, {p.name: p for p in policies.all()})
        traffic = _Traffic(now, days, seed)
        for day in range(days):
            requests = sorted(traffic.day(day), key=lambda one: one.at)

            def enter(conn: Connection, requests: list[DemoRequest] = requests) -> None:
                nonlocal at
                for one in requests:
                    at = one.at
                    usage.add(conn, one)

            await database.write(enter)
        at = now
        await policies.set_setting("demo", "made-up traffic")
        await usage.ledger.leave()
    finally:
        database.close()


class _Traffic:
    """What is asked, day by day; the dice are thrown in a fixed order."""

    def __init__(self, now: float, days: int, seed: int) -> None:
        self._now = now
        self._days = days
        self._dice = np.random.default_rng(seed)
        self._seen = dict.fromkeys(WORKLOADS, 0)
        """How many texts of each workload there are so far."""
        today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self._first = today - timedelta(days=days - 1)
        last_month = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
        self._busy = (last_month - timedelta(days=1)).month if days > 60 else last_month.month

    def day(self, number: int) -> Iterator[DemoRequest]:
        """The requests of a day, up to now."""
        day = self._first + timedelta(days=number)
        incident = number == self._days - INCIDENT
        for workload in WORKLOADS:
            share = workload.weekend if day.weekday() >= 5 else 1.0
            growth = 0.7 + 0.6 * number / self._days
            busy = BUSY_MONTH if day.month == self._busy and workload.policy in ("quality", "research") else 1.0
            for _ in range(int(self._dice.poisson(workload.a_day * share * growth * busy))):
                first, last = workload.hours
                hour = first + (last - first) * float(self._dice.beta(2.2, 2.2))
                at = day.timestamp() + hour * 3_600
                one = self._asked(workload, at, number / self._days, incident and 13 <= hour < 16.5)
                if at < self._now - 120:
                    yield one

    def _asked(self, workload: Workload, at: float, progress: float, down: bool) -> DemoRequest:
        dice, seen = self._dice, self._seen[workload]
        least, most = workload.texts
        wanted = int(np.clip(dice.lognormal(np.log((least + most) / 2.4), 0.5), least, most))
        fresh = workload.fresh[0] + (workload.fresh[1] - workload.fresh[0]) * progress**0.5
        new = wanted if seen == 0 else int(dice.binomial(wanted, fresh))
        old = np.floor(seen * dice.beta(1.6, 1.0, wanted - new)).astype(int)  # recent ones more often
        numbers = list(dict.fromkeys([*range(seen, seen + new), *old.tolist()]))
        self._seen[workload] += new
        low, high = workload.tokens
        copies = np.ones(len(numbers), dtype=np.int64)
        for place in dice.integers(0, len(numbers), int(dice.binomial(len(numbers), workload.repeats))):
            copies[place] += 1
        about = f"{workload.policy}/{workload.collection}/{workload.role}"
        digests = tuple(hashlib.blake2b(f"{about}/{n}".encode(), digest_size=32).digest() for n in numbers)
        return DemoRequest(
            at=at,
            workload=workload,
            digests=digests,
            tokens=low + np.array([int.from_bytes(digest[:2]) for digest in digests]) * (high - low) // 65_536,
            copies=copies,
            down=down and bool(dice.random() < 0.8),
            latency=float(dice.lognormal(0.0, 0.45)),
            kept=at > self._now - 35 * 86_400,
        )
