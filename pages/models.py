"""Models: prices, quality and limits, and the state of each provider."""

from __future__ import annotations

import streamlit as st

st.title("Models")

from pages.components import prices, spend_report, widgets  # noqa: E402  # after the title, so that it is shown while these load
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
widgets.table(
    rows,
    "The models with prices, scores and limits",
    {
        "model": {"pinned": True},
        "state": widgets.words_column(dict(prices.STATES.values())),
        "now": {"help": "USD per million tokens, answered at once.", "alignment": "right"},
        "was": "The catalog's price, overridden in router.toml.",
        "batch": {"help": "USD per million tokens, within a day.", "alignment": "right"},
        "read": "The day the price was checked.",
        "price from": {"width": "medium"},
        "dimensions": "The full size, then the sizes it can be cut to.",
    },
    height="content",
)
st.caption(
    f"Prices are dollars per million tokens. Scores are 0 to 100 on English retrieval. {md(catalog.scale)} is"
    f" {md(catalog.note)}. MTEB-v2-en is shown for comparison and not used for decisions. \\* marks figures from a"
    " secondary source."
)

if overrides:
    st.subheader("Price overrides")
    widgets.table(prices.overrides(overrides), "Prices that router.toml sets")
    st.caption("Set under \\[\\[prices\\]\\] in router.toml: the catalog's price → the price from that day on.")

st.subheader("Likely cost compared with the bill")
learned = prices.expected(router.token_errors())
if learned:
    columns = {
        "off by": "The mean difference of a call, as a share of the bill.",
        "a call within": "The root mean square of the calls' relative differences.",
    }
    widgets.table(learned, "How far the likely cost of each model was off", columns)
    st.caption(
        "Models whose tokens only the provider can count. Each call is compared before the estimate learns from it."
    )
else:
    widgets.empty("No call was billed yet for a model whose tokens only the provider can count.")

if st.toggle("Compare with genai-prices", key="compare", bind="query-params"):
    checked = price_check.crosscheck(catalog, today)
    verdicts = [c.verdict for c in checked]
    rows = prices.crosschecked(checked, overrides)
    widgets.table(rows, "Our prices beside those of genai-prices", height="content")
    st.caption(
        f"{verdicts.count('same')} of {plural(len(checked), 'price')} agree with the installed package genai-prices,"
        f" {verdicts.count('differs')} differ. It has no batch prices."
    )

st.subheader("Providers")
zone = router.policies.account_zone()
states = prices.providers(router.health(), router.settings.endpoints.values(), now=router.clock(), zone=zone)
help = "In flight, of the most this provider accepts, learned from its refusals."
columns = {"state": {"width": "medium"}, "calls at once": help, "last error": widgets.WIDE}
widgets.table(states, "The state of each provider", columns)
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
    label, icon = ("Stop all paid calls", "block") if paid else ("Allow paid calls again", "play_arrow")
    widgets.act(label, icon, key="switch", on_click=lambda: engine.run(router.policies.set_paid(not paid)))
spend_report.unconfirmed(engine)
