"""Connections: which providers can be reached, a test of each, and keys for this process. A key is never shown."""

from __future__ import annotations

import streamlit as st

st.title("Connections")

from pages.components import connection, widgets  # noqa: E402  # after the title, so that it is shown while these load
from router.host import host  # noqa: E402

engine = host()
st.caption(
    "Keys come from the environment or .streamlit/secrets.toml, or are added here until the program ends. They are"
    " never stored, logged or shown. Addresses and limits are set in router.toml."
)
policy = widgets.policy_box(engine.router, "Policy that pays for tests", key="test policy", width=320)
for endpoint, place in widgets.cards(list(engine.router.settings.endpoints.values())):
    with place:
        connection.card(engine, endpoint, policy)
st.page_link("models.py", label="Models, prices and the state of each provider", icon=":material/deployed_code:")
