"""Spend's pieces: the filters, the month against its budget, and the findings in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import streamlit as st

from pages.components import access, charts, draw, tables
from pages.components.format import ROUTES, day, md, plural, usd
from pages.components.start import outlook
from router import reports
from router.engine import Router
from router.host import Host
from router.reports import Day

RANGES = {"7d": "the last 7 days", "30d": "the last 30 days", "90d": "the last 90 days", "month": "this month"}
GROUPS = ("route", "model", "policy", "collection")
UNSURE = "? marks charges without the provider's word: the reply was lost, and the call may have been billed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page shows. Times in epoch seconds; `words` says the range."""

    first: date
    last: date
    since: float
    until: float
    by: str
    zone: str
    policy: str | None
    words: str

    @property
    def where(self) -> Mapping[str, str]:
        """The filter of a usage query."""
        return {"policy": self.policy} if self.policy else {}


def filters(router: Router) -> Asked:
    """Range, group and policy; they stand in the URL, so that a view can be shared."""
    policies = {policy.name: policy for policy in router.policies.all()}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        span = st.segmented_control(
            "Range", list(RANGES), default="30d", required=True, key="range", bind="query-params"
        )
        by = st.segmented_control("By", GROUPS, default="route", required=True, key="by", bind="query-params")
        policy = st.selectbox(
            "Policy", list(policies), index=None, placeholder="All policies", key="only", bind="query-params", width=220
        )
    zone = policies[policy].timezone if policy else "UTC"
    now = router.clock()
    last = reports.today(now, zone)
    first = last.replace(day=1) if span == "month" else last - timedelta(days=int(span.removesuffix("d")) - 1)
    return Asked(
        first=first, last=last, since=reports.bounds_of(first, zone)[0], until=now + 1, by=by, zone=zone,
        policy=policy, words=RANGES[span],
    )  # fmt: skip


def spent_of(report: Day, group: str) -> int:
    """Nanodollars that a group cost on a day."""
    s = report.groups.get(group)
    return 0 if s is None else s.charged + s.unconfirmed


def finding(report: Sequence[Day], groups: Mapping[str, Sequence[int]], by: str) -> str:
    """The chart in a sentence."""
    total = sum(d.spent for d in report)
    if not total:
        return f"Nothing was spent in {plural(len(report), 'day')}."
    most = max(report, key=lambda d: d.spent)
    name, amounts = max(groups.items(), key=lambda item: sum(item[1]))
    word = ROUTES[name].word if by == "route" else name or "no collection"
    head = f"{usd(total)} in {plural(len(report), 'day')}, most on {day(most.day)} ({usd(most.spent)})"
    return f"{head}." if len(groups) == 1 else f"{head}; {word} is the largest with {usd(sum(amounts))}."


def month(router: Router, asked: Asked) -> None:
    """This month's running total against the budget that stands over it, with the forecast."""
    st.subheader("This month against the budget")
    now, zone = router.clock(), asked.zone
    states = router.ledger.states(asked.policy or "")
    own = [s for s in states if s.budget.window == "month" and (s.owner != "account") == bool(asked.policy)]
    limit = min((s.budget.amount for s in own), default=None)
    first, last = reports.window_days("month", now, zone)
    today = reports.today(now, zone)
    back = min(first, today - timedelta(days=reports.LOOK_BACK + 1))
    history = reports.days(router.usage, first=back, last=today, zone=zone, where=asked.where)
    days = [d for d in history if d.day >= first]
    totals = reports.running_total(d.spent for d in days)
    ahead = reports.forecast(history, spent=totals[-1], limit=limit, now=now, window="month", zone=zone)
    said = f"{usd(totals[-1])} is spent this month; no budget." if limit is None else outlook(totals[-1], limit, ahead)
    figure = charts.cumulative([d.day for d in days], totals, limit, ahead, until=last)
    st.plotly_chart(figure, config=charts.CONFIG, key="month", alt=said)
    st.caption(md(said))


def unconfirmed(host: Host) -> None:
    """Charges without the provider's word, each to be confirmed or struck by its invoice."""
    ledger = host.router.ledger
    rows = ledger.unconfirmed()
    if not rows:
        return
    st.subheader("Unconfirmed charges")
    total = sum(row.amount for row in rows)
    st.warning(
        md(
            f"{usd(total)} in all is unconfirmed: calls whose outcome is not known, because the reply was lost. They"
            " count against the budgets as if they had been billed."
        ),
        icon=":material/help:",
    )
    picked = st.dataframe(
        tables.unconfirmed(rows), hide_index=True, on_select="rerun", selection_mode="multi-row", key="unconfirmed",
        column_config={
            "route": draw.words_column("route"), "why": st.column_config.TextColumn("why", width="large")
        },
        alt="Charges that wait for the provider's invoice",
    )  # fmt: skip
    chosen = [rows[i] for i in picked.selection.rows if i < len(rows)]
    amount = usd(sum(row.amount for row in chosen))
    st.caption("Pick those that you found on the provider's invoice, or did not. Times in UTC.")
    with st.container(horizontal=True):
        options = access.only_editors(disabled=not chosen)
        confirm = st.button(md(f"Billed: confirm {amount}"), icon=":material/check:", key="confirm", **options)
        strike = st.button(md(f"Not billed: strike {amount}"), icon=":material/close:", key="strike", **options)
    if confirm or strike:
        with draw.in_words():
            done = sum(host.run(ledger.reconcile(row.id, confirm=confirm)) for row in chosen)
            st.toast(f"{plural(done, 'charge')} {'confirmed' if confirm else 'struck'}.")
            del st.session_state["unconfirmed"]
            st.rerun()
