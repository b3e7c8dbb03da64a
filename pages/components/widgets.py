"""Pieces that several pages draw alike: errors in words, budgets, badges, figures, tables of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from html import escape
from typing import Any, TypeVar

import streamlit as st

from pages.components import access, bars, tables, ticks
from pages.components.format import (
    ROUTES,
    charged,
    day,
    latency,
    md,
    moment,
    most_of,
    percent,
    plural,
    unbroken,
    usd,
    when,
)
from router.domain.errors import RouterError
from router.domain.explain import budget_name
from router.domain.policy import describe_budget, find_zone
from router.domain.values import BudgetState
from router.store.usage import Order, Usage

T = TypeVar("T")

ORDERS: dict[str, Order] = {"newest": "newest", "most expensive": "cost"}
PRICES = {
    "likely": "What it will likely cost now: each distinct text once, cached ones free. Models are compared by it.",
    "all of them": "Every text, repeats too, without the cache: what that would likely cost.",
    "batch": "What it will likely cost at the batch price, within a day.",
    "a year": "What it and a year of queries will likely cost.",
}
"""Columns of what is likely, each with one of the most beside it where they differ."""
TITLES: dict[Order, str] = {"newest": "Latest requests", "cost": "Most expensive requests"}

WORDS = {look.word: look.colour for look in ROUTES.values()} | {"running": "gray"}


@contextmanager
def in_words() -> Iterator[None]:
    """What the router says no to inside the block is shown as its sentence and what to do, never as a traceback."""
    try:
        yield
    except RouterError as error:
        say_no(error)


def say_no(error: RouterError) -> None:
    """An error of the router as words."""
    st.error(f"{md(error.message)} {md(error.hint)}", icon=":material/block:")


@contextmanager
def figures() -> Iterator[Callable[..., None]]:
    """A row of figures, each drawn by what this gives: see `figure`.

    What their sparklines show is said for screen readers under them, since `st.metric` takes no alt.
    """
    said: list[str] = []

    def tile(label: str, value: str, *, show: Callable[[Any], str] = usd, **options: Any) -> None:
        figure(label, value, **options)
        if series := options.get("series"):
            said.append(f"{label}: {course(series, show)}")

    with st.container(horizontal=True, key="figures"):
        yield tile
    st.html(f'<p class="unseen">{escape(" ".join(said))}</p>')


def figure(
    label: str,
    value: str,
    *,
    below: str = "",
    series: Mapping[date, float] | None = None,
    colour: str = "gray",
    help: str = "",
) -> None:
    """One figure with a line under it and a sparkline. `value` and `below` are plain text."""
    st.metric(
        label,
        md(value),
        md(below) or None,
        delta_color=colour,
        delta_arrow="off",
        help=help or None,
        chart_data=list(series.values()) if series else None,
        chart_type="area",
        border=True,
        height="stretch",
    )


def course(series: Mapping[date, float], show: Callable[[Any], str]) -> str:
    """A sparkline in a sentence: where it begins and ends, and its highest."""
    first, last, top = min(series), max(series), max(series, key=lambda day: series[day])
    if not series[top]:
        return f"{show(0)} all along, {moment(first)} to {moment(last)}."
    ends = f"{show(series[first])} on {moment(first)}, {show(series[last])} on {moment(last)}"
    return f"{ends}, highest {show(series[top])} on {moment(top)}."


def budget(state: BudgetState, zone: str, *, name: str = "", then: str = "") -> None:
    """A budget as a bar with its figures: how much of it is used, and when it starts anew; `name` is whose it is.

    `then`: a sentence under the bar, said instead of when it starts anew.
    """
    limit = state.budget.amount
    share = state.used / limit if limit else 1.0
    if state.budget.window == "request":
        st.caption(f"At most **{md(describe_budget(state.budget))}**")
        return
    words = f"{usd(state.used)} of {describe_budget(state.budget)}"
    whose = f"**{md(name)}** · " if name else ""
    resets = ""
    if state.resets is not None and not then:
        resets = f" · resets {day(state.resets.astimezone(find_zone(zone)).date())}"
    spent = " · **spent**" if share >= 1 else ""
    with st.container(gap="xxsmall"):
        st.caption(f"{whose}{md(words)} · {percent(share)}{spent}{resets}")
        st.html(bars.gauge(share, f"{name} {budget_name(state)}: {words}"))
        if then:
            st.caption(md(then))


def route_badge(route: str, number: int | None = None) -> None:
    """A route's icon and word in its colour, with how many texts it answered."""
    look = ROUTES[route]
    st.badge(look.word if number is None else f"{look.word} {number:,}", icon=look.icon, color=look.colour)


def route_badges(numbers: Mapping[str, int]) -> None:
    """A badge for each route that answered any text."""
    with st.container(horizontal=True, gap="small"):
        for route, number in numbers.items():
            if number:
                route_badge(route, number)


def money_column(label: str, help: str = "") -> Any:
    """A table's column of amounts: wide enough for the smallest, which Streamlit may not see among the first rows."""
    return st.column_config.TextColumn(label, help=help or None, width=max(104, 9 * len(label)))


def words_column(label: str, help: str = "") -> Any:
    """A table's column of routes, as coloured words."""
    return st.column_config.MultiselectColumn(label, options=list(WORDS), color=list(WORDS.values()), help=help or None)


def order() -> Order:
    """In which order requests are shown, of all of them and not of those on the screen; it stands in the URL."""
    chosen = st.segmented_control(
        "Order", list(ORDERS), default="newest", required=True, key="sort", label_visibility="collapsed",
        bind="query-params",
    )  # fmt: skip
    return ORDERS.get(chosen, "newest")


def requests(
    usage: Usage, rows: Sequence[Mapping[str, Any]], zone: str, *, key: str, columns: Sequence[str], alt: str
) -> None:
    """A table of requests; the one that is picked opens under it."""
    config = {name: money_column(name) for name in ("cost", "avoided")}
    config |= {"texts": st.column_config.NumberColumn("texts", width=56)}
    config |= {"answered by": words_column("answered by"), "why": st.column_config.TextColumn("why", width="large")}
    by_number = {row["id"]: row for row in rows}
    shown = dict(zip(by_number, tables.requests(rows, zone), strict=True))
    chosen = ticks.table(key, shown, "single-row", column_order=columns, column_config=config, alt=alt)
    st.caption(
        f"Times in {md(zone)}. Pick a row to see what it was decided among; a column's head sorts what is shown."
    )
    if chosen:
        decision(by_number[chosen[0]], zone, usage.remarks(chosen[0]))


def decision(row: Mapping[str, Any], zone: str, remarks: Sequence[tuple[str, str, int, int]]) -> None:
    """A request of the books: who answered, what it cost, why, and what the others would have cost."""
    with st.container(border=True):
        st.markdown(
            f"**Request {row['id']}** · {md(when(row['at'], zone))} {md(zone)} · {plural(row['texts'], 'text')}"
        )
        route_badges({name: row[name] for name in ("cache", "local", "api", "batch", "repeated", "refused")})
        spent = charged(row["charged"], row["unconfirmed"])
        st.markdown(
            f"Cost **{md(spent)}** · avoided **{md(usd(row['avoided']))}** · took {md(latency(row['latency_ms']))}"
            f" · policy {md(row['policy'])}, version {row['policy_version']}"
        )
        st.text(unbroken(row["decision"]) or "No decision was written down.")
        if row["error"]:
            st.error(md(row["error"]), icon=":material/block:")
        if row["unconfirmed"]:
            st.caption("**?** marks a charge that may have been billed; why it is not sure stands below.")
        for kind, reason, calls, amount in remarks:
            st.caption(md(f"{plural(calls, 'charge')}, {usd(amount)} {kind}: {reason.rstrip('.')}."))
        if row["candidates"]:
            candidates(tables.considered(row["candidates"]), alt="The models that the request was decided among")


def candidates(rows: Sequence[tables.Record], *, alt: str) -> None:
    """A table of candidates, with the chosen one marked."""
    config = {
        "": st.column_config.MultiselectColumn("", options=["chosen"], color=["green"], width=72),
        "why": st.column_config.TextColumn("why", width="large"),
        "quality": st.column_config.TextColumn("quality", help="RTEB English retrieval, 0 to 100; see the note below."),
        "cached": st.column_config.TextColumn("cached", help="Distinct texts that are in the cache in this space."),
    }
    for name, words in PRICES.items():
        config[name] = money_column(name, help=words)
        config[most_of(name)] = money_column(most_of(name), help="What is set aside for it, and must fit the budgets.")
    shown = [row | {"": [row[""]] if row[""] else []} for row in rows]
    bounds = {most_of(name) for name in PRICES}
    columns = [
        name
        for name in dict.fromkeys(n for row in rows for n in row)
        if name not in bounds or any(row.get(name) for row in rows)
    ]
    st.dataframe(shown, column_order=columns, column_config=config, hide_index=True, alt=alt)


def ask(
    title: str, words: str, yes: str, do: Callable[[], str], *, icon: str, more: Callable[[], None] | None = None
) -> None:
    """Ask once, in a dialog, before something that cannot be taken back; what it is about does not change meanwhile.

    `do` is what happens, and says what came of it; `more` draws what else is to be chosen. Both are of the moment in
    which the question was asked.
    """

    @st.dialog(title, icon=icon)
    def question() -> None:
        st.markdown(words)
        if more is not None:
            more()
        with st.container(horizontal=True):
            go = st.button(md(yes), type="primary", key="yes", **access.only_editors())
            back = st.button("Cancel", key="no")
        if go:
            with in_words():
                st.toast(md(do()), icon=":material/check:", duration="long")
                st.rerun()
        if back:
            st.rerun()

    question()


def pick(place: Any, label: str, options: Sequence[T], begin: T, words: Mapping[T, str], **more: Any) -> T:
    """A select box that begins at one of its options, which `words` puts into words."""
    picked: T = place.selectbox(label, options, index=options.index(begin), format_func=words.__getitem__, **more)
    return picked


def cards(things: Sequence[T]) -> Iterator[tuple[T, Any]]:
    """Each thing with a card to draw it in: two in a row, of one height, and one below the other on a narrow screen."""
    for start in range(0, len(things), 2):
        columns = st.columns(2)
        for thing, column in zip(things[start : start + 2], columns, strict=False):
            yield thing, column.container(border=True, height="stretch")


def empty(sentence: str, icon: str = ":material/info:") -> None:
    """Where there is nothing yet: a sentence."""
    st.caption(f"{icon} {sentence}")
