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
NAME = (
    '<text x="26" y="13" fill="#0B9A8D" stroke="none" font-family="system-ui, sans-serif" font-size="14.5"'
    ' font-weight="600">Embedding Router</text></svg>'
)
LOGO = ICON.replace("0 0 16 16", "0 0 184 16").replace("</svg>", NAME)
PAGES = {
    "": [("overview", "Overview", "monitoring")],
    "Embed": [("route", "Route a text", "alt_route"), ("collections", "Collections", "folder_copy")],
    "Money": [("spend", "Spend", "payments"), ("policies", "Policies", "tune")],
    "Models": [("models", "Models", "deployed_code"), ("connections", "Connections", "power")],
}
st.set_page_config(page_title="Embedding Router", page_icon=ICON, layout="wide")

who = access.person()
allowed = who is not None and who.role != "stranger"
pages = {
    group: [
        st.Page(f"{name}.py", title=title, icon=f":material/{icon}:", default=name == "overview")
        for name, title, icon in entries
    ]
    for group, entries in PAGES.items()
}
page = st.navigation(pages, position="sidebar" if allowed else "hidden")
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
