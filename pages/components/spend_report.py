"""Sections of the Spend page: this month against its budget, latency, collections, exports, unconfirmed charges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import accumulate

import streamlit as st

from pages.components import charts, tables, ticks, widgets
from pages.components.format import md, moment, plural, usd, when
from pages.components.overview_report import outlook
from pages.components.spend_view import View, group_name
from router.engine import Router
from router.host import Host
from router.reporting import figures
from router.reporting.figures import Day
from router.store.reconcile import Unconfirmed

UNCONFIRMED = "unconfirmed"
UNSURE = "? marks charges that may have been billed: the reply was lost, or reports more than can be true."


def finding(report: Sequence[Day], groups: Mapping[str, Sequence[int]], by: str, step: str) -> str:
    """The chart in a sentence."""
    total = sum(d.spent for d in report)
    if not total:
        return f"Nothing was spent in {plural(len(report), step)}."
    most = max(report, key=lambda d: d.spent)
    name, amounts = max(groups.items(), key=lambda item: sum(item[1]))
    start = f"{usd(total)} in {plural(len(report), step)}, most on {moment(most.day)} ({usd(most.spent)})"
    return f"{start}." if len(groups) == 1 else f"{start}; {group_name(name, by)} is the largest, {usd(sum(amounts))}."


def month(router: Router, view: View) -> None:
    """This month's running total against its budget, with the forecast."""
    st.subheader("This month against the budget")
    now, zone = router.clock(), view.zone
    states = router.budgets(view.policy or "")
    own = [s for s in states if s.budget.window == "month" and (s.owner != "account") == bool(view.policy)]
    limit = min((s.budget.amount for s in own), default=None)
    first, last = figures.window_days("month", now, zone)
    today = figures.today(now, zone)
    back = min(first, today - timedelta(days=figures.LOOK_BACK + 1))
    history = figures.days(router.usage, first=back, last=today, zone=zone, where=view.where)
    days = [d for d in history if d.day >= first]
    totals = list(accumulate(d.spent for d in days))
    ahead = figures.forecast(history, spent=totals[-1], limit=limit, now=now, window="month", zone=zone)
    said = f"{usd(totals[-1])} spent this month; no budget." if limit is None else outlook(totals[-1], limit, ahead)
    figure = charts.cumulative([d.day for d in days], totals, limit, ahead, until=last)
    st.plotly_chart(figure, config=charts.CONFIG, key="month", alt=said)
    st.caption(md(said))


def latencies(router: Router, view: View) -> None:
    """How long requests took, by route."""
    st.subheader("Latency by route")
    rows = tables.latencies(router.usage, since=view.since, until=view.until, where=view.where)
    widgets.table(rows, "Latency of requests by route", {"route": widgets.words_column()})
    st.caption(
        "50 and 95 of 100 requests were at least this fast: upper bounds of histogram buckets, each 1.4 times the one"
        " before. Batches are left out; they take hours by design."
    )


def collections(router: Router, view: View) -> None:
    """Spending by collection."""
    st.subheader("Most expensive collections")
    groups = figures.groups(router.usage, since=view.since, until=view.until, by="collection", where=view.where)
    rows = tables.collections(groups)
    if rows:
        widgets.table(rows, "The collections that cost most")
        st.caption("Texts outside collections are left out.")
    else:
        widgets.empty(f"No collection was used in {view.words}.")


def exports(view: View, report: Sequence[Day]) -> None:
    """The report as files."""
    name, what = f"spend-by-{view.by}", (report, view.by, view.step)
    widgets.downloads({
        "CSV": (f"{name}.csv", partial(tables.by_day_csv, *what)),
        "Parquet": (f"{name}.parquet", partial(tables.by_day_parquet, *what)),
    })  # fmt: skip


def unconfirmed(host: Host) -> None:
    """The unconfirmed charges, to be confirmed or struck by the provider's invoice."""
    rows = {row.id: row for row in host.router.unconfirmed()}
    if rows:
        st.subheader("Unconfirmed charges")
        said = (
            f"{usd(sum(row.amount for row in rows.values()))} in all is unconfirmed: the reply was lost, or reports"
            " more than can be true. It counts against the budgets like a confirmed charge."
        )
        st.warning(md(said), icon=":material/help:")
    chosen = ticks.table(
        UNCONFIRMED, dict(zip(rows, tables.unconfirmed(rows.values()), strict=True)),
        gone="unconfirmed no longer: it was confirmed or struck elsewhere",
        column_config={"route": widgets.words_column(), "why": widgets.WIDE},
        alt="Charges to be checked against the provider's invoice",
    )  # fmt: skip
    if not rows:
        return
    hint = "Tick charges, then confirm those on the provider's invoice and strike those that are not. Times in UTC."
    st.caption(hint)
    ticked = [rows[number] for number in chosen]
    how_much = f" {charges(ticked)}" if ticked else ""
    with st.container(horizontal=True):
        for word, icon, confirm in (("Confirm", "check", True), ("Strike", "close", False)):
            # The key is of these charges, so a late click, when others are ticked, has no effect.
            key = ticks.key(word, chosen)
            if widgets.act(md(f"{word}{how_much}"), icon, key=key, disabled=not ticked):
                _ask(host, ticked, word, icon, confirm=confirm)


def charges(rows: Sequence[Unconfirmed]) -> str:
    """How many, and how much: `2 charges, $0.0412`."""
    return f"{plural(len(rows), 'charge')}, {usd(sum(row.amount for row in rows))}"


def _ask(host: Host, rows: Sequence[Unconfirmed], word: str, icon: str, *, confirm: bool) -> None:
    """Ask before charges are confirmed or struck."""
    billed, count = ("billed", "count") if confirm else ("did not bill", "no longer count")
    what = f"The provider {billed} {charges(rows)}: {'it' if len(rows) == 1 else 'they'} will {count} as spent."
    items = [f"{md(usd(row.amount))} · {md(row.model)} · {md(when(row.at, 'UTC'))} UTC" for row in rows]
    yes = f"{word} {plural(len(rows), 'charge')}"
    widgets.ask(md(what), items, yes, lambda: reconcile(host, rows, confirm=confirm), icon=f":material/{icon}:")


def reconcile(host: Host, rows: Sequence[Unconfirmed], *, confirm: bool) -> str:
    """Confirm or strike the charges, one by one; the outcome in a sentence."""
    ticks.clear(UNCONFIRMED)
    done = [row for row in rows if host.run(host.router.reconcile(row.id, confirm=confirm))]
    said = f"{charges(done)} {'confirmed' if confirm else 'struck'}." if done else "Nothing was changed."
    if late := len(rows) - len(done):
        said += f" {plural(late, 'charge')} had been confirmed or struck elsewhere."
    return said
