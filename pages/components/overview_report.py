"""Sections of the Overview: first steps, alerts, the policies' budgets, and the month's forecast in a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import streamlit as st

from pages.components import tables, widgets
from pages.components.background import Embedding, wait_for
from pages.components.format import ROUTES, day, md, plural, seconds, usd
from router.domain.policy import describe_budget, window_bounds
from router.domain.values import Budget, BudgetState, Policy
from router.engine import Router
from router.host import host
from router.pipeline.results import Result
from router.reporting.figures import LOOK_BACK, Forecast, days, forecast, today

SAMPLES = (
    "How do I cancel an invoice that was already sent?",
    "I want to end my subscription.",
    "Steps for stopping a paid plan",
    "Attach a file from cloud storage to a task",
    "Why does my upload stop at ninety per cent?",
    "I want to end my subscription.",
)
NO_KEY = "No key for a paid provider is set, so only local models can be used."
KEYS = "Keys are set: policies choose among paid and local models."
THRESHOLD = 80
"""Per cent of a budget from which an alert is a warning."""


def first_steps() -> None:
    """Where nothing has been embedded yet: free sample texts, and where to go next."""
    work: Embedding | None = st.session_state.get("samples")
    invitation = st.empty()
    if widgets.act("Embed six sample texts (free, local)", "play_arrow", type="primary"):
        work = st.session_state["samples"] = Embedding(host(), list(SAMPLES), policy="local")
    if work is None:
        invitation.markdown("**Nothing embedded yet.** Try it with sample texts: free, on this machine, a few seconds.")
    elif (result := wait_for(work, "Loading the local model and embedding")) is not None:
        _samples_result(work, result)
    steps()


def steps() -> None:
    """Three cards: texts, models, budgets."""
    router = host().router
    limits = [describe_budget(s.budget) for s in router.budgets()]
    over = f"All policies together spend at most {' and '.join(limits)}." if limits else "No account budget is set."
    cards = (
        ("Your texts", "A few lines, a file, or documents to search. The price is shown before anything is spent.",
         (("route", "Route a text of your own", "alt_route"), ("collections", "Upload documents", "folder_copy"))),
        ("Models", f"{NO_KEY} They are free." if no_key(router) else KEYS,
         (("connections", "Add a key", "power"), ("models", "Compare models and prices", "deployed_code"))),
        ("Money", f"{md(over)} Each policy says which models may be used, and can have budgets of its own.",
         (("policies", "Set budgets first", "tune"),)),
    )  # fmt: skip
    for column, (title, words, links) in zip(st.columns(3), cards, strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{title}**")
            st.caption(words)
            for page, label, icon in links:
                st.page_link(f"{page}.py", label=label, icon=f":material/{icon}:")


def no_key(router: Router) -> bool:
    """Whether no paid provider can be used."""
    return not any(router.configured(model) for model in router.catalog.models if not model.local)


def _samples_result(work: Embedding, result: Result) -> None:
    """The result of the sample texts, with the two that are most alike."""
    distinct = result.vectors[[i for i, route in enumerate(result.routes) if route != "repeated"]]
    texts = [t for t, route in zip(work.texts, result.routes, strict=True) if route != "repeated"]
    one, other, cosine = tables.closest(distinct)
    st.success(
        f"{plural(result.texts, 'text')} answered by {md(result.model)} in {md(seconds(work.seconds))}, free."
        f" Most alike: “{md(texts[one])}” and “{md(texts[other])}”, cosine {cosine:.2f}.",
        icon=":material/check_circle:",
    )
    widgets.route_badges({name: result.routes.count(name) for name in ROUTES})
    rows, config = tables.answers(work.texts, result), {"answered by": widgets.words_column()}
    order = ["text", "answered by", "vector"]
    widgets.table(rows, "The sample texts with their routes", config, column_order=order)
    st.button("Show the overview", icon=":material/monitoring:", on_click=lambda: st.session_state.pop("samples", None))


def alerts(router: Router) -> None:
    """The alerts of windows that still run: of each budget the highest threshold that it has reached or will reach."""
    now = datetime.fromtimestamp(router.clock(), UTC)
    policies = router.policies.all()
    zones = {f"policy/{policy.name}": policy.timezone for policy in policies}
    quiet = {(s.owner, s.budget) for name in ["", *(p.name for p in policies)] for s in router.budgets(name)}
    silent = len(quiet)
    for alert in sorted(router.alerts.recent(), key=lambda a: (a.kind == "actual", a.threshold), reverse=True):
        budget = alert.owner, Budget(amount=alert.amount, window=alert.window, hard=alert.hard)
        began = window_bounds(alert.window, now, zones.get(alert.owner, router.policies.account_zone()))[0].timestamp()
        if budget not in quiet or alert.start != int(began):
            continue
        quiet.remove(budget)
        if alert.threshold < THRESHOLD:
            st.caption(f":material/notifications: {md(alert.message)}")
        else:
            box = st.error if alert.kind == "actual" and alert.threshold >= 100 else st.warning
            box(md(alert.message), icon=":material/notifications_active:")
    if len(quiet) < silent:
        st.page_link("policies.py", label="See or change the budgets", icon=":material/tune:")


def hint(router: Router) -> None:
    """Where no paid provider can be used: how to change that."""
    if no_key(router):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f":material/power_off: {NO_KEY}", width="content")
            st.page_link("connections.py", label="Add a key", icon=":material/power:")


def budgets(router: Router) -> None:
    """The policies' budgets with spending in the running window, the fullest first, each with its forecast."""
    found = [
        (policy, state)
        for policy in router.policies.all()
        for state in router.budgets(policy.name)
        if state.owner != "account" and state.budget.window != "request"
    ]
    used = [(policy, state) for policy, state in found if state.used]
    for policy, state in sorted(used, key=lambda one: one[1].used / max(1, one[1].budget.amount), reverse=True):
        then, ahead = "", heading(router, policy, state)
        if ahead is not None and ahead.runs_out:
            then = f"At this pace it runs out on {day(ahead.runs_out)}."
        elif ahead is not None:
            then = f"At this pace {usd(ahead.expected)} by {day(ahead.ends)}."
        widgets.budget(state, policy.timezone, name=policy.name, then=then)
    if idle := len(found) - len(used):
        others = "other " if used else ""
        st.caption(f"{plural(idle, f'{others}budget')} not used yet.")


def heading(router: Router, policy: Policy, state: BudgetState) -> Forecast | None:
    """The forecast of a week's or month's budget that is not spent yet."""
    if state.budget.window not in ("week", "month") or not state.left:
        return None
    now, zone = router.clock(), policy.timezone
    last = today(now, zone)
    first, budget = last - timedelta(days=LOOK_BACK), state.budget
    history = days(router.usage, first=first, last=last, zone=zone, where={"policy": policy.name})
    return forecast(history, spent=state.expected, limit=budget.amount, now=now, window=budget.window, zone=zone)


def outlook(spent: int, limit: int, ahead: Forecast | None) -> str:
    """The month's spending, its budget and its forecast. Amounts in nanodollars."""
    now = f"{usd(spent)} of {usd(limit)} spent this month; {usd(max(0, limit - spent))} left."
    if ahead is None:
        return f"{now} A forecast needs one whole day of requests."
    pace = f"At the pace of the last {plural(ahead.days, 'day')} it will be {usd(ahead.expected)} by {day(ahead.ends)}"
    out = f"; the budget runs out on {day(ahead.runs_out)}" if ahead.runs_out else ""
    return f"{now} {pace}{out}."
