"""Connections' pieces: a provider at a glance, its test, and a key that is taken over and forgotten by the page."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from pages.components import access, widgets
from pages.components.background import Work, wait_for
from pages.components.format import charged, estimate, md, plural, seconds
from router.config import Endpoint
from router.domain.pricing import price_on
from router.domain.values import Model, Plan
from router.engine import Router
from router.host import Host
from router.reporting import figures

TITLES = {"openai": "OpenAI", "cohere": "Cohere", "voyage": "Voyage AI", "local": "This machine"}


def card(host: Host, endpoint: Endpoint, policy: str) -> None:
    """One endpoint: configured or not, where it is, its limits, its test, its key."""
    router = host.router
    models = [model for model in router.catalog.models if model.provider == endpoint.name]
    ready = [model for model in models if router.configured(model)]
    local = endpoint.wire == "local"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{md(TITLES.get(endpoint.name, endpoint.name))}**", width="content")
        if local:
            badge = (
                ("installed", ":material/check:", "green") if ready else ("not installed", ":material/close:", "gray")
            )
        elif endpoint.key is None:
            badge = ("no key", ":material/key_off:", "gray")
        elif not endpoint.key_variable:
            badge = ("asks for no key", ":material/check:", "green")
        else:
            badge = ("key set", ":material/key:", "green")
        st.badge(badge[0], icon=badge[1], color=badge[2])
    st.caption(md(_about(endpoint, models)))
    if not models:
        st.caption("No model of the catalog is there; add one as \\[\\[models\\]\\] in router.toml.")
    elif ready:
        _test(host, endpoint.name, ready, policy)
    if not local and endpoint.key_variable:
        _key(router, endpoint)


def _about(endpoint: Endpoint, models: list[Model]) -> str:
    """Where it is and how fast it may be asked."""
    if endpoint.wire == "local":
        return f"{plural(len(models), 'model')}, free; nothing leaves this machine."
    limits = [f"{plural(endpoint.max_in_flight, 'call')} at once", f"{endpoint.timeout_s:g} s a call at most"]
    if endpoint.max_texts_per_call:
        limits.append(f"{plural(endpoint.max_texts_per_call, 'text')} a call")
    if endpoint.requests_per_minute:
        limits.append(f"{plural(endpoint.requests_per_minute, 'request')} a minute")
    if endpoint.tokens_per_minute:
        limits.append(f"{plural(endpoint.tokens_per_minute, 'token')} a minute")
    return f"{endpoint.base_url} · {plural(len(models), 'model')} · {', '.join(limits)}"


# ---- the test ----------------------------------------------------------------------------------


def cheapest(router: Router, models: list[Model]) -> Model | None:
    """The one with the lowest price today; None where no price is known."""
    today = figures.today(router.clock(), "UTC")
    prices = {model.id: price.now for model in models if (price := price_on(model, today)) and price.now is not None}
    return min((m for m in models if m.id in prices), key=lambda m: prices[m.id], default=None)


def _test(host: Host, name: str, ready: list[Model], policy: str) -> None:
    """One short text through the whole router, its price before and its outcome after."""
    router, model = host.router, cheapest(host.router, ready)
    if model is None:
        st.caption("No price is known of its models, so nothing is paid for, not even a test.")
        return
    # The time makes the text a new one: an answer out of the cache would say nothing of the provider.
    text = f"test {datetime.fromtimestamp(router.clock(), UTC):%H:%M:%S.%f}"
    with widgets.in_words():
        quote = host.run(router.quote([text], policy=policy, model=model.id))
        if not isinstance(quote.outcome, Plan):
            st.caption(f"{md(quote.outcome.reason)} {md(quote.outcome.hint)}")
        elif quote.outcome.model.provider != name:
            st.caption(f"Cannot be tested under this policy: {md(quote.outcome.model.id)} would answer instead.")
        else:
            plan = quote.outcome
            label = f"Test {plan.model.name}: {estimate(plan.expected, plan.cost)}"
            if st.button(md(label), key=f"test {name}", icon=":material/network_check:", **access.only_editors()):
                st.session_state[f"tested {name}"] = Work(host, [text], policy=policy, model=model.id)
    work: Work | None = st.session_state.get(f"tested {name}")
    if work is not None and wait_for(work, "Testing") and (result := work.result) is not None:
        cost = "free" if not result.cost + result.unconfirmed else charged(result.cost, result.unconfirmed)
        took = f"{md(result.model)} answered in {md(seconds(work.seconds))}"
        st.success(f"{took}: {result.dimensions:,} dimensions, {md(cost)}.", icon=":material/check_circle:")


# ---- the key -----------------------------------------------------------------------------------


def _key(router: Router, endpoint: Endpoint) -> None:
    """A field that hands the key to the engine and is empty again."""
    name, field = endpoint.name, f"key {endpoint.name}"

    def take() -> None:
        key = str(st.session_state.pop(field, "") or "").strip()
        st.session_state[field] = ""
        if key and access.may_change():
            router.set_key(name, key)
            st.session_state.pop(f"tested {name}", None)

    def drop() -> None:
        if access.may_change():
            router.set_key(name, "")
            st.session_state.pop(f"tested {name}", None)

    with st.form(f"form {name}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Key for this process",
            type="password",
            key=field,
            autocomplete="off",
            placeholder="replaces the key in use" if endpoint.key else f"or set {endpoint.key_variable}",
            **access.only_editors(
                help="Kept in memory until the program ends, or another key is added; never written."
            ),
        )
        st.form_submit_button("Use it", icon=":material/key:", on_click=take, **access.only_editors())
    if endpoint.key is not None:
        st.button(
            "Forget the key", key=f"forget {name}", type="tertiary", icon=":material/key_off:", on_click=drop,
            **access.only_editors(help="Until the program starts again; a key in the environment is then read anew."),
        )  # fmt: skip
