"""Route a text: a quote with every candidate before anything is spent, then the answer."""

from __future__ import annotations

import streamlit as st

st.title("Route a text")

from pages.components import route_form, tables, widgets  # noqa: E402  # after the title, so that it is shown while these load
from pages.components.background import Embedding, wait_for  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
left, right = st.columns([2, 3], gap="large")
with left:
    query = route_form.form(engine.router)
with right:
    st.subheader("Before anything is spent")
    quote = None
    if not query.texts:
        widgets.empty("Enter a text or choose a file to see what each model would cost.", ":material/edit:")
    else:
        with widgets.errors_shown():
            quote = engine.run(engine.router.quote(query.texts, **query.options))
    if quote is not None and route_form.confirm(quote):
        st.session_state["embedding"] = Embedding(engine, query.texts, ids=query.ids, **query.options)

work: Embedding | None = st.session_state.get("embedding")
if work is not None and (work.is_for(query.texts, query.options) or not work.future.done()):
    st.subheader("Answer")
    if (result := wait_for(work, "Embedding")) is not None:
        route_form.answer(work, result)

if quote is not None:
    st.subheader("Candidates")
    widgets.candidates(tables.quoted(quote), alt="The models that could serve these texts, with cost and quality")
    st.caption(
        "Models are compared by their likely cost; the most that one can cost must fit the budgets."
        f" {widgets.quality_note(engine.router.catalog)}"
    )
