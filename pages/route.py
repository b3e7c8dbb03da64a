"""Route a text: not drawn yet."""

from __future__ import annotations

import streamlit as st

st.title("Route a text")
st.write("This page is not drawn yet.")
