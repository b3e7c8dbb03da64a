"""Collections: texts that are embedded in one space and can be searched. `?collection=NAME` opens one."""

from __future__ import annotations

import streamlit as st

st.title("Collections")

from pages.components import collection, collection_list, jobs, upload, widgets  # noqa: E402  # after the title, so that it is shown while these load
from pages.components.format import md  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
infos = {info.collection.name: info for info in engine.library.collections()}
named = st.query_params.get("collection")

widgets.notice()
if named in infos:
    info = infos[named]
    tab = collection_list.head(info)
    if tab == "Search":
        collection.search(engine, info)
    elif tab == "Jobs":
        jobs.of_collection(engine, info)
    elif tab == "Settings":
        collection.settings(engine, info)
    else:
        upload.add(engine, info)
        upload.offer(engine, info)
        collection.documents(engine, info)
else:
    if named is not None:
        st.error(f"There is no collection “{md(named)}”.", icon=":material/block:")
    st.caption(
        "A collection is a set of documents, cut into chunks, all embedded in one space so they can be searched."
    )
    collection_list.cards(engine, list(infos.values()))
    collection_list.more(engine)
