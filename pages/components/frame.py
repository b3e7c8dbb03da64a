"""What stands around every page: the door, the mark of demo money, the month's spend, the switch for paid calls."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.components import access, bars, jobs
from pages.components.format import day, md, usd
from router.domain.policy import describe_budget, find_zone
from router.domain.values import BudgetState
from router.host import host

DEMO = "Demo money: the providers are simulated on this machine."
STOPPED = "Paid calls are stopped. Cache and local models go on. The switch is at the sidebar's foot."
STYLE = Path(__file__).with_name("style.css")


def top() -> DeltaGenerator:
    """Above the page: its style, and what nobody may overlook; the place for what only the engine knows of that."""
    st.html(STYLE)
    if os.environ.get("ROUTER_DEMO") == "1":
        st.info(DEMO, icon=":material/science:")
    return st.container()


def door(who: access.Person | None) -> None:
    """Instead of a page: sign in, or why that was not enough."""
    st.title("Embedding Router")
    if who is None:
        st.markdown("Sign in to see spend, policies and collections.")
        for name in access.providers() or [None]:
            label = f"Sign in with {md(name)}" if name else "Sign in"
            if st.button(label, type="primary", icon=":material/login:", key=f"login {name}"):
                st.login(name)
        return
    whose = md(who.address) if who.address else "This account, which has no address,"
    st.error(
        f"{whose} may not use this app. Ask who runs it to put your address under \\[access\\] in its secrets, or sign"
        " in with another account.",
        icon=":material/block:",
    )
    st.button("Sign out", icon=":material/logout:", on_click=st.logout)


def foot(who: access.Person, above: DeltaGenerator) -> None:
    """At the foot of the sidebar, on every page; `above` the page it is said that paid calls are stopped.

    After the page, so that its title does not wait for the engine.
    """
    router = host().router
    if not router.policies.paid_enabled():
        above.warning(STOPPED, icon=":material/block:")
    with st.sidebar:
        states = [s for s in router.ledger.states("") if s.budget.window != "request"]
        if states:
            most = max(states, key=lambda s: (s.budget.hard, s.budget.window == "month", -s.left))
            _account(most, router.policies.account_zone())
        else:
            st.caption("No account budget is set. Policies stand under their own budgets alone.")
        jobs.running(host(), every_s=2.0)
        _switch(router.policies.paid_enabled())
        if os.environ.get("ROUTER_DEMO") == "1":
            st.badge("demo money", icon=":material/science:", color="violet", help=DEMO)
        if who.address:
            st.caption(f"{md(who.address)} · {who.role}", help=None if who.role == "editor" else access.READ_ONLY)
            st.button("Sign out", icon=":material/logout:", type="tertiary", on_click=st.logout)


def _account(state: BudgetState, zone: str) -> None:
    share = state.used / state.budget.amount if state.budget.amount else 1.0
    words = f"{usd(state.used)} of {describe_budget(state.budget)}"
    st.markdown(f"**{md(usd(state.used))}** :small[of {md(describe_budget(state.budget))}]")
    st.html(bars.gauge(share, f"Account budget: {words}"))
    left = "Spent: paid calls are refused." if state.left == 0 else f"{usd(state.left)} left"
    anew = "" if state.resets is None else f" until {day(state.resets.astimezone(find_zone(zone)).date())}"
    st.caption(md(left) + md(anew))


def _switch(enabled: bool) -> None:
    """On and off as the books have it, so that two browsers show the same."""
    st.session_state["paid"] = enabled
    st.toggle(
        "Paid calls",
        key="paid",
        on_change=_set_paid,
        **access.only_editors(
            help="Off stops every call to a paid provider, of every program on this data folder, from the next call on."
            " Calls that have left are still booked. Cached texts and local models go on."
        ),
    )


def _set_paid() -> None:
    on = bool(st.session_state["paid"])
    engine = host()
    engine.run(engine.router.policies.set_paid(on))
    if on:
        st.toast("Paid calls are allowed again, within the budgets.")
