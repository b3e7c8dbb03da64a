"""Widgets that several pages share: errors, budgets, badges, figures, pickers, tables of requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from html import escape
from mimetypes import guess_type
from typing import Any, TypeVar

import streamlit as st

from pages.components import access, bars, tables, ticks
from pages.components.format import (
    ROUTES,
    charged,
    day,
    latency,
    listed,
    md,
    moment,
    most_of,
    percent,
    plural,
    unbroken,
    usd,
    when,
)
from router.domain.catalog import Catalog
from router.domain.errors import RouterError
from router.domain.explain import budget_name
from router.domain.policy import describe_budget, find_zone
from router.domain.values import BudgetState
from router.engine import Router
from router.host import Host
from router.store.usage import Order, Usage

T = TypeVar("T")

NAMED = 8
"""Things that a confirmation names; the others are counted."""
ORDERS: dict[str, Order] = {"newest": "newest", "most expensive": "cost"}
PRICES = {
    "likely": "The likely cost now: each distinct text once, cached ones free. Models are compared by it.",
    "all of them": "The likely cost of every text, repeats included, without the cache.",
    "batch": "The likely cost at the batch price, within a day.",
    "a year": "The likely cost of this and a year of queries.",
}
"""Columns of likely costs; each has an "at most" column beside it where the two differ."""
TITLES: dict[Order, str] = {"newest": "Latest requests", "cost": "Most expensive requests"}
ROUTE_WORDS = {look.word: look.colour for look in ROUTES.values()} | {"running": "gray"}


# ---- messages ----------------------------------------------------------------------------------


@contextmanager
def errors_shown() -> Iterator[None]:
    """Shows an error of the router that the block raises as its message and hint, never as a traceback."""
    try:
        yield
    except RouterError as error:
        show_error(error)


def show_error(error: RouterError) -> None:
    """An error of the router: what happened, and what to do."""
    show_refusal(error.message, error.hint)


def show_refusal(reason: str, hint: str) -> None:
    """Why something is refused, and what to do."""
    st.error(f"{md(reason)} {md(hint)}", icon=":material/block:")


def run(
    host: Host,
    work: Coroutine[Any, Any, T],
    *,
    notice: str | Callable[[T], str] = "",
    tab: str = "",
    then: Callable[[T], object] = lambda _: None,
) -> None:
    """Do work on the engine, then run the page again, with a notice or at a collection's tab; or show the error."""
    with errors_shown():
        done = host.run(work)
        then(done)
        said = notice(done) if callable(notice) else notice
        st.session_state.update({key: value for key, value in (("notice", said), ("next tab", tab)) if value})
        st.rerun()


def act(label: str, icon: str = "", *, disabled: bool = False, help: str | None = None, **more: Any) -> bool:
    """A button that spends or changes something, which only an editor can press. `label` is Markdown."""
    icon = f":material/{icon}:" if icon else ""
    return st.button(label, icon=icon or None, **access.only_editors(disabled=disabled, help=help), **more)


def notice() -> None:
    """Show what the run before left in `st.session_state["notice"]`, once."""
    if text := st.session_state.pop("notice", None):
        st.success(md(text), icon=":material/check_circle:")


def empty(sentence: str, icon: str = ":material/info:") -> None:
    """A sentence where there is nothing to show yet."""
    st.caption(f"{icon} {sentence}")


def ask(
    what: str, items: Sequence[str], yes: str, do: Callable[[], str], *, icon: str, more: Callable[[], object] = list
) -> None:
    """Ask in a dialog before something that cannot be undone: `what` happens to the `items`, in Markdown.

    `yes`, in plain text, is on the button and, with a question mark, the title. `do` does it, for what was selected
    when the question was asked, and returns the outcome in a sentence. `more` draws further options.
    """
    words = "\n".join([what, "", *(f"- {one}" for one in listed(items, NAMED)), "", "This cannot be undone."])

    @st.dialog(f"{yes}?", icon=icon)
    def question() -> None:
        st.markdown(words)
        more()
        with st.container(horizontal=True):
            go = act(md(yes), type="primary", key="yes")
            back = st.button("Cancel", key="no")
        if go:
            with errors_shown():
                st.toast(md(do()), icon=":material/check:", duration="long")
                st.rerun()
        if back:
            st.rerun()

    question()


# ---- figures and budgets -----------------------------------------------------------------------


def figures(days: Sequence[date], tiles: Iterable[tuple[Any, ...]]) -> None:
    """A row of figures, each (label, value, the line under it, its sparkline by day, format, colour, help).

    Under the row, hidden on screen, the sparklines are described for screen readers: `st.metric` takes no alt.
    """
    descriptions = []
    with st.container(horizontal=True, key="figures"):
        for label, value, below, by_day, show, colour, help in tiles:
            series = {day: one for day, one in zip(days, by_day, strict=True) if one is not None}
            st.metric(
                label, md(value), md(below), delta_color=colour, delta_arrow="off", help=help or None,
                chart_data=list(series.values()) or None, chart_type="area", border=True, height="stretch",
            )  # fmt: skip
            if series:
                descriptions.append(f"{label}: {course(series, show)}")
    st.html(f'<p class="unseen">{escape(" ".join(descriptions))}</p>')


def course(series: Mapping[date, float], show: Callable[[Any], str]) -> str:
    """A sparkline in a sentence: its first, last and highest value."""
    first, last, top = min(series), max(series), max(series, key=lambda day: series[day])
    if not series[top]:
        return f"{show(0)} throughout, {moment(first)} to {moment(last)}."
    ends = f"{show(series[first])} on {moment(first)}, {show(series[last])} on {moment(last)}"
    return f"{ends}, highest {show(series[top])} on {moment(top)}."


def budget(state: BudgetState, zone: str, *, name: str = "", then: str = "") -> None:
    """A budget as a bar: how much is used, and when it resets or, instead, the sentence `then`. `name` is its owner."""
    limit = state.budget.amount
    if state.budget.window == "request":
        st.caption(f"At most **{md(describe_budget(state.budget))}**")
        return
    share = state.used / limit if limit else 1.0
    words = f"{usd(state.used)} of {describe_budget(state.budget)}"
    owner = f"**{md(name)}** · " if name else ""
    resets = f" · resets {reset_day(state, zone)}" if state.resets and not then else ""
    spent = " · **spent**" if share >= 1 else ""
    with st.container(gap="xxsmall"):
        st.caption(f"{owner}{md(words)} · {percent(share)}{spent}{resets}")
        st.html(bars.gauge(share, f"{name} {budget_name(state)}: {words}"))
        if then:
            st.caption(md(then))


def reset_day(state: BudgetState, zone: str) -> str:
    """The day in the zone on which a budget starts anew; "" where it never does."""
    return "" if state.resets is None else day(state.resets.astimezone(find_zone(zone)).date())


def route_badge(route: str, number: int | None = None) -> None:
    """A route's icon and word in its colour, with how many texts it answered."""
    look = ROUTES[route]
    st.badge(look.word if number is None else f"{look.word} {number:,}", icon=look.icon, color=look.colour)


def route_badges(numbers: Mapping[Any, int]) -> None:
    """A badge for each route that answered any text."""
    with st.container(horizontal=True, gap="small"):
        for route, number in numbers.items():
            if number:
                route_badge(route, number)


# ---- requests and candidates -------------------------------------------------------------------


WIDE = st.column_config.TextColumn(width="large")
"""A table column of sentences."""


def table(rows: Sequence[Mapping[str, Any]], alt: str, columns: Mapping[str, Any] | None = None, **more: Any) -> None:
    """A table of records; `columns` configures some of its columns, by name: with a string, the column's help."""
    config = {name: {"help": one} if isinstance(one, str) else one for name, one in (columns or {}).items()}
    st.dataframe(rows, column_config=config, hide_index=True, alt=alt, **more)


def money_column(label: str, help: str | None = None) -> Any:
    """A table column of amounts, wide enough for the smallest: Streamlit measures the first rows only."""
    return st.column_config.TextColumn(help=help, width=max(104, 9 * len(label)))


def words_column(colours: Mapping[str, str] = ROUTE_WORDS, **more: Any) -> Any:
    """A table column of coloured words, by default of routes."""
    return st.column_config.MultiselectColumn(options=list(colours), color=list(colours.values()), **more)


def order() -> Order:
    """The order of all requests, not only of those on the screen; it is kept in the URL."""
    chosen = st.segmented_control(
        "Order", list(ORDERS), default="newest", required=True, key="sort", label_visibility="collapsed",
        bind="query-params",
    )  # fmt: skip
    return ORDERS.get(chosen, "newest")


def requests(
    usage: Usage, rows: Sequence[Mapping[str, Any]], zone: str, *, key: str, columns: Sequence[str], alt: str
) -> None:
    """A table of requests; the selected one opens under it."""
    config = {name: money_column(name) for name in ("cost", "saved")}
    config |= {"texts": st.column_config.NumberColumn(width=56), "answered by": words_column(), "why": WIDE}
    by_number = {row["id"]: row for row in rows}
    shown = dict(zip(by_number, tables.requests(rows, zone), strict=True))
    chosen = ticks.table(key, shown, "single-row", column_order=columns, column_config=config, alt=alt)
    st.caption(f"Times in {md(zone)}. Select a row for its candidates. A column header sorts the rows shown.")
    if chosen:
        _decision(by_number[chosen[0]], zone, usage.remarks(chosen[0]))


def _decision(row: Mapping[str, Any], zone: str, remarks: Sequence[tuple[str, str, int, int]]) -> None:
    """A recorded request: who answered, what it cost and why, and its candidates."""
    with st.container(border=True):
        at = f"{md(when(row['at'], zone))} {md(zone)}"
        st.markdown(f"**Request {row['id']}** · {at} · {plural(row['texts'], 'text')}")
        route_badges({name: row[name] for name in ROUTES})
        spent = charged(row["charged"], row["unconfirmed"])
        st.markdown(
            f"Cost **{md(spent)}** · saved **{md(usd(row['avoided']))}** · took {md(latency(row['latency_ms']))}"
            f" · policy {md(row['policy'])}, version {row['policy_version']}"
        )
        st.text(unbroken(row["decision"]) or "No decision was recorded.")
        if row["error"]:
            st.error(md(row["error"]), icon=":material/block:")
        if row["unconfirmed"]:
            st.caption("**?** marks an unconfirmed charge; the reason is below.")
        for kind, reason, calls, amount in remarks:
            st.caption(md(f"{plural(calls, 'charge')}, {usd(amount)} {kind}: {reason.rstrip('.')}."))
        if row["candidates"]:
            candidates(tables.considered(row["candidates"]), alt="The candidates of this request")


def candidates(rows: Sequence[tables.Record], *, alt: str) -> None:
    """A table of candidates, the chosen one marked. An "at most" column without figures is left out."""
    config = {
        "": words_column({"chosen": "green"}, width=72),
        "why": WIDE,
        "quality": "RTEB English retrieval, 0 to 100; see the note below.",
        "cached": "Distinct texts already in the cache, in this space.",
    }
    for name, words in PRICES.items():
        config[name] = money_column(name, words)
        config[most_of(name)] = money_column(most_of(name), "The most it can cost; this must fit the budgets.")
    bounds = {most_of(name) for name in PRICES}
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if name not in bounds or any(row.get(name) for row in rows)]
    shown = [row | {"": [row[""]] if row[""] else []} for row in rows]
    table(shown, alt, config, column_order=columns)


def quality_note(catalog: Catalog) -> str:
    """What the figures of the column "quality" mean, as Markdown."""
    return f"Quality is {md(catalog.scale)}, English retrieval, 0 to 100: {md(catalog.note)}."


# ---- pickers and layout ------------------------------------------------------------------------


def pick(place: Any, label: str, begin: T, words: Mapping[T, str], **more: Any) -> T:
    """A select box of the options that `words` puts into words, which begins at `begin`."""
    options = list(words)
    picked: T = place.selectbox(label, options, index=options.index(begin), format_func=words.__getitem__, **more)
    return picked


def policy_box(router: Router, label: str = "Policy", begin: str = "default", **more: Any) -> Any:
    """A select box of the policies; None where `begin` is not among them and none is chosen."""
    names = [policy.name for policy in router.policies.all()]
    return st.selectbox(label, names, index=names.index(begin) if begin in names else None, **more)


def model_box(
    router: Router, *, placeholder: str = "The policy chooses", without: tuple[str, str] = ("", ""), **more: Any
) -> str | None:
    """A select box of the catalog's models, without one (id, space); None until one is chosen."""
    ids = [model.id for model in router.catalog.models if (model.id, model.space) != without]
    return st.selectbox("Model", ids, index=None, placeholder=placeholder, **more)


def downloads(files: Mapping[str, tuple[str, Callable[[], str | bytes]]]) -> None:
    """A row of buttons, each with a file's name and what makes the file when it is pressed."""
    with st.container(horizontal=True):
        for label, (name, make) in files.items():
            st.download_button(
                label, make, name, guess_type(name)[0], icon=":material/download:", on_click="ignore",
                key=f"download {name}",
            )  # fmt: skip


def cards(things: Sequence[T]) -> Iterator[tuple[T, Any]]:
    """Each thing with a card to draw it in: two in a row, of one height; one in a row on a narrow screen."""
    for start in range(0, len(things), 2):
        columns = st.columns(2)
        for thing, column in zip(things[start : start + 2], columns, strict=False):
            yield thing, column.container(border=True, height="stretch")
