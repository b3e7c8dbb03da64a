"""Policies: not drawn yet."""

from __future__ import annotations

import streamlit as st

st.title("Policies")
st.write("This page is not drawn yet.")
