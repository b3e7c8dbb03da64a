"""The parts around every page: header, sign-in, and the sidebar's footer with budget, jobs and the kill switch."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.components import access, bars, jobs, widgets
from pages.components.format import md, usd
from router.domain.policy import describe_budget
from router.domain.values import BudgetState
from router.host import host

DEMO = "Demo money: the providers are simulated on this machine."
STOPPED = "Paid calls are stopped. Cache and local models go on. The switch is at the bottom of the sidebar."
STYLE = Path(__file__).with_name("style.css")


def header() -> DeltaGenerator:
    """Above the page: the style and the demo's mark. Returns the place for a warning that only the engine can give."""
    st.html(STYLE)
    if os.environ.get("ROUTER_DEMO") == "1":
        st.info(DEMO, icon=":material/science:")
    return st.container()


def sign_in(who: access.Person | None) -> None:
    """In place of a page: the sign-in, or that the person has no access."""
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
        f"{whose} may not use this app. Ask its operator to add your address to \\[access\\], or use another account.",
        icon=":material/block:",
    )
    st.button("Sign out", icon=":material/logout:", on_click=st.logout)


def footer(who: access.Person, above: DeltaGenerator) -> None:
    """The bottom of the sidebar and, in `above`, a warning where paid calls are stopped.

    Drawn after the page, so that the page's title does not wait for the engine.
    """
    router = host().router
    if not router.policies.paid_enabled():
        above.warning(STOPPED, icon=":material/block:")
    with st.sidebar:
        states = [s for s in router.budgets() if s.budget.window != "request"]
        if states:
            most = max(states, key=lambda s: (s.budget.hard, s.budget.window == "month", -s.left))
            _account(most, router.policies.account_zone())
        else:
            st.caption("No account budget is set. Only the policies' own budgets apply.")
        jobs.running(host())
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
    st.caption(md(left + (f" until {widgets.reset_day(state, zone)}" if state.resets else "")))


def _switch(enabled: bool) -> None:
    """The kill switch, as the database has it, so that two browsers show the same."""
    st.session_state["paid"] = enabled

    def set_paid() -> None:
        on = bool(st.session_state["paid"])
        host().run(host().router.policies.set_paid(on))
        if on:
            st.toast("Paid calls are allowed again, within the budgets.")

    help = (
        "Off stops all further calls to paid providers, by every program that uses this data folder. Calls already sent"
        " are still charged. Cached texts and local models go on."
    )
    st.toggle("Paid calls", key="paid", on_change=set_paid, **access.only_editors(help=help))
