"""Route a text: the quote with every candidate before anything is spent, then who answered what."""

from __future__ import annotations

import streamlit as st

st.title("Route a text")

from pages.components import route_form, tables, widgets  # noqa: E402  # the title is on the screen before these load
from pages.components.background import Work, wait_for  # noqa: E402
from pages.components.format import md  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
left, right = st.columns([2, 3], gap="large")
with left:
    asked = route_form.form(engine.router)
with right:
    st.subheader("Before anything is spent")
    quote = None
    if not asked.texts:
        widgets.empty("Write a text, or give a file, and see here what each model would cost.", ":material/edit:")
    else:
        with widgets.in_words():
            quote = engine.run(engine.router.quote(asked.texts, **asked.options))
    if quote is not None and route_form.confirm(quote):
        st.session_state["work"] = Work(engine, asked.texts, ids=asked.ids, **asked.options)

work: Work | None = st.session_state.get("work")
if work is not None and (work.is_for(asked.texts, asked.options) or not work.future.done()):
    st.subheader("Answer")
    if wait_for(work, "Embedding"):
        route_form.answer(work)

if quote is not None:
    st.subheader("Candidates")
    widgets.candidates(tables.quoted(quote), alt="The models that could serve these texts, with cost and quality")
    catalog = engine.router.catalog
    scale = f"Quality is {md(catalog.scale)}, English retrieval, 0 to 100: {md(catalog.note)}."
    st.caption(f"Models are compared by what is likely; the most is set aside, and must fit the budgets. {scale}")
