"""Connections: which providers can be reached, with a test, and a key for this process only. A key is never shown."""

from __future__ import annotations

import streamlit as st

st.title("Connections")

from pages.components import connection, widgets  # noqa: E402  # the title is on the screen before these load
from router.host import host  # noqa: E402

engine = host()
router = engine.router
st.caption(
    "Keys come from the environment or .streamlit/secrets.toml, or are added here until the program ends; they are"
    " never written down, logged or shown. Addresses and limits are set by who runs the program, in router.toml."
)
policies = [policy.name for policy in router.policies.all()]
policy = st.selectbox(
    "Tests are paid for under the policy", policies, index=policies.index("default"), key="test policy", width=320,
)  # fmt: skip
for endpoint, place in widgets.cards(list(router.settings.endpoints.values())):
    with place:
        connection.card(engine, endpoint, policy)
st.page_link("models.py", label="Models, prices and the state of each provider", icon=":material/deployed_code:")
