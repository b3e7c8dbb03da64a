"""The spend chart, its table, and the requests behind a bar of it, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from pages.components import charts, spend_view, tables, ticks, widgets
from pages.components.background import kept
from pages.components.format import md, moment, plural, usd
from pages.components.spend_view import Bar, View
from router.engine import Router
from router.reporting import figures
from router.reporting.figures import Day
from router.store.usage import Order, Place

PAGE = 50
COLUMNS = ["time", "texts", "answered by", "cost", "saved", "took", "policy", "model", "why"]


def chart(view: View, report: Sequence[Day], groups: Mapping[str, Sequence[int]], alt: str) -> None:
    """The spend chart; a click on a bar chooses it, a second click clears it."""
    days, names, bar = [d.day for d in report], list(groups), view.bar
    # A widget of its own for each choice, since the URL and not the browser says which bar stands out; and for each
    # list of bars, since a click is reported by the bar's number.
    key = ticks.key(f"spent {view.by} {bar}", (days, names))

    def select() -> None:
        points: list[dict[str, Any]] = st.session_state[key]["selection"]["points"]
        if points:
            last = points[-1]
            spend_view.choose_bar(Bar(start=days[last["point_index"]], of=names[last["curve_number"]]), view.zone)

    figure = charts.spent(days, groups, chosen=None if bar is None else (bar.start, bar.of))
    st.plotly_chart(figure, config=charts.CONFIG, key=key, alt=alt, on_select=select, selection_mode="points")


def table(view: View, report: Sequence[Day]) -> None:
    """The chart as a table; selecting a row chooses its bar, which may be too thin to click on."""
    bars = [Bar(start=day.day, of=name) for day in reversed(report) for name in day.groups]
    key = ticks.key(f"sums {view.by} {view.bar}", bars)

    def select() -> None:
        for row in st.session_state[key]["selection"]["rows"]:
            spend_view.choose_bar(bars[row], view.zone)

    rows, alt = tables.by_day(report, view.by, view.step), f"Sums by {view.step} and {view.by}"
    widgets.table(rows, alt, key=key, on_select=select, selection_mode="single-row")
    st.caption("Select a row for the requests behind it.")


def requests(router: Router, view: View, report: Sequence[Day]) -> None:
    """The requests of the range, or those behind the chosen bar, a page at a time."""
    bar = view.bar
    heading = st.empty()
    order = widgets.order()
    past: list[Place] = kept("page ends", (view.first, view.last, view.by, view.policy, view.bar, order), list)
    page: dict[str, Any] = {"limit": PAGE + 1, "before": past[-1] if past else None, "order": order}
    if bar is None:
        heading.subheader(widgets.TITLES[order])
        rows = router.usage.requests(since=view.since, until=view.until, where=view.where, **page)
    else:
        heading.subheader("Requests behind the bar")
        st.button(
            md(f"{moment(bar.start)} · {spend_view.group_name(bar.of, view.by)}"), icon=":material/close:",
            on_click=spend_view.clear_bar, key="all requests", help="Show all requests.",
        )  # fmt: skip
        rows = figures.behind(router.usage, bar.start, view.zone, by=view.by, of=bar.of, where=view.where, **page)
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if bar is not None:
        found = next((d.groups[bar.of] for d in report if d.day == bar.start and bar.of in d.groups), None)
        total = None if found is None else found.charged + found.unconfirmed
        st.caption(md(_sum(rows, whole=not more and not past, total=total, order=order)))
    if rows:
        key = "requests" if bar is None and not past and order == "newest" else f"requests {bar} {order} {len(past)}"
        widgets.requests(router.usage, rows, view.zone, key=key, alt=widgets.TITLES[order], columns=COLUMNS)
    if past or more:
        onward = partial(past.append, rows[-1]["place"]) if more else None
        with st.container(horizontal=True):
            back, on = ("Newer", "Older") if order == "newest" else ("Dearer", "Cheaper")
            st.button(back, icon=":material/chevron_left:", disabled=not past, key="newer", on_click=past.pop)
            st.button(on, icon=":material/chevron_right:", disabled=not more, key="older", on_click=onward)


def _sum(rows: Sequence[Mapping[str, Any]], *, whole: bool, total: int | None, order: Order) -> str:
    """What the requests cost together; `total` is what the bar shows, in nanodollars, if the chart has it."""
    if not rows:
        return "No request was charged here."
    if whole:
        paid = sum(row["paid"] + row["unsure"] for row in rows)
        return f"{plural(len(rows), 'request')}, {usd(paid)} together. Free requests are left out."
    together = "" if total is None else f"{usd(total)} together; "
    first = "newest" if order == "newest" else "most expensive"
    return f"{together}{len(rows)} of the requests, {first} first."
