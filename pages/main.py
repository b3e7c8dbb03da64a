"""The frame around every page: page config and navigation. A page is only ever run by `page.run()`.

Errors of the router are shown here as messages, whichever page they come from; so no page may end with st.stop. Where
sign-in is required, nothing of a page runs before it. This is Streamlit's main script (see app.py), so no URL reaches a
page without passing through here.
"""

from __future__ import annotations

import streamlit as st

from pages.components import access, frame, widgets

# Set before st.navigation, which would else have the browser fetch the page's :material: icon from fonts.gstatic.com.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#0B9A8D" stroke-width="2.4">'
    '<path d="M8 15V9M8 9 3 4M8 9l5-5"/><circle cx="3" cy="3" r="1.5"/><circle cx="13" cy="3" r="1.5"/></svg>'
)
LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 184 16" fill="none" stroke="#0B9A8D" stroke-width="2.4">'
    '<path d="M8 15V9M8 9 3 4M8 9l5-5"/><circle cx="3" cy="3" r="1.5"/><circle cx="13" cy="3" r="1.5"/>'
    '<text x="26" y="13" fill="#0B9A8D" stroke="none" font-family="system-ui, sans-serif" font-size="14.5"'
    ' font-weight="600">Embedding Router</text></svg>'
)
st.set_page_config(page_title="Embedding Router", page_icon=ICON, layout="wide")

who = access.person()
allowed = who is not None and who.role != "stranger"
page = st.navigation(
    {
        "": [st.Page("overview.py", title="Overview", icon=":material/monitoring:", default=True)],
        "Embed": [
            st.Page("route.py", title="Route a text", icon=":material/alt_route:"),
            st.Page("collections.py", title="Collections", icon=":material/folder_copy:"),
        ],
        "Money": [
            st.Page("spend.py", title="Spend", icon=":material/payments:"),
            st.Page("policies.py", title="Policies", icon=":material/tune:"),
        ],
        "Models": [
            st.Page("models.py", title="Models", icon=":material/deployed_code:"),
            st.Page("connections.py", title="Connections", icon=":material/power:"),
        ],
    },
    position="sidebar" if allowed else "hidden",
)
st.logo(LOGO, size="large", icon_image=ICON)
st.set_page_config(page_title=f"{page.title} · Embedding Router")
above = frame.header()
if who is not None and allowed:
    with widgets.errors_shown():
        page.run()
    with widgets.errors_shown():
        frame.footer(who, above)
else:
    frame.sign_in(who)
