"""Collections: texts that are embedded once, in one space, and searched. `?collection=NAME` opens one."""

from __future__ import annotations

import streamlit as st

st.title("Collections")

from pages.components import collection, collection_list, jobs, upload  # noqa: E402  # the title is on the screen before these load
from pages.components.format import md  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
infos = {info.collection.name: info for info in engine.library.collections()}
named = st.query_params.get("collection")

if said := st.session_state.pop("said", None):
    st.success(md(said), icon=":material/check_circle:")

if named in infos:
    tab = collection_list.head(engine, infos[named])
    if tab == "Search":
        collection.search(engine, infos[named])
    elif tab == "Jobs":
        jobs.of_collection(engine, infos[named])
    elif tab == "Settings":
        collection.settings(engine, infos[named])
    else:
        upload.add(engine, infos[named])
        upload.offer(engine, infos[named])
        collection.documents(engine, infos[named])
else:
    if named is not None:
        st.error(f"There is no collection “{md(named)}”.", icon=":material/block:")
    st.caption("Documents, cut into chunks that are embedded in one space for life, so that they can be searched.")
    collection_list.cards(engine, list(infos.values()))
    collection_list.more(engine)
