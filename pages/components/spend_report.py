"""Spend's pieces: the filters, the month against its budget, and the findings in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import streamlit as st

from pages.components import access, charts, drilldown, tables, ticks, widgets
from pages.components.drilldown import Bar
from pages.components.format import day, md, moment, plural, usd, when
from pages.components.start import outlook
from router.engine import Router
from router.host import Host
from router.reporting import figures
from router.reporting.figures import Day
from router.store.reconcile import Unconfirmed

RANGES = {
    "1d": "today", "7d": "the last 7 days", "30d": "the last 30 days", "90d": "the last 90 days",
    "month": "this month", "dates": "these days",
}  # fmt: skip
GROUPS = ("route", "provider", "model", "policy", "collection")
UNCONFIRMED = "unconfirmed"
NAMED = 8
"""Charges that are named before they are struck or confirmed; the others are counted."""
MOST_DAYS = 366
HOURLY_DAYS = 7
"""More hours than those of so many days are bars too thin to see."""
UNSURE = "? marks charges that may have been billed: the reply was lost, or names more than can be true."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page shows. Times in epoch seconds; `words` says the range; `bar` is the one that was clicked."""

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
        """What a bar stands for."""
        return "hour" if self.hourly else "day"

    def report(self, router: Router, by: str) -> list[Day]:
        """A bar each, by a group."""
        read = figures.hours if self.hourly else figures.days
        return read(router.usage, first=self.first, last=self.last, zone=self.zone, by=by, where=self.where)


def filters(router: Router) -> Asked:
    """Range, group and policy; they stand in the URL, so that a view can be shared. Each lets go of the chosen bar."""
    policies = {policy.name: policy for policy in router.policies.all()}
    shared: dict[str, Any] = {"bind": "query-params", "on_change": drilldown.forget}
    wrapped = shared | {"required": True, "wrap": True}
    # The zone decides what today is, and the policy decides the zone; its widget comes after the range's.
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
    return Asked(
        first=first, last=last, since=figures.bounds_of(first, zone)[0], until=until, by=by, hourly=hourly, zone=zone,
        policy=policy, words=words, bar=drilldown.chosen(zone),
    )  # fmt: skip


def _days(span: str, today: date, shared: Mapping[str, Any]) -> tuple[date, date]:
    """The first and the last day of a range."""
    if span == "month":
        return today.replace(day=1), today
    if span != "dates":
        return today - timedelta(days=int(span.removesuffix("d")) - 1), today
    usual = (today - timedelta(days=13), today)
    picked = st.date_input("From and to", usual, max_value=today, key="dates", width=240, **shared)
    # While the second is still to be picked, there is one.
    first, last = (picked[0], picked[-1]) if isinstance(picked, tuple) and picked else usual
    return max(first, last - timedelta(days=MOST_DAYS - 1)), last


def spent_of(report: Day, group: str) -> int:
    """Nanodollars that a group cost on a day."""
    s = report.groups.get(group)
    return 0 if s is None else s.charged + s.unconfirmed


def finding(report: Sequence[Day], groups: Mapping[str, Sequence[int]], by: str, step: str) -> str:
    """The chart in a sentence."""
    total = sum(d.spent for d in report)
    if not total:
        return f"Nothing was spent in {plural(len(report), step)}."
    most = max(report, key=lambda d: d.spent)
    name, amounts = max(groups.items(), key=lambda item: sum(item[1]))
    word = drilldown.name_of(name, by)
    head = f"{usd(total)} in {plural(len(report), step)}, most on {moment(most.day)} ({usd(most.spent)})"
    return f"{head}." if len(groups) == 1 else f"{head}; {word} is the largest with {usd(sum(amounts))}."


def month(router: Router, asked: Asked) -> None:
    """This month's running total against the budget that stands over it, with the forecast."""
    st.subheader("This month against the budget")
    now, zone = router.clock(), asked.zone
    states = router.ledger.states(asked.policy or "")
    own = [s for s in states if s.budget.window == "month" and (s.owner != "account") == bool(asked.policy)]
    limit = min((s.budget.amount for s in own), default=None)
    first, last = figures.window_days("month", now, zone)
    today = figures.today(now, zone)
    back = min(first, today - timedelta(days=figures.LOOK_BACK + 1))
    history = figures.days(router.usage, first=back, last=today, zone=zone, where=asked.where)
    days = [d for d in history if d.day >= first]
    totals = figures.running_total(d.spent for d in days)
    ahead = figures.forecast(history, spent=totals[-1], limit=limit, now=now, window="month", zone=zone)
    said = f"{usd(totals[-1])} is spent this month; no budget." if limit is None else outlook(totals[-1], limit, ahead)
    figure = charts.cumulative([d.day for d in days], totals, limit, ahead, until=last)
    st.plotly_chart(figure, config=charts.CONFIG, key="month", alt=said)
    st.caption(md(said))


def latencies(router: Router, asked: Asked) -> None:
    """How long requests took, by route."""
    st.subheader("Latency by route")
    rows = tables.latencies(router.usage, since=asked.since, until=asked.until, where=asked.where)
    config = {"route": widgets.words_column("route")}
    st.dataframe(rows, column_config=config, hide_index=True, alt="Latency of requests by route")
    st.caption(
        "Half of the requests, and 95 of 100, ended within so long: bounds of a histogram whose steps are 1.4 wide."
        " Batches, which take hours by design, are not in it."
    )


def collections(router: Router, asked: Asked) -> None:
    """Where the money went by collection, the most expensive first."""
    st.subheader("Most expensive collections")
    groups = figures.groups(router.usage, since=asked.since, until=asked.until, by="collection", where=asked.where)
    rows = tables.collections(groups)
    if rows:
        st.dataframe(rows, hide_index=True, alt="The collections that cost most")
        st.caption("Texts that belong to no collection are not among them.")
    else:
        widgets.empty(f"No collection was used in {asked.words}.")


def exports(asked: Asked, report: Sequence[Day]) -> None:
    """The report to take away."""
    name = f"spend-by-{asked.by}"
    rows = {"by": asked.by, "step": asked.step}
    with st.container(horizontal=True):
        st.download_button(
            "CSV", lambda: tables.by_day_csv(report, **rows), file_name=f"{name}.csv", mime="text/csv",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "Parquet", lambda: tables.by_day_parquet(report, **rows), file_name=f"{name}.parquet",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip


def unconfirmed(host: Host) -> None:
    """Charges without the provider's word, each to be confirmed or struck by its invoice."""
    rows = {row.id: row for row in host.router.ledger.unconfirmed()}
    if rows:
        st.subheader("Unconfirmed charges")
        st.warning(
            md(
                f"{usd(sum(row.amount for row in rows.values()))} in all is unconfirmed: the reply was lost, or names"
                " more than can be true. It counts against the budgets as if it had been billed."
            ),
            icon=":material/help:",
        )
    chosen = ticks.table(
        UNCONFIRMED, dict(zip(rows, tables.unconfirmed(rows.values()), strict=True)),
        gone="unconfirmed no longer: it was confirmed or struck elsewhere",
        column_config={
            "route": widgets.words_column("route"), "why": st.column_config.TextColumn("why", width="large")
        },
        alt="Charges that wait for the provider's invoice",
    )  # fmt: skip
    if not rows:
        return
    st.caption("Tick charges: confirm those on the provider's invoice, strike those that are not. Times in UTC.")
    ticked = [rows[number] for number in chosen]
    how_much = f" {charges(ticked)}" if ticked else ""
    with st.container(horizontal=True):
        for word, icon, confirm in (("Confirm", ":material/check:", True), ("Strike", ":material/close:", False)):
            # The button is of these charges and no others: a click on it that comes late, when others are ticked, is
            # a click on nothing.
            if st.button(
                md(f"{word}{how_much}"), icon=icon, key=ticks.key(word, chosen),
                **access.only_editors(disabled=not ticked),
            ):  # fmt: skip
                _ask(host, ticked, confirm=confirm)


def charges(rows: Sequence[Unconfirmed]) -> str:
    """How many, and how much: `2 charges, $0.0412`."""
    return f"{plural(len(rows), 'charge')}, {usd(sum(row.amount for row in rows))}"


def _ask(host: Host, rows: Sequence[Unconfirmed], *, confirm: bool) -> None:
    """Name the charges, and what will become of them."""
    them = "it" if len(rows) == 1 else "they"
    what = (
        f"The provider billed {charges(rows)}: {them} will count as spent."
        if confirm
        else f"The provider did not bill {charges(rows)}: {them} will come off the books and the budgets."
    )
    listed = [f"- {md(usd(row.amount))} · {md(row.model)} · {md(when(row.at, 'UTC'))} UTC" for row in rows[:NAMED]]
    listed += [f"- and {len(rows) - NAMED:,} more"] * (len(rows) > NAMED)
    words = "\n".join([md(what), "", *listed, "", "This cannot be taken back."])
    title = f"{'Confirm' if confirm else 'Strike'} {plural(len(rows), 'charge')}?"
    icon = ":material/check:" if confirm else ":material/close:"
    widgets.ask(title, words, title[:-1], lambda: reconcile(host, rows, confirm=confirm), icon=icon)


def reconcile(host: Host, rows: Sequence[Unconfirmed], *, confirm: bool) -> str:
    """Book it, charge by charge; what came of it in words."""
    ticks.clear(UNCONFIRMED)
    ledger = host.router.ledger
    done = [row for row in rows if host.run(ledger.reconcile(row.id, confirm=confirm))]
    said = f"{charges(done)} {'confirmed' if confirm else 'struck'}." if done else "Nothing was changed."
    if late := len(rows) - len(done):
        said += f" {plural(late, 'charge')} had been confirmed or struck elsewhere."
    return said
