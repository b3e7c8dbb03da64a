"""Policies: quality goal, budgets, and what happens when the money is gone. `?policy=NAME` opens one."""

from __future__ import annotations

import streamlit as st

st.title("Policies")

from pages.components import policy_editor, replay, widgets  # noqa: E402  # after the title, so that it is shown while these load
from pages.components.format import md  # noqa: E402
from router.host import host  # noqa: E402

NEW = "new policy"  # no policy has this name: the editor refuses it

engine = host()
router = engine.router
named = st.query_params.get("policy")
policies = {policy.name: policy for policy in router.policies.all()}


widgets.notice()
if named is not None and (named in policies or named == NEW):
    st.button("All policies", icon=":material/arrow_back:", on_click=st.query_params.clear)
    saved = policies.get(named)
    st.subheader(md(named) if saved else "A new policy")
    main, side = st.columns([3, 2], gap="large")
    with main:
        draft = policy_editor.form(router, saved) if saved else policy_editor.new(router)
    with side.container(key="beside"):
        policy_editor.review(engine, saved, draft)
        replay.panel(engine, saved, draft)
        if saved is not None:
            st.subheader("Budgets now")
            for state in router.budgets(saved.name):
                own = state.owner != "account"
                zone = saved.timezone if own else router.policies.account_zone()
                widgets.budget(state, zone, name="" if own else "account")
            policy_editor.history(router, saved.name)
            policy_editor.delete(engine, saved.name)
else:
    if named is not None:
        st.error(f"There is no policy “{md(named)}”.", icon=":material/block:")
    st.caption("A policy sets how good vectors must be, what they may cost, and what happens when the money is gone.")
    new = {"policy": NEW}
    st.button("New policy", icon=":material/add:", type="primary", on_click=st.query_params.update, args=(new,))
    for policy, place in widgets.cards(list(policies.values())):
        with place:
            policy_editor.card(router, policy)
    st.subheader("Account budget")
    st.caption("The limit for all policies together.")
    policy_editor.account(engine)
