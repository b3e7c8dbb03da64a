"""A draft policy replayed on the requests of the last 30 days, beside what happened."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from pages.components import bars, widgets
from pages.components.background import Task, wait_for
from pages.components.format import md, percent, plural, route_shares, usd
from router.domain.errors import RouterError
from router.domain.policy import validate
from router.domain.values import Policy
from router.host import Host
from router.reporting.replay import Replay

DAYS = 30


def panel(host: Host, saved: Policy | None, draft: Policy | RouterError) -> None:
    """The button and, once it has run, the result for this draft."""
    if isinstance(draft, RouterError):
        return  # the error is shown above
    router = host.router
    with st.container(border=True):
        st.markdown(f"**Replayed on the last {DAYS} days**")
        names = [policy.name for policy in router.policies.all()]
        of = saved.name if saved else st.selectbox("Requests of", names, key="replay of")
        if st.button("Replay", icon=":material/replay:", key="replay"):
            with widgets.errors_shown():
                validate(draft, [model.id for model in router.catalog.models])
                now = router.clock()
                since = now - timedelta(days=DAYS).total_seconds()
                task = Task(host, lambda _: router.replay(draft, since=since, until=now, of=of))
                st.session_state["replay task"] = (draft, of, task)
        kept = st.session_state.get("replay task")
        if kept is None or kept[:2] != (draft, of):
            st.caption(
                f"What the requests of {md(of)} would have cost under this draft, with routes, refusals and models."
                " Nothing is sent or spent."
            )
        elif (found := wait_for(kept[2], "Deciding each request again")) is not None:
            _figures(found)


def _figures(found: Replay) -> None:
    if found.requests:
        cost, _, rest = sentence(found).partition(" instead of ")
        st.markdown(f"**{md(cost)}** instead of {md(rest)}")
        st.html(bars.parts(route_shares(found.draft.routes), height=12))
        changed = f"{found.changed:,} of {plural(found.requests, 'request')} would have been answered differently."
        about = f" {found.estimated:,} use estimated token counts." if found.estimated else ""
        st.caption(md(changed + about))
        widgets.table(_served(found), "Which models would have answered, and which did")
    else:
        st.caption("No request of these days can be replayed.")
    for reason, number in found.left_out.items():
        st.caption(md(f"{plural(number, 'request')} left out: {reason}."))


def sentence(found: Replay) -> str:
    """`likely $2.10 instead of $3.12; 71 % cache, 22 % local, 7 % API; 0 refused.`"""
    mix = ", ".join(f"{percent(share)} {word}" for word, _, share in route_shares(found.draft.routes) if share)
    about = "likely " if found.estimated and found.draft.cost else ""
    cut = f", {found.draft.cut_short:,} cut short" if found.draft.cut_short else ""
    real = f" (really {found.real.refused:,})" if found.real.refused != found.draft.refused else ""
    return (
        f"{about}{usd(found.draft.cost)} instead of {usd(found.real.cost)}; {mix or 'nothing answered'};"
        f" {found.draft.refused:,} refused{real}{cut}."
    )


def _served(found: Replay) -> list[dict[str, str]]:
    """Which models would have answered, and which did, as shares of the distinct texts."""
    shares = {m: (found.draft.share(m), found.real.share(m)) for m in {**found.draft.models, **found.real.models}}
    return [
        {"draft": percent(draft), "really": percent(real), "model": model}
        for model, (draft, real) in sorted(shares.items(), key=lambda item: item[1], reverse=True)
    ]
