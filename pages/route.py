"""Route a text: the quote with every candidate before anything is spent, then who answered what."""

from __future__ import annotations

import streamlit as st

st.title("Route a text")

from pages.components import asking, draw, tables  # noqa: E402  # the title is on the screen before these load
from pages.components.format import count, estimate, md, plural  # noqa: E402
from pages.components.work import Work, wait_for  # noqa: E402
from router.domain.errors import RouterError  # noqa: E402
from router.domain.values import Plan  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
left, right = st.columns([2, 3], gap="large")
with left, draw.in_words():
    asked = asking.form(engine.router)

with right:
    st.subheader("Before anything is spent")
    if asked is None or not asked.texts:
        draw.empty("Write a text, or give a file, and see here what each model would cost.", ":material/edit:")
    else:
        try:
            quote = engine.run(engine.router.quote(asked.texts, **asked.options))
        except RouterError as error:
            draw.say_no(error)
        else:
            repeats = quote.texts - quote.distinct
            once = f", {quote.distinct:,} of them distinct; repeats are paid for once" if repeats else ""
            st.markdown(f"{plural(quote.texts, 'text')}, {count(quote.tokens)} tokens{once}.")
            if isinstance(quote.outcome, Plan):
                st.text(quote.decision)
                price = f"for {estimate(quote.outcome.cost)}" if quote.outcome.cost else "for free"
                label = f"Embed {plural(quote.texts, 'text')} {price}"
                if st.button(md(label), type="primary", icon=":material/play_arrow:", key="embed"):
                    st.session_state["work"] = Work(engine, asked.texts, ids=asked.ids, **asked.options)
            else:
                st.error(f"{md(quote.outcome.reason)} {md(quote.outcome.hint)}", icon=":material/block:")
            draw.candidates(tables.quoted(quote), alt="The models that could serve these texts, with cost and quality")
            st.caption(
                f"Costs are at most what is shown. Quality is {md(engine.router.catalog.scale)}, English retrieval, 0 to"
                f" 100: {md(engine.router.catalog.note)}."
            )

work: Work | None = st.session_state.get("work")
if work is not None:
    st.divider()
    st.subheader("Answer")
    if wait_for(work, "Embedding"):
        asking.answer(work)
