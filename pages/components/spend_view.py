"""What the Spend page shows: its filters and the chosen bar, all kept in the URL, so that a view can be shared.

A bar is `?bar=DAY&of=GROUP`. An hour's bar is written in UTC, so that it is unambiguous when the clocks go back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import streamlit as st

from pages.components.format import ROUTES, day
from router.engine import Router
from router.reporting import figures
from router.reporting.figures import Day

RANGES = {
    "1d": "today", "7d": "the last 7 days", "30d": "the last 30 days", "90d": "the last 90 days",
    "month": "this month", "dates": "these days",
}  # fmt: skip
GROUPS = ("route", "provider", "model", "policy", "collection")
MOST_DAYS = 366
HOURLY_DAYS = 7
"""The longest range that can be shown by the hour; in a longer one the bars are too thin to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A day (or an hour, then a datetime of the zone) and one group in it."""

    start: date
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The range, grouping and filter of the page. Times in epoch seconds; `words` names the range."""

    first: date
    last: date
    since: float
    until: float
    by: str
    hourly: bool
    zone: str
    policy: str | None
    words: str
    bar: Bar | None

    @property
    def where(self) -> Mapping[str, str]:
        """The filter of a usage query."""
        return {"policy": self.policy} if self.policy else {}

    @property
    def step(self) -> str:
        """The time that a bar covers."""
        return "hour" if self.hourly else "day"

    def report(self, router: Router, by: str) -> list[Day]:
        """The sums of each day or hour, by group."""
        read = figures.hours if self.hourly else figures.days
        return read(router.usage, first=self.first, last=self.last, zone=self.zone, by=by, where=self.where)


def filters(router: Router) -> View:
    """Draw the filters: range, grouping and policy. Changing one clears the chosen bar."""
    policies = {policy.name: policy for policy in router.policies.all()}
    shared: dict[str, Any] = {"bind": "query-params", "on_change": clear_bar}
    wrapped = shared | {"required": True, "wrap": True}
    # The policy decides the zone, and the zone what today is; but the policy's widget comes after the range's.
    policy = st.session_state.get("only", st.query_params.get("only"))
    zone = policies[policy].timezone if policy in policies else router.policies.account_zone()
    now = router.clock()
    today = figures.today(now, zone)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        span = st.segmented_control("Range", list(RANGES), default="30d", key="range", **wrapped)
        first, last = _days(span, today, shared)
        hourly = span == "1d"
        if 1 < (last - first).days + 1 <= HOURLY_DAYS:
            hourly = st.segmented_control("Bars", ["day", "hour"], default="day", key="step", **wrapped) == "hour"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = st.segmented_control("By", GROUPS, default="route", key="by", **wrapped)
        policy = st.selectbox(
            "Policy", list(policies), index=None, placeholder="All policies", key="only", width=220, **shared
        )
    until = min(now + 1, figures.bounds_of(last, zone)[1])
    words = f"{day(first)} to {day(last)}" if span == "dates" else RANGES[span]
    return View(
        first=first, last=last, since=figures.bounds_of(first, zone)[0], until=until, by=by, hourly=hourly, zone=zone,
        policy=policy, words=words, bar=chosen_bar(zone),
    )  # fmt: skip


def _days(span: str, today: date, shared: Mapping[str, Any]) -> tuple[date, date]:
    """The first and the last day of a range."""
    if span == "month":
        return today.replace(day=1), today
    if span != "dates":
        return today - timedelta(days=int(span.removesuffix("d")) - 1), today
    usual = (today - timedelta(days=13), today)
    picked = st.date_input("From and to", usual, max_value=today, key="dates", width=240, **shared)
    # There is only one until the second is picked.
    first, last = (picked[0], picked[-1]) if isinstance(picked, tuple) and picked else usual
    return max(first, last - timedelta(days=MOST_DAYS - 1)), last


def group_name(group: str, by: str) -> str:
    """A group in words."""
    return ROUTES[group].word if by == "route" and group in ROUTES else group or f"no {by}"


def chosen_bar(zone: str) -> Bar | None:
    """The bar that the URL names; None without a valid one."""
    start = start_of(st.query_params.get("bar", ""), zone)
    return None if start is None else Bar(start=start, of=st.query_params.get("of", ""))


def start_of(written: str, zone: str) -> date | None:
    """A bar's start from its form in the URL: a day, or an hour with its offset from UTC; None for anything else."""
    try:
        start = datetime.fromisoformat(written)
        if not 1970 < start.year < 9999:
            return None
        if "T" not in written:
            return start.date()
        return None if start.tzinfo is None else figures.hour_at(start.timestamp(), zone)
    except ValueError:
        return None


def clear_bar() -> None:
    """Show all requests again."""
    for name in ("bar", "of"):
        st.query_params.pop(name, None)


def choose_bar(bar: Bar, zone: str) -> None:
    """Show the requests behind a bar, or, if it was chosen already, all requests again."""
    if bar == chosen_bar(zone):
        clear_bar()
        return
    start = bar.start
    hour = f"{start.astimezone(UTC):%Y-%m-%dT%H:%MZ}" if isinstance(start, datetime) else ""
    st.query_params["bar"], st.query_params["of"] = hour or start.isoformat(), bar.of
