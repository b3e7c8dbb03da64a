"""Policies and their budgets: the built-in ones, their text and JSON forms, and when a budget's window runs.

Everything that a person can get wrong in a policy is refused here, so that a decision never meets a
policy that cannot be decided. Windows are counted in the policy's time zone and returned in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import get_args
from zoneinfo import ZoneInfo

from router.domain import money
from router.domain.errors import BadInput
from router.domain.tables import read
from router.domain.values import Budget, Deadline, Goal, LongTexts, Policy, Queries, WhenExhausted, Window

GOALS: tuple[Goal, ...] = get_args(Goal)
WINDOWS: tuple[Window, ...] = get_args(Window)
WHEN_EXHAUSTED: tuple[WhenExhausted, ...] = get_args(WhenExhausted)
DEADLINES: tuple[Deadline, ...] = get_args(Deadline)
LONG_TEXTS: tuple[LongTexts, ...] = get_args(LongTexts)
QUERIES: tuple[Queries, ...] = get_args(Queries)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST = 1_000_000_000 * money.NANO
"""The largest budget, a billion dollars: what `money.parse_usd` takes and a 64-bit column holds."""

ACCOUNT_BUDGET = Budget(amount=10 * money.NANO, window="month", hard=True)

_FIVE_A_MONTH = (Budget(amount=5 * money.NANO, window="month", hard=True),)

BUILT_IN: tuple[Policy, ...] = (
    Policy(name="default", goal="balanced", budgets=_FIVE_A_MONTH),
    Policy(name="economy", goal="economy", budgets=_FIVE_A_MONTH),
    Policy(name="quality", goal="quality", budgets=_FIVE_A_MONTH),
    Policy(name="local", local_only=True),
)

PER_WINDOW: Mapping[str, str] = {
    "request": "a request", "day": "a day", "week": "a week", "month": "a month", "total": "in total",
}  # fmt: skip
THIS_WINDOW: Mapping[str, str] = {
    "request": "the per-request", "day": "today's", "week": "this week's", "month": "this month's",
    "total": "the total",
}  # fmt: skip


# ---- budgets as text ---------------------------------------------------------------------------


def parse_budget(text: str) -> Budget:
    """A budget from `AMOUNT/request|day|week|month|total`, with `:soft` after it if it only warns.

    Raises:
        BadInput: not of that form, an unknown window, or an amount that is not zero or more dollars.
    """
    form = "Write it like 5/month, 0.25/day:soft or $20/total."
    amount, slash, rest = text.strip().partition("/")
    if not slash:
        raise BadInput(f"'{text}' is not a budget: there is no window after the amount.", form)
    window, colon, hardness = rest.strip().partition(":")
    if colon and hardness.strip() != "soft":
        raise BadInput(f"'{text}' is not a budget: '{hardness}' after the colon is not 'soft'.", form)
    if (name := window.strip()) not in WINDOWS:
        raise BadInput(
            f"The window of the budget '{text}' cannot be {name!r}.", f"Choose one of: {', '.join(WINDOWS)}."
        )
    return Budget(amount=money.parse_usd(amount), window=name, hard=not colon)


def format_budget(budget: Budget) -> str:
    """The exact text that `parse_budget` reads: `5/month`, `0.0005/total:soft`."""
    amount = money.to_json(budget.amount).rstrip("0").removesuffix(".")
    return f"{amount}/{budget.window}{'' if budget.hard else ':soft'}"


def describe_budget(budget: Budget) -> str:
    """A budget for people: `$5.00 a month`, `$0.25 a day (soft)`."""
    return f"{money.show(budget.amount)} {PER_WINDOW[budget.window]}{'' if budget.hard else ' (soft)'}"


# ---- windows -----------------------------------------------------------------------------------


def window_bounds(window: Window, now: datetime, timezone: str) -> tuple[datetime, datetime | None]:
    """Start and end, in UTC, of the window that runs at `now`: `start <= now < end`.

    Days, ISO weeks (from Monday) and calendar months begin when the zone's clocks first show midnight or,
    where midnight is skipped, something later. A clock set back over midnight does not bring the old window
    back, so windows follow each other without gap or overlap. `total` is `(1970-01-01, None)`.

    Raises:
        BadInput: no such time zone.
        ValueError: `request`, which is not a stretch of time, or a `now` without a zone.
    """
    if window == "request":
        raise ValueError("a 'request' budget has no window of time")
    if now.tzinfo is None:
        raise ValueError("now must carry its time zone")
    if window == "total":
        return EPOCH, None
    zone, now = find_zone(timezone), now.astimezone(UTC)
    first = _first_day(window, now.astimezone(zone).date())
    following = _next_first_day(window, first)
    while (end := _midnight(following, zone)) <= now:
        first, following = following, _next_first_day(window, following)
    return _midnight(first, zone), end


def find_zone(name: str) -> ZoneInfo:
    """The IANA time zone of this name.

    Raises:
        BadInput: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found; not a name; a folder of zones such as "America"
        hint = "Use an IANA name such as UTC, Europe/Paris or America/New_York."
        raise BadInput(f"'{name}' is not a time zone.", hint) from None


def _first_day(window: Window, day: date) -> date:
    if window == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if window == "week" else day


def _next_first_day(window: Window, first: date) -> date:
    if window == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if window == "week" else 1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant, in UTC, at which the zone's clocks show this day's midnight or later."""
    local = datetime.combine(day, time.min, zone)
    late, early = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
    if late <= early:  # the usual case, or a midnight that comes twice: the first of the two
        return late
    wall = local.replace(tzinfo=None)
    while late - early > timedelta(seconds=1):  # midnight is skipped: find the jump over it
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
        if middle.astimezone(zone).replace(tzinfo=None) >= wall:
            late = middle
        else:
            early = middle
    return late


# ---- is it a policy that can be decided? -------------------------------------------------------


def allows(policy: Policy, model_id: str) -> bool:
    """True where a pattern of the policy's allow list matches the model's id, case and all."""
    return any(fnmatchcase(model_id, pattern) for pattern in policy.allow)


def validate(policy: Policy, model_ids: Iterable[str]) -> None:
    """Check a policy whole: types, bounds, and what they cannot say.

    Raises:
        BadInput: what is wrong, where in the policy, and what to do.
    """
    where = f"in the policy '{policy.name}'"
    _validate_name(policy.name)
    from_dict(to_dict(policy))
    find_zone(policy.timezone)
    _validate_allow(policy, tuple(model_ids), where)
    _validate_budgets(policy.budgets, where)


def _validate_name(name: str) -> None:
    if not re.fullmatch(r"[\w. -]{1,64}", name):
        hint = "Use 1 to 64 letters, digits, spaces, or the signs - _ and the full stop."
        raise BadInput(f"{name!r} cannot be the name of a policy.", hint)
    if name != name.strip():
        raise BadInput(f"The policy name {name!r} begins or ends with a space.", "Leave the space out.")


def _validate_allow(policy: Policy, model_ids: tuple[str, ...], where: str) -> None:
    known = f"Known models: {', '.join(model_ids) or 'none'}."
    if not policy.allow:
        raise BadInput(f"The allow list {where} is empty, so nothing could be embedded.", "Write * to allow all.")
    for pattern in policy.allow:
        if not any(fnmatchcase(model_id, pattern) for model_id in model_ids):
            raise BadInput(f"'{pattern}' in the allow list {where} matches no model.", known)
    if policy.local_only and not any(m.startswith("local/") and allows(policy, m) for m in model_ids):
        message = f"Only local models may serve {where}, but its allow list has none."
        raise BadInput(message, "Add local/* to the allow list, or allow paid models.")


def _validate_budgets(budgets: Sequence[Budget], where: str) -> None:
    seen: set[tuple[Window, bool]] = set()
    for budget in budgets:
        if (budget.window, budget.hard) in seen:
            kind = "hard" if budget.hard else "soft"
            message = f"There are two {kind} budgets {PER_WINDOW[budget.window]} {where}."
            raise BadInput(message, "Keep the one that is meant.")
        seen.add((budget.window, budget.hard))


# ---- JSON --------------------------------------------------------------------------------------


def to_dict(policy: Policy) -> dict[str, object]:
    """The policy as JSON-able values; budgets as `{"amount_usd": "5.000000000", "window": ..., "hard": ...}`."""
    values: dict[str, object] = {field.name: getattr(policy, field.name) for field in fields(policy)}
    values["allow"] = list(policy.allow)
    values["budgets"] = [
        {"amount_usd": money.to_json(b.amount), "window": b.window, "hard": b.hard} for b in policy.budgets
    ]
    return values


def from_dict(values: Mapping[str, object]) -> Policy:
    """The policy that `to_dict` wrote; keys left out (but `name`) take their default. Shapes only: see `validate`.

    Raises:
        BadInput: an unknown key, or a value of the wrong type.
    """
    budgets = read({"budgets": values.get("budgets", ())}, _Budgets, "The policy").budgets
    found = read({key: value for key, value in values.items() if key != "budgets"}, Policy, "The policy")
    return replace(
        found,
        budgets=tuple(Budget(amount=money.parse_usd(b.amount_usd), window=b.window, hard=b.hard) for b in budgets),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Budget:
    """A budget as JSON has it."""

    amount_usd: str
    window: Window
    hard: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Budgets:
    budgets: tuple[_Budget, ...]


# ---- what a draft would change -----------------------------------------------------------------

_WORDS = {
    "name": "name", "goal": "goal", "min_quality": "least quality", "allow": "allowed models",
    "local_only": "local only", "when_exhausted": "when the money is gone", "deadline": "deadline",
    "long_texts": "long texts", "queries": "queries go to", "normalise": "normalise texts", "timezone": "time zone",
}  # fmt: skip


def differences(old: Policy, new: Policy) -> list[str]:
    """What changed, a line each, in plain words: `budget: $5.00 a month → $8.00 a month`. Versions are not compared."""
    lines = []
    for key, words in _WORDS.items():
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            lines.append(f"{words}: {_plain(before)} → {_plain(after)}")
    for window in WINDOWS:
        gone = _only_in(old, new, window)
        come = _only_in(new, old, window)
        if gone or come:
            shown = [" and ".join(map(describe_budget, budgets)) or "none" for budgets in (gone, come)]
            if shown[0] == shown[1]:  # the difference is finer than what is shown
                shown = [" and ".join(map(format_budget, budgets)) for budgets in (gone, come)]
            lines.append(f"budget: {shown[0]} → {shown[1]}")
    return lines


def _only_in(here: Policy, there: Policy, window: Window) -> list[Budget]:
    return [b for b in here.budgets if b.window == window and b not in there.budgets]


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else str(value).removesuffix(".0")
