"""Balances: what each window of each budget's owner holds and has spent, and what budgets stand over a policy.

The sums are kept in the same transaction as the entries; `fold` computes them anew from the entries alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from router.domain import money
from router.domain.errors import BudgetExceeded, Refused
from router.domain.policy import THIS_WINDOW, allows, from_dict, window_bounds
from router.domain.values import Budget, BudgetState, Policy, Window
from router.store.database import Connection

ACCOUNT = "account"
SIGNED = "CASE kind WHEN 'struck' THEN -amount ELSE amount END"
"""What an entry adds to the money that is charged, in SQL."""
STRETCHES: tuple[Window, ...] = ("day", "week", "month", "total")
Scope = tuple[str, str, int]
"""(owner, window, start): `account` or `policy/NAME`; start in epoch seconds, or the request's number."""


def paid_enabled(conn: Connection) -> bool:
    """False while the kill switch stops all paid calls."""
    row = conn.execute("SELECT value FROM settings WHERE key = 'paid'").fetchone()
    return row is None or row[0] != "off"


def require_permission(conn: Connection, policy: str, model: str) -> None:
    """Raise Refused where the kill switch or the policy, as it is now, forbids a paid call to this model.

    Checked by every hold, and again before each call is sent: the policy may be edited or deleted, and the switch
    turned, while a request or a job runs.
    """
    if not paid_enabled(conn):
        raise Refused("All paid calls are stopped by the kill switch.", "Turn it off to spend again.")
    row = conn.execute(
        "SELECT body, deleted FROM policies WHERE name = ? ORDER BY version DESC LIMIT 1", (policy,)
    ).fetchone()
    if row is None or row[1]:
        raise Refused(
            f"The policy '{policy}' was deleted, so nothing more is spent under it.",
            "Create it again, or use another policy; what was embedded stays.",
        )
    rules = _rules(row[0])
    if rules.local_only:
        raise Refused(
            f"The policy '{policy}' allows local models only, so {model} is not called.",
            "Use a policy that may call paid models; what was embedded stays.",
        )
    if not allows(rules, model):
        raise Refused(
            f"{model} is not on the allow list of the policy '{policy}', so it is not called.",
            "Widen the policy's allow list, or use another policy; what was embedded stays.",
        )


@lru_cache(maxsize=64)
def _rules(body: str) -> Policy:
    return from_dict(json.loads(body))


def fold(conn: Connection) -> dict[Scope, tuple[int, int, int]]:
    """What every balance must be, (held, settled, unconfirmed), computed from the holds and charges alone."""
    sums: dict[Scope, list[int]] = {}

    def add(scopes: str, place: int, amount: int) -> None:
        for scope in parse_scopes(scopes):
            sums.setdefault(scope, [0, 0, 0])[place] += amount

    for amount, scopes in conn.execute("SELECT amount, scopes FROM holds WHERE state = 'pending'"):
        add(scopes, 0, amount)
    for kind, amount, scopes in conn.execute("SELECT kind, amount, scopes FROM charges"):
        add(scopes, 1 if kind == "settled" else 2, -amount if kind == "struck" else amount)
    return {scope: (s[0], s[1], s[2]) for scope, s in sums.items()}


def balances(conn: Connection) -> dict[Scope, tuple[int, int, int]]:
    """Every balance as kept, (held, settled, unconfirmed)."""
    rows = conn.execute("SELECT owner, window, start, held, settled, unconfirmed FROM balances")
    return {(owner, window, start): (held, settled, unsure) for owner, window, start, held, settled, unsure in rows}


def parse_scopes(scopes: str) -> list[Scope]:
    return [(owner, window, start) for owner, window, start in json.loads(scopes)]


def add_to_balances(
    conn: Connection, scopes: Sequence[Scope], *, held: int = 0, settled: int = 0, unconfirmed: int = 0
) -> None:
    # Not an upsert: CHECK (held >= 0) would be tried on the row to insert, and a release takes money off.
    conn.executemany("INSERT OR IGNORE INTO balances (owner, window, start) VALUES (?, ?, ?)", scopes)
    conn.executemany(
        "UPDATE balances SET held = held + ?, settled = settled + ?, unconfirmed = unconfirmed + ?"
        " WHERE owner = ? AND window = ? AND start = ?",
        [(held, settled, unconfirmed, *scope) for scope in scopes],
    )


def require_room(conn: Connection, scopes: Sequence[Scope], amount: int) -> None:
    """Raise BudgetExceeded, of the tightest, where a hard budget cannot take `amount` more."""
    refusals = []
    for owner, window, start in scopes:
        row = conn.execute(
            "SELECT amount FROM budgets WHERE owner = ? AND window = ? AND hard = 1", (owner, window)
        ).fetchone()
        if row is None:
            continue
        used = used_in(conn, owner, window, start)
        if used + amount > row[0]:
            refusals.append(exceeded(owner, window, row[0], used, amount))
    if refusals:
        raise max(refusals, key=lambda refusal: refusal.shortfall)


def exceeded(owner: str, window: str, limit: int, used: int, amount: int) -> BudgetExceeded:
    """The refusal of `amount` nanodollars by a budget, in words."""
    whose = "the account" if owner == ACCOUNT else f"policy '{owner.removeprefix('policy/')}'"
    missing = used + amount - limit
    return BudgetExceeded(
        f"Refused: {THIS_WINDOW[window]} {money.show(limit)} for {whose} has {money.show(max(0, limit - used))} left;"
        f" {money.show(missing)} more is needed.",
        "Raise the budget, wait for the next window, or use a local model.",
        shortfall=missing,
        left=max(0, limit - used),
    )


def used_in(conn: Connection, owner: str, window: str, start: int) -> int:
    row = conn.execute(
        "SELECT held + settled + unconfirmed FROM balances WHERE owner = ? AND window = ? AND start = ?",
        (owner, window, start),
    ).fetchone()
    return int(row[0]) if row else 0


def excess_in(conn: Connection, owner: str, window: str, start: int) -> int:
    """Nanodollars by which the holds of a window exceed what they will likely be settled at."""
    # As text, and not by json_each: every decision asks for it. The scope stands there as `Ledger` writes it.
    (found,) = conn.execute(
        "SELECT coalesce(sum(amount - expected), 0) FROM holds WHERE state = 'pending' AND amount > expected"
        " AND instr(scopes, ?) > 0",
        (json.dumps([owner, window, start]),),
    ).fetchone()
    return int(found)


def zone_of(conn: Connection, owner: str) -> str:
    row = conn.execute("SELECT timezone FROM zones WHERE owner = ?", (owner,)).fetchone()
    return str(row[0]) if row else "UTC"


def window_starts(conn: Connection, owner: str, now: float) -> dict[str, int]:
    """When an owner's windows that run at `now` began; epoch seconds."""
    at, zone = datetime.fromtimestamp(int(now), UTC), zone_of(conn, owner)
    return {window: int(window_bounds(window, at, zone)[0].timestamp()) for window in STRETCHES}


def budgets_of(conn: Connection, owner: str) -> tuple[Budget, ...]:
    """The budgets in force of `account` or `policy/NAME`."""
    rows = conn.execute("SELECT amount, window, hard FROM budgets WHERE owner = ? ORDER BY window, hard", (owner,))
    return tuple(Budget(amount=amount, window=window, hard=bool(hard)) for amount, window, hard in rows)


def unjudged(conn: Connection, policy: str, now: float) -> list[tuple[str, str, int, int]]:
    """(owner, window, its start, today's start) of a policy's and the account's windows without a judged pace today."""
    missing = []
    for owner in (f"policy/{policy}", ACCOUNT):
        starts = window_starts(conn, owner, now)
        for (window,) in conn.execute(
            "SELECT DISTINCT window FROM budgets WHERE owner = ? AND window IN ('day', 'week', 'month')", (owner,)
        ).fetchall():
            day = starts["day"]
            if not conn.execute(
                "SELECT 1 FROM pace WHERE owner = ? AND window = ? AND day = ?", (owner, window, day)
            ).fetchone():
                missing.append((owner, window, starts[window], day))
    return missing


def judge_pace(conn: Connection, policy: str, now: float) -> None:
    """Note how much of each window was used when the day began: `balanced` goes by it."""
    for owner, window, start, day in unjudged(conn, policy, now):
        used = used_in(conn, owner, window, start) - excess_in(conn, owner, window, start)
        conn.execute("INSERT INTO pace VALUES (?, ?, ?, ?)", (owner, window, day, used))


def _state(conn: Connection, owner: str, budget: Budget, now: datetime) -> BudgetState:
    zone = zone_of(conn, owner)
    if budget.window == "request":
        return standing(owner, budget, now, zone, used=0, judged=None)
    start, today = (int(window_bounds(window, now, zone)[0].timestamp()) for window in (budget.window, "day"))
    row = conn.execute(
        "SELECT used FROM pace WHERE owner = ? AND window = ? AND day = ?", (owner, budget.window, today)
    ).fetchone()
    used = used_in(conn, owner, budget.window, start)
    excess = excess_in(conn, owner, budget.window, start) if used else 0
    return standing(owner, budget, now, zone, used=used, judged=int(row[0]) if row else None, excess=excess)


def standing(
    owner: str, budget: Budget, now: datetime, zone: str, *, used: int, judged: int | None, excess: int = 0
) -> BudgetState:
    """The state of a budget whose running window has used so much, and `judged` when the day's pace was judged."""
    if budget.window == "request":
        return BudgetState(owner=owner, budget=budget, used=0)
    start, end = window_bounds(budget.window, now, zone)
    if end is None:
        return BudgetState(owner=owner, budget=budget, used=used, excess=excess)
    today, _ = window_bounds("day", now, zone)
    at_judgement = used - excess if judged is None else judged
    return BudgetState(
        owner=owner,
        budget=budget,
        used=used,
        excess=excess,
        resets=end,
        pace_used=at_judgement / budget.amount if budget.amount else float(at_judgement > 0),
        pace_elapsed=(today - start) / (end - start),
        day_of_window=round((today - start).total_seconds() / 86_400) + 1,
        days_in_window=round((end - start).total_seconds() / 86_400),
    )


def scopes_of(conn: Connection, policy: str, request: int, now: float) -> list[Scope]:
    """Every window in which money of this policy and request counts, the account's and the policy's own."""
    scopes: list[Scope] = []
    for owner in (ACCOUNT, f"policy/{policy}"):
        scopes += [(owner, window, start) for window, start in window_starts(conn, owner, now).items()]
        if conn.execute("SELECT 1 FROM budgets WHERE owner = ? AND window = 'request'", (owner,)).fetchone():
            scopes.append((owner, "request", request))
    return scopes


def budget_states(conn: Connection, policy: str, now: float) -> tuple[BudgetState, ...]:
    """Every budget over a policy, its own and the account's, as it stands at `now` (epoch seconds)."""
    at, owners = datetime.fromtimestamp(now, UTC), (f"policy/{policy}", ACCOUNT)
    return tuple(_state(conn, owner, budget, at) for owner in owners for budget in budgets_of(conn, owner))
