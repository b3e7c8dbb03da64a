"""Whether spending keeps pace with the windows of the budgets: what the goal `balanced` goes by."""

from __future__ import annotations

from dataclasses import dataclass

from router.domain.values import BudgetState, Facts

PACE_ALLOWANCE = 0.1
"""How far the share spent may run ahead of the share of the window elapsed, under the goal `balanced`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Shares (0-1) of a budget used and of its window elapsed, at the day's one judgement."""

    state: BudgetState
    used: float
    elapsed: float

    @property
    def on_pace(self) -> bool:
        return self.used <= self.elapsed + PACE_ALLOWANCE

    def __str__(self) -> str:
        state = self.state
        account = "account " if state.owner == "account" else ""
        digits = 0 if self.used == 0 or self.used >= 0.01 else 1
        day = f" on day {state.day_of_window} of {state.days_in_window}" if state.days_in_window > 1 else ""
        return f"{100 * self.used:.{digits}f} % of the {state.budget.window}'s {account}budget is used{day}"


def pace_of(facts: Facts) -> Pace | None:
    """The budget whose spending is furthest ahead of its window, hard or soft; None where none has a pace."""
    paces = [
        Pace(state=state, used=state.pace_used, elapsed=state.pace_elapsed)
        for state in facts.budgets
        if state.pace_used is not None and state.pace_elapsed is not None
        if state.budget.window in ("day", "week", "month")
    ]
    return max(paces, key=lambda pace: pace.used - pace.elapsed, default=None)
