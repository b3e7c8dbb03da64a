"""From a bar of the spend chart to the requests behind it, page by page. In the URL it is `?bar=DAY&of=GROUP`.

An hour's bar is named in UTC, so that it is one hour also in the night in which the clocks go back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.components import charts, tables, ticks, widgets
from pages.components.format import ROUTES, md, moment, plural, usd
from router.engine import Router
from router.reporting import figures
from router.reporting.figures import Day
from router.store.usage import Order, Place

if TYPE_CHECKING:
    from pages.components.spend_report import Asked

PAGE = 50
COLUMNS = ["time", "texts", "answered by", "cost", "avoided", "took", "policy", "model", "why"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A day (or an hour, then a datetime of the zone) and one group of it."""

    start: date
    of: str


def chosen(zone: str) -> Bar | None:
    """The bar that the URL names; None where it names none, or nothing that is a day or an hour."""
    start = start_of(st.query_params.get("bar", ""), zone)
    return None if start is None else Bar(start=start, of=st.query_params.get("of", ""))


def start_of(written: str, zone: str) -> date | None:
    """A bar's start as the URL has it: a day, or an hour with its offset from UTC."""
    try:
        start = datetime.fromisoformat(written)
        if not 1970 < start.year < 9999:
            return None
        if "T" not in written:
            return start.date()
        return None if start.tzinfo is None else figures.hour_at(start.timestamp(), zone)
    except ValueError:
        return None


def forget() -> None:
    """Show all requests again."""
    for name in ("bar", "of"):
        st.query_params.pop(name, None)


def choose(bar: Bar, zone: str) -> None:
    """Show the requests behind a bar; choosing it once more shows all of them again."""
    if bar == chosen(zone):
        forget()
        return
    start = bar.start
    st.query_params["bar"] = (
        f"{start.astimezone(UTC):%Y-%m-%dT%H:%MZ}" if isinstance(start, datetime) else start.isoformat()
    )
    st.query_params["of"] = bar.of


def name_of(group: str, by: str) -> str:
    """A group in words."""
    return ROUTES[group].word if by == "route" and group in ROUTES else group or f"no {by}"


def chart(asked: Asked, report: Sequence[Day], groups: Mapping[str, Sequence[int]], alt: str) -> None:
    """The spend chart; a click on a bar chooses it, another one lets it go."""
    days, names, bar = [d.day for d in report], list(groups), asked.bar
    # Drawn anew for every choice: which bar stands out is the URL's, not the browser's. And for other bars: a place
    # that was clicked is one among those that were drawn.
    key = ticks.key(f"spent {asked.by} {bar}", (days, names))

    def picked() -> None:
        points: list[dict[str, Any]] = st.session_state[key]["selection"]["points"]
        if points:
            last = points[-1]
            choose(Bar(start=days[last["point_index"]], of=names[last["curve_number"]]), asked.zone)

    figure = charts.spent(days, groups, chosen=None if bar is None else (bar.start, bar.of))
    st.plotly_chart(figure, config=charts.CONFIG, key=key, alt=alt, on_select=picked, selection_mode="points")


def table(asked: Asked, report: Sequence[Day]) -> None:
    """The chart as a table, whose rows lead to the same requests without a mouse on a thin bar."""
    bars = [Bar(start=day.day, of=name) for day in reversed(report) for name in day.groups]
    key = ticks.key(f"sums {asked.by} {asked.bar}", bars)

    def picked() -> None:
        for row in st.session_state[key]["selection"]["rows"]:
            choose(bars[row], asked.zone)

    st.dataframe(
        tables.by_day(report, asked.by, asked.step), hide_index=True, key=key, on_select=picked,
        selection_mode="single-row", alt=f"Sums by {asked.step} and {asked.by}",
    )  # fmt: skip
    st.caption("Pick a row for the requests behind its amount.")


def requests(router: Router, asked: Asked, report: Sequence[Day]) -> None:
    """The requests of the range, or those behind the chosen bar, newest or most expensive first, a page at a time."""
    bar = asked.bar
    heading = st.empty()
    order = widgets.order()
    past = _past(asked, order)
    page: dict[str, Any] = {"limit": PAGE + 1, "before": past[-1] if past else None, "order": order}
    if bar is None:
        heading.subheader(widgets.TITLES[order])
        rows = router.usage.requests(since=asked.since, until=asked.until, where=asked.where, **page)
    else:
        heading.subheader("Requests behind the bar")
        which = f"{moment(bar.start)} · {name_of(bar.of, asked.by)}"
        st.button(md(which), icon=":material/close:", on_click=forget, key="all requests", help="Show all requests.")
        rows = figures.behind(router.usage, bar.start, asked.zone, by=asked.by, of=bar.of, where=asked.where, **page)
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if bar is not None:
        st.caption(md(_sum(rows, whole=not more and not past, bar=_amount(report, bar), order=order)))
    if rows:
        key = "requests" if bar is None and not past and order == "newest" else f"requests {bar} {order} {len(past)}"
        widgets.requests(router.usage, rows, asked.zone, key=key, alt=widgets.TITLES[order], columns=COLUMNS)
    if past or more:
        with st.container(horizontal=True):
            back, on = ("Newer", "Older") if order == "newest" else ("Dearer", "Cheaper")
            st.button(back, icon=":material/chevron_left:", disabled=not past, on_click=past.pop, key="newer")
            st.button(
                on, icon=":material/chevron_right:", disabled=not more, key="older",
                on_click=lambda: past.append(rows[-1]["place"]),
            )  # fmt: skip


def _past(asked: Asked, order: Order) -> list[Place]:
    """Where the pages before this one ended; none for another view than the one that they are of."""
    view = (asked.first, asked.last, asked.by, asked.policy, asked.bar, order)
    if st.session_state.get("paged", (None,))[0] != view:
        st.session_state["paged"] = (view, [])
    past: list[Place] = st.session_state["paged"][1]
    return past


def _amount(report: Sequence[Day], bar: Bar) -> int | None:
    """What the bar shows, in nanodollars; None where the chart has no such bar."""
    sums = next((d.groups.get(bar.of) for d in report if d.day == bar.start), None)
    return None if sums is None else sums.charged + sums.unconfirmed


def _sum(rows: Sequence[Mapping[str, Any]], *, whole: bool, bar: int | None, order: Order) -> str:
    if not rows:
        return "No request was charged here."
    if whole:
        total = sum(row["paid"] + row["unsure"] for row in rows)
        return f"{plural(len(rows), 'request')}, {usd(total)} together. Requests that cost nothing are not among them."
    shown = "" if bar is None else f"{usd(bar)} together; "
    first = "newest" if order == "newest" else "most expensive"
    return f"{shown}{len(rows)} of the requests, {first} first."
