"""The budgets of a replay: what each window had really used at a time, and what the draft would have added or not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from router.domain.policy import window_bounds
from router.domain.values import Budget, BudgetState, Policy, Window
from router.pipeline.trace import SeenBudget, Trace
from router.store.balances import ACCOUNT, STRETCHES, standing
from router.store.history import History

LONGEST = timedelta(days=62)
"""More than a window with an end can reach back."""


class Budgets:
    """Budget states as the draft would have seen them, in the order of the requests.

    The account's budgets are those of the time, the policy's own are the draft's. A window's real use is what the
    decision saw, where it looked at that window, else the sum of the charges by then.
    """

    def __init__(self, history: History, policy: str, draft: Policy, since: float) -> None:
        self._history = history
        self._owner = f"policy/{policy}"
        self._draft = draft
        self._since = since
        self._account_zone = history.account_zone()
        self._more: Counter[tuple[str, str, datetime]] = Counter()
        self._judged: dict[tuple[str, str, datetime], int] = {}
        self._pace = history.pace()
        self._charged = history.charged(since)

    def charged(self, request: int) -> int:
        """Nanodollars that the ledger has for a request, confirmed or not."""
        return self._charged.get(request, 0)

    def add(self, now: datetime, more: int) -> None:
        """A request would have cost so much more (or less) than it did."""
        if not more:
            return
        for owner, zone in ((self._owner, self._draft.timezone), (ACCOUNT, self._account_zone)):
            for window in STRETCHES:
                self._more[owner, window, window_bounds(window, now, zone)[0]] += more

    def states(self, trace: Trace) -> tuple[BudgetState, ...]:
        """Every budget over the draft, as it would have stood at a request's decision."""
        seen = {(b.owner == ACCOUNT, b.window): b for b in trace.budgets}
        ours = [
            self._state(self._owner, b, trace.now, self._draft.timezone, seen.get((False, b.window)))
            for b in sorted(self._draft.budgets, key=lambda b: (b.window, b.hard))
        ]
        theirs = [
            self._state(
                ACCOUNT, Budget(amount=b.amount, window=b.window, hard=b.hard), trace.now, self._account_zone, b
            )
            for b in trace.budgets
            if b.owner == ACCOUNT
        ]
        return (*ours, *theirs)

    def _state(self, owner: str, budget: Budget, now: datetime, zone: str, seen: SeenBudget | None) -> BudgetState:
        if budget.window == "request":
            return standing(owner, budget, now, zone, used=0, judged=None)
        start, end = window_bounds(budget.window, now, zone)
        looked = seen is not None and seen.resets == (end and end.timestamp())
        real = seen.used if seen and looked else self._spent(start, now)
        more = self._more[owner, budget.window, start]
        judged = self._judge(owner, budget.window, now, zone, real, more)
        return standing(owner, budget, now, zone, used=max(0, real + more), judged=judged)

    def _judge(self, owner: str, window: Window, now: datetime, zone: str, real: int, more: int) -> int:
        """What the window had used when the day's first request came; a judgement stands for its day."""
        today, _ = window_bounds("day", now, zone)
        key = (owner, window, today)
        if key not in self._judged:
            self._judged[key] = max(0, self._pace.get((owner, window, int(today.timestamp())), real) + more)
        return self._judged[key]

    # ---- windows that no decision looked at ----

    def _spent(self, start: datetime, now: datetime) -> int:
        """Nanodollars that the policy was really charged from `start` to `now`."""
        times, sums = self._charges
        first, last = np.searchsorted(times, [start.timestamp(), now.timestamp()])
        return int(sums[last] - sums[first])

    @cached_property
    def _charges(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Times of the policy's charges, and what they had come to before each; older ones are one at the beginning."""
        horizon = datetime.fromtimestamp(self._since, UTC) - LONGEST
        older, rows = self._history.charges(horizon.timestamp())
        times = np.array([0.0, *(at for at, _ in rows)])
        return times, np.concatenate([[0], np.cumsum([older, *(amount for _, amount in rows)])])
