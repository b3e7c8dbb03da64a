"""Models: prices, quality and limits, and the state of each provider."""

from __future__ import annotations

import streamlit as st

st.title("Models")

from pages.components import access, prices, spend_report, widgets  # noqa: E402  # after the title, so that it is shown while these load
from pages.components.format import md, plural  # noqa: E402
from router.dispatch.limiter import BREAK_AFTER, BREAK_S  # noqa: E402
from router.host import host  # noqa: E402
from router.reporting import figures, price_check  # noqa: E402

engine = host()
router = engine.router
catalog = router.catalog
today = figures.today(router.clock(), "UTC")
ready = sum(router.configured(model) for model in catalog.models)
spaces = plural(len({model.space for model in catalog.models}), "space")
st.caption(
    f"{plural(len(catalog.models), 'model')} of {spaces}; {ready} can be used now."
    " Vectors can only be compared within a space."
)

with st.container(horizontal=True, vertical_alignment="bottom"):
    only = st.segmented_control("Show", ["All", "Ready"], default="All", required=True, key="show", bind="query-params")
    st.page_link("connections.py", label="Add a key", icon=":material/power:")

shown = [model for model in catalog.models if only == "All" or router.configured(model)]
overrides = price_check.overrides(catalog, today)
rows = prices.models(shown, today=today, configured=router.configured, scale=catalog.scale, overrides=overrides)
st.dataframe(
    rows,
    column_config={
        "model": st.column_config.TextColumn("model", pinned=True),
        "state": widgets.words_column("state", dict(zip(prices.STATES.values(), prices.COLOURS, strict=True))),
        "now": st.column_config.TextColumn("now", help="USD per million tokens, answered at once.", alignment="right"),
        "was": st.column_config.TextColumn("was", help="The catalog's price, overridden in router.toml."),
        "batch": st.column_config.TextColumn("batch", help="USD per million tokens, within a day.", alignment="right"),
        "read": st.column_config.TextColumn("read", help="The day the price was checked."),
        "price from": st.column_config.TextColumn("price from", width="medium"),
        "dimensions": st.column_config.TextColumn("dimensions", help="The full size, then the sizes it can be cut to."),
    },
    hide_index=True,
    height="content",
    alt="The models with prices, scores and limits",
)
st.caption(
    f"Prices are dollars per million tokens. Scores are 0 to 100 on English retrieval. {md(catalog.scale)} is"
    f" {md(catalog.note)}. MTEB-v2-en is shown for comparison and not used for decisions. \\* marks figures from a"
    " secondary source."
)

if overrides:
    st.subheader("Price overrides")
    st.dataframe(prices.overrides(overrides), hide_index=True, alt="Prices that router.toml sets")
    st.caption("Set under \\[\\[prices\\]\\] in router.toml: the catalog's price → the price from that day on.")

st.subheader("Likely cost compared with the bill")
learned = prices.expected(router.token_errors())
if learned:
    st.dataframe(
        learned,
        column_config={
            "off by": st.column_config.TextColumn(
                "off by", help="The mean difference of a call, as a share of the bill."
            ),
            "a call within": st.column_config.TextColumn(
                "a call within", help="The root mean square of the calls' relative differences."
            ),
        },
        hide_index=True,
        alt="How far the likely cost of each model was off",
    )
    st.caption(
        "Models whose tokens only the provider can count. Each call is compared before the estimate learns from it."
    )
else:
    widgets.empty("No call was billed yet for a model whose tokens only the provider can count.")

if st.toggle("Compare with genai-prices", key="compare", bind="query-params"):
    checked = price_check.crosscheck(catalog, today)
    verdicts = [c.verdict for c in checked]
    st.dataframe(
        prices.crosschecked(checked, overrides), hide_index=True, height="content",
        alt="Our prices beside those of genai-prices",
    )  # fmt: skip
    st.caption(
        f"{verdicts.count('same')} of {plural(len(checked), 'price')} agree with the installed package genai-prices,"
        f" {verdicts.count('differs')} differ. It has no batch prices."
    )

st.subheader("Providers")
zone = router.policies.account_zone()
states = prices.providers(router.health(), router.settings.endpoints.values(), now=router.clock(), zone=zone)
st.dataframe(
    states,
    column_config={
        "state": st.column_config.TextColumn("state", width="medium"),
        "calls at once": st.column_config.TextColumn(
            "calls at once", help="In flight, of the most this provider accepts, learned from its refusals."
        ),
        "last error": st.column_config.TextColumn("last error", width="large"),
    },
    hide_index=True,
    alt="The state of each provider",
)
st.caption(
    f"After {BREAK_AFTER} failures in a row a provider is paused for {BREAK_S:.0f} s, then tried with one call."
    f" Times in {md(zone)}."
)

st.subheader("Account budget")
for state in router.budgets():
    widgets.budget(state, zone)
paid = router.policies.paid_enabled()
with st.container(horizontal=True, vertical_alignment="center"):
    st.page_link("policies.py", label="Change it", icon=":material/tune:")
    st.button(
        "Stop all paid calls" if paid else "Allow paid calls again",
        icon=":material/block:" if paid else ":material/play_arrow:", key="switch",
        on_click=lambda: engine.run(router.policies.set_paid(not paid)), **access.only_editors(),
    )  # fmt: skip
spend_report.unconfirmed(engine)
