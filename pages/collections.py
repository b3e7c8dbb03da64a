"""Collections: texts that are embedded once, in one space, and searched. `?collection=NAME` opens one."""

from __future__ import annotations

import streamlit as st

st.title("Collections")

from pages.components import filling, inside, jobs, shelf  # noqa: E402  # the title is on the screen before these load
from pages.components.format import md  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
infos = {info.collection.name: info for info in engine.library.collections()}
named = st.query_params.get("collection")

if said := st.session_state.pop("said", None):
    st.success(md(said), icon=":material/check_circle:")

if named in infos:
    tab = shelf.head(engine, infos[named])
    if tab == "Search":
        inside.search(engine, infos[named])
    elif tab == "Jobs":
        jobs.of_collection(engine, infos[named])
    elif tab == "Settings":
        inside.settings(engine, infos[named])
    else:
        filling.add(engine, infos[named])
        filling.offer(engine, infos[named])
        inside.documents(engine, infos[named])
else:
    if named is not None:
        st.error(f"There is no collection “{md(named)}”.", icon=":material/block:")
    st.caption("Documents, cut into chunks that are embedded in one space for life, so that they can be searched.")
    shelf.cards(engine, list(infos.values()))
    shelf.more(engine)
