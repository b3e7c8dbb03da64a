"""Spend: not drawn yet."""

from __future__ import annotations

import streamlit as st

st.title("Spend")
st.write("This page is not drawn yet.")
