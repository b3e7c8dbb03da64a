"""The frame around every page: page config and navigation. A page is only ever run by `page.run()`.

What the router says no to is shown as words here, whatever page it comes from; so no page may end with st.stop.
Where people have to sign in, nothing of a page runs before they have.
It is Streamlit's main script (see app.py), so that no URL can reach a page without passing through here.
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
inside = who is not None and who.role != "stranger"
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
    position="sidebar" if inside else "hidden",
)
st.logo(LOGO, size="large", icon_image=ICON)
st.set_page_config(page_title=f"{page.title} · Embedding Router")
above = frame.top()
if inside:
    with widgets.in_words():
        page.run()
    with widgets.in_words():
        frame.foot(who, above)
else:
    frame.door(who)
