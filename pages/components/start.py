"""Overview's pieces: the first steps where there is nothing yet, shares by route, and the outlook in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import streamlit as st

from pages.components import access, draw, tables
from pages.components.format import ROUTES, day, md, plural, seconds, usd
from pages.components.work import Work, wait_for
from router.domain.policy import window_bounds
from router.domain.values import Budget
from router.engine import Router
from router.host import host
from router.reports import Day, Forecast

SAMPLES = (
    "How do I cancel an invoice that was already sent?",
    "I want to end my subscription.",
    "Steps for stopping a paid plan",
    "Attach a file from cloud storage to a task",
    "Why does my upload stop at ninety per cent?",
    "I want to end my subscription.",
)


def first_steps() -> None:
    """Nothing embedded yet: one button that shows what the program does, for free."""
    work: Work | None = st.session_state.get("samples")
    if work is None:
        st.markdown("**Nothing embedded yet.** Try it with sample texts: free, on this machine, a few seconds.")
    with st.container(horizontal=True, vertical_alignment="center"):
        clicked = st.button(
            "Embed six sample texts (free, local)",
            type="primary",
            icon=":material/play_arrow:",
            **access.only_editors(),
        )
        st.page_link("route.py", label="Route a text of your own", icon=":material/alt_route:")
        st.page_link("policies.py", label="Set budgets first", icon=":material/tune:")
    if clicked:
        work = st.session_state["samples"] = Work(host(), list(SAMPLES), policy="local")
    if work is not None and wait_for(work, "Loading the local model and embedding"):
        samples_result(work)
    if not any(host().router.configured(m) for m in host().router.catalog.models if not m.local):
        st.caption(
            "No key for a paid provider is set, so local models answer everything, for nothing. Set OPENAI\\_API\\_KEY,"
            " CO\\_API\\_KEY or VOYAGE\\_API\\_KEY before the start, or add a key under Connections, to let policies"
            " choose among paid models too."
        )


def samples_result(work: Work) -> None:
    """What became of the sample texts, with the two that are most alike."""
    result = work.result
    if result is None:
        return
    distinct = result.vectors[[i for i, route in enumerate(result.routes) if route != "repeated"]]
    texts = [t for t, route in zip(work.texts, result.routes, strict=True) if route != "repeated"]
    one, other, cosine = tables.closest(distinct)
    st.success(
        f"{plural(result.texts, 'text')} answered by {md(result.model)} in {md(seconds(work.seconds))}, for nothing."
        f" Most alike: “{md(texts[one])}” and “{md(texts[other])}”, cosine {cosine:.2f}.",
        icon=":material/check_circle:",
    )
    draw.route_badges({name: result.routes.count(name) for name in ROUTES})
    st.dataframe(
        tables.answers(work.texts, result),
        column_config={"answered by": draw.words_column("answered by")},
        column_order=["text", "answered by", "vector"],
        hide_index=True,
        alt="The sample texts with their routes",
    )
    st.button("Show the overview", icon=":material/monitoring:", on_click=lambda: st.session_state.pop("samples", None))


def alerts(router: Router) -> None:
    """Thresholds that a budget has reached, or will at this pace, in a window that still runs: the highest of each."""
    now = datetime.fromtimestamp(router.clock(), UTC)
    zones = {f"policy/{policy.name}": policy.timezone for policy in router.policies.all()}
    budgets = {(s.owner, s.budget) for name in [*(z[7:] for z in zones), ""] for s in router.ledger.states(name)}
    shown: set[object] = set()
    ordered = sorted(router.alerts.recent(), key=lambda a: (a.kind == "actual", a.threshold), reverse=True)
    for alert in ordered:
        budget = Budget(amount=alert.amount, window=alert.window, hard=alert.hard)
        began = window_bounds(alert.window, now, zones.get(alert.owner, "UTC"))[0].timestamp()
        if (alert.owner, budget) not in budgets or alert.start != int(began) or (alert.owner, budget) in shown:
            continue
        shown.add((alert.owner, budget))
        spent = alert.kind == "actual" and alert.threshold >= 100
        box = st.error if spent else st.warning
        box(md(alert.message), icon=":material/notifications_active:")


def spent_of(report: Day, route: str) -> int:
    """Nanodollars that a route cost on a day."""
    s = report.groups.get(route)
    return 0 if s is None else s.charged + s.unconfirmed


def avoided_of(report: Day, route: str) -> int:
    """Nanodollars that a route avoided on a day."""
    s = report.groups.get(route)
    return 0 if s is None else s.avoided


def amounts(history: Sequence[Day], of: Callable[[Day, str], int]) -> dict[str, list[int]]:
    """Nanodollars a day, for each route that has any."""
    series = {route: [of(report, route) for report in history] for route in ROUTES}
    return {route: values for route, values in series.items() if any(values)}


def route_shares(history: Sequence[Day]) -> list[tuple[str, str, float]]:
    """(word, hue, share) of the distinct texts that each route answered."""
    texts = {r: sum(d.groups[r].texts for d in history if r in d.groups) for r in ("cache", "local", "api", "batch")}
    total = sum(texts.values())
    return [(ROUTES[r].word, ROUTES[r].hue, n / total if total else 0.0) for r, n in texts.items()]


def outlook(spent: int, limit: int, ahead: Forecast | None) -> str:
    """Where the month is heading."""
    now = f"{usd(spent)} of {usd(limit)} is spent this month."
    if ahead is None:
        return f"{now} A forecast needs one whole day of requests."
    pace = f"at the pace of the last {plural(ahead.days, 'day')} it will be {usd(ahead.expected)} by {day(ahead.ends)}"
    if ahead.runs_out:
        return f"{now} {pace.capitalize()}; the budget runs out on {day(ahead.runs_out)}."
    return f"{now} {pace[0].upper()}{pace[1:]}."
