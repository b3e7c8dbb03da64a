"""A provider's card on the Connections page: its state, its test, and a field for a key."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from pages.components import access, widgets
from pages.components.background import Embedding, wait_for
from pages.components.format import cost, estimate, md, plural, seconds
from router.config import Endpoint
from router.domain.pricing import price_on
from router.domain.values import Model, Plan
from router.engine import Router
from router.host import Host
from router.reporting import figures

TITLES = {"openai": "OpenAI", "cohere": "Cohere", "voyage": "Voyage AI", "local": "This machine"}


def card(host: Host, endpoint: Endpoint, policy: str) -> None:
    """One endpoint: its state, address and limits, its test and its key."""
    router = host.router
    models = [model for model in router.catalog.models if model.provider == endpoint.name]
    ready = [model for model in models if router.configured(model)]
    local = endpoint.wire == "local"
    if local:
        word, icon, colour = ("installed", "check", "green") if ready else ("not installed", "close", "gray")
    elif endpoint.key is None:
        word, icon, colour = "no key", "key_off", "gray"
    elif endpoint.key_variable:
        word, icon, colour = "key set", "key", "green"
    else:
        word, icon, colour = "needs no key", "check", "green"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{md(TITLES.get(endpoint.name, endpoint.name))}**", width="content")
        st.badge(word, icon=f":material/{icon}:", color=colour)
    st.caption(md(_about(endpoint, models)))
    if not models:
        st.caption("The catalog has no model of it. Add one under \\[\\[models\\]\\] in router.toml.")
    elif ready:
        _test(host, endpoint.name, ready, policy)
    if not local and endpoint.key_variable:
        _key(router, endpoint)


def _about(endpoint: Endpoint, models: list[Model]) -> str:
    """Its address, models and limits."""
    if endpoint.wire == "local":
        return f"{plural(len(models), 'model')}, free; nothing leaves this machine."
    limits = [f"{plural(endpoint.max_in_flight, 'call')} at once", f"{endpoint.timeout_s:g} s a call at most"]
    for most, one, per in (
        (endpoint.max_texts_per_call, "text", "a call"),
        (endpoint.requests_per_minute, "request", "a minute"),
        (endpoint.tokens_per_minute, "token", "a minute"),
    ):
        limits += [f"{plural(most, one)} {per}"] if most else []
    return f"{endpoint.base_url} · {plural(len(models), 'model')} · {', '.join(limits)}"


def _test(host: Host, name: str, ready: list[Model], policy: str) -> None:
    """A button that embeds one short text with the cheapest model, with its price, and then the result."""
    router, today = host.router, figures.today(host.router.clock(), "UTC")
    prices = {one: price.now for one in ready if (price := price_on(one, today)) and price.now is not None}
    model = min(prices, key=prices.__getitem__, default=None)
    if model is None:
        st.caption("The price of its models is unknown, so they are not used, not even for a test.")
        return
    # The time makes it a new text: an answer from the cache would not test the provider.
    text = f"test {datetime.fromtimestamp(router.clock(), UTC):%H:%M:%S.%f}"
    with widgets.errors_shown():
        quote = host.run(router.quote([text], policy=policy, model=model.id))
        if not isinstance(quote.outcome, Plan):
            st.caption(f"{md(quote.outcome.reason)} {md(quote.outcome.hint)}")
        elif quote.outcome.model.provider != name:
            st.caption(f"Cannot be tested under this policy: {md(quote.outcome.model.id)} would answer instead.")
        else:
            plan = quote.outcome
            label = f"Test {plan.model.name}: {estimate(plan.expected, plan.cost)}"
            if widgets.act(md(label), "network_check", key=f"test {name}"):
                st.session_state[f"tested {name}"] = Embedding(host, [text], policy=policy, model=model.id)
    work: Embedding | None = st.session_state.get(f"tested {name}")
    if work is not None and (result := wait_for(work, "Testing")) is not None:
        took = f"{md(result.model)} answered in {md(seconds(work.seconds))}"
        price = md(cost(result.cost, result.unconfirmed))
        st.success(f"{took}: {result.dimensions:,} dimensions, {price}.", icon=":material/check_circle:")


def _key(router: Router, endpoint: Endpoint) -> None:
    """A field that hands the key to the engine and is emptied at once, and a button to forget the key."""
    name, field = endpoint.name, f"key {endpoint.name}"

    def put(key: str) -> None:
        if access.may_change():
            router.set_key(name, key)
            st.session_state.pop(f"tested {name}", None)

    def take() -> None:
        key = str(st.session_state.pop(field, "") or "").strip()
        st.session_state[field] = ""
        if key:
            put(key)

    with st.form(f"form {name}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Key for this process", type="password", key=field, autocomplete="off",
            placeholder="replaces the key in use" if endpoint.key else f"or set {endpoint.key_variable}",
            **access.only_editors(help="Kept in memory until the program ends or another key is added; never stored."),
        )  # fmt: skip
        st.form_submit_button("Use key", icon=":material/key:", on_click=take, **access.only_editors())
    if endpoint.key is not None:
        help = "Until the program restarts and reads the environment again."
        key = f"forget {name}"
        widgets.act("Forget the key", "key_off", key=key, type="tertiary", on_click=put, args=("",), help=help)
