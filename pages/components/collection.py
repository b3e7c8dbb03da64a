"""What a collection is used for: its documents, search, export, other generations, and taking things away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from pages.components import access, download, ticks, widgets
from pages.components.background import Task, wait_for
from pages.components.format import charged, estimate, md, percent, plural, size, when
from router.domain.values import Refusal
from router.host import Host
from router.library import CollectionInfo
from router.search.search import Found
from router.store.models import DocumentRow, Generation

PAGE = 100
PREVIEW_HEIGHT = 380
"""Pixels; what is longer scrolls."""
NAMED = 8
"""Documents that are named before they are deleted; the others are counted."""
FORMATS = {"Parquet": ".parquet", "NPZ": ".npz", "JSON lines": ".jsonl"}
STATES = {"adding": "being read", "added": "to confirm", "ready": "confirmed", "failed": "not read"}


# ---- documents ---------------------------------------------------------------------------------


def documents(host: Host, info: CollectionInfo) -> None:
    """The documents; picked ones can be looked into and deleted."""
    name = info.collection.name
    st.subheader("Documents")
    total = sum(host.library.corpora.counts(info.collection.id, ("ready", "added", "adding", "failed"))[:1])
    if not total:
        widgets.empty("No document yet. Add some above.", ":material/description:")
        return
    pages = -(-total // PAGE)
    page = 1 if pages == 1 else int(st.number_input(f"Page, of {pages:,}", 1, pages, 1, key=f"page {name}", width=160))
    rows = {row.id: row for row in host.library.documents(name, limit=PAGE, offset=(page - 1) * PAGE)}
    zone = host.router.policies.zone(info.collection.policy)
    columns = ["document", "state", "chunks", "size", "added", *["why"] * any(row.reason for row in rows.values())]
    shown = f"documents {name} {page}"
    chosen = ticks.table(
        shown,
        {number: _document(row, zone) for number, row in rows.items()},
        gone="no longer there: it was deleted or replaced elsewhere",
        column_order=columns,
        column_config={
            "document": st.column_config.TextColumn("document", width="medium"),
            "state": st.column_config.MultiselectColumn(
                "state", options=list(STATES.values()), color=["gray", "orange", "green", "red"]
            ),
        },
        alt="The documents of this collection",
    )
    st.caption(f"Times in {md(zone)}. Tick rows to look into them or to delete them.")
    ticked = [rows[number] for number in chosen]
    if len(ticked) == 1:
        _look_into(host, ticked[0])
    # Of these documents and no others; see spending.unconfirmed.
    if ticked and st.button(
        md(f"Delete {_documents(ticked)}"), icon=":material/delete:", key=ticks.key("delete", chosen),
        **access.only_editors(),
    ):  # fmt: skip
        _ask_to_delete(host, name, ticked, shown)


def _document(row: DocumentRow, zone: str) -> dict[str, Any]:
    return {
        "document": row.name,
        "state": [STATES[row.state]],
        "chunks": row.chunks,
        "size": size(row.bytes),
        "added": when(row.added, zone),
        "why": row.reason,
    }


def _documents(rows: Sequence[DocumentRow]) -> str:
    """How many, and how much: `2 documents, 31 chunks`."""
    return f"{plural(len(rows), 'document')}, {plural(sum(row.chunks for row in rows), 'chunk')}"


def _look_into(host: Host, row: DocumentRow) -> None:
    st.markdown(f"**Chunks of {md(row.name)}**")
    with st.container(border=True, height=PREVIEW_HEIGHT):
        for chunk in host.library.chunks(row.id):
            st.caption(f"{chunk.position + 1} · {chunk.tokens:,} tokens{' · nearly empty' * chunk.near_empty}")
            st.text(chunk.text)
        if row.chunks > 20:
            st.caption("The first twenty are shown.")


def _ask_to_delete(host: Host, name: str, rows: Sequence[DocumentRow], shown: str) -> None:
    """Name the documents, and delete them where the answer is yes."""
    key = ticks.key(f"vectors of documents {name}", [row.id for row in rows])
    listed = [f"- {md(row.name)}" for row in rows[:NAMED]] + [f"- and {len(rows) - NAMED:,} more"] * (len(rows) > NAMED)
    words = "\n".join([f"{_documents(rows)} of **{md(name)}**:", "", *listed, "", "This cannot be taken back."])

    def delete() -> str:
        vectors = bool(st.session_state.get(key))
        ticks.clear(shown)
        gone = host.run(host.library.delete_documents(name, [row.id for row in rows], vectors=vectors))
        said = f"{plural(gone, 'document')} deleted."
        if late := len(rows) - gone:
            said += f" {plural(late, 'document')} had been deleted or replaced elsewhere."
        return said

    title = f"Delete {plural(len(rows), 'document')}"
    widgets.ask(f"{title}?", words, title, delete, icon=":material/delete:", more=lambda: _vectors_too(key))


def _vectors_too(key: str) -> bool:
    return st.checkbox(
        "Their vectors too, where no other document needs them", key=key,
        help="Otherwise the cache keeps them, and the same text costs nothing when it comes back.",
    )  # fmt: skip


# ---- search ------------------------------------------------------------------------------------


def search(host: Host, info: CollectionInfo) -> None:
    """The nearest chunks, by exact cosine."""
    if info.active is None:
        widgets.empty(
            "Nothing is embedded yet, so nothing can be found. Confirm a quote first.", ":material/search_off:"
        )
        if st.button("To the documents and their quote", icon=":material/description:"):
            st.session_state["next tab"] = "Documents"
            st.rerun()
        return
    name = info.collection.name
    with st.form(f"search {name}", border=False):
        first, second, third = st.columns(
            [7, 2, 1.5], vertical_alignment="bottom"
        )  # below one another where it is narrow
        query = first.text_input("Look for", key=f"query {name}", placeholder="How do I cancel an invoice?")
        k = second.number_input("Results", 1, 100, 10, key=f"k {name}")
        asked = third.form_submit_button(
            "Search", type="primary", icon=":material/search:", width="stretch", **access.only_editors()
        )
    if asked and query.strip():
        st.session_state[f"found {name}"] = Task(host, lambda _: host.library.search(name, query, k=int(k)))
    task: Task[Found] | None = st.session_state.get(f"found {name}")
    if task is None:
        model = host.router.catalog.get(info.active.model)
        price = "free" if model.local else "a few thousandths of a cent at most, unless it was asked before"
        st.caption(f"The query is embedded by {md(info.active.model)}: {price}.")
    elif wait_for(task, "Searching") and (found := task.result) is not None:
        _hits(found)


def _hits(found: Found) -> None:
    cost = "free" if not found.cost + found.unconfirmed else charged(found.cost, found.unconfirmed)
    missing = f" {plural(found.missing, 'text')} had no vector yet and could not be found." if found.missing else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        widgets.route_badge(found.route)
        st.caption(
            md(
                f"{plural(found.searched, 'text')} compared in {found.space} · query {cost}.{missing} The figure is the"
                " cosine: 1 is the same direction."
            )
        )
    if not found.hits:
        widgets.empty("Nothing was found.", ":material/search_off:")
    for hit in found.hits:
        with st.container(border=True, gap="xsmall"):
            more = f" · {hit.copies:,} places" if hit.copies > 1 else ""
            st.markdown(f"**{hit.score:.3f}** · {md(hit.chunk.key)}{more}")
            text = " ".join(hit.chunk.text.split())
            st.text(text if len(text) <= 400 else f"{text[:400]}…")


# ---- settings ----------------------------------------------------------------------------------


def settings(host: Host, info: CollectionInfo) -> None:
    """Its policy, its generations, export, and the end of it."""
    name = info.collection.name
    names = [policy.name for policy in host.router.policies.all()]
    now = info.collection.policy
    policy = st.selectbox(
        "Policy", names, index=names.index(now) if now in names else None, key=f"policy of {name}", width=320,
        help="Who pays from now on. The space stays.",
    )  # fmt: skip
    if policy and policy != now and st.button("Save the policy", icon=":material/save:", **access.only_editors()):
        with widgets.in_words():
            host.run(host.library.set_policy(name, policy))
            st.session_state["said"] = f"Saved: {policy} pays for {name} from now on."
            st.rerun()
    st.subheader(
        "Generations",
        help="The vectors of one model for all texts. One generation is searched; another can be made beside it, and"
        " takes its place once it is complete.",
    )
    if info.active is None:
        widgets.empty("It is in no space yet.", ":material/layers:")
    else:
        for generation in info.generations:
            _generation(host, name, generation)
        total, done = host.run(host.library.coverage(name))
        st.caption(f"{done:,} of {plural(total, 'text')} can be searched ({percent(done / total if total else 1.0)}).")
        _improve(host, info)
        if done:
            _export(info)
    st.subheader("Delete")
    with st.popover("Delete the collection", icon=":material/delete:"):
        st.markdown(f"Delete **{md(name)}** with its {plural(info.documents, 'document')}? Its jobs end.")
        vectors = _vectors_too(f"vectors of {name}")
        if st.button("Delete it for good", type="primary", key=f"delete {info.collection.id}", **access.only_editors()):
            with widgets.in_words():
                host.run(host.library.delete(name, vectors=vectors))
                st.query_params.pop("collection", None)
                st.session_state["said"] = f"Deleted: {name}. What it cost stays in the books."
                st.rerun()


def _generation(host: Host, name: str, generation: Generation) -> None:
    looks = {"active": ("searched", "green"), "building": ("being made", "blue"), "former": ("former", "gray")}
    word, colour = looks[generation.state]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(md(f"{generation.model}, {generation.dimensions:,} dimensions"), width="content")
        st.badge(word, color=colour)
        if generation.state == "building" and st.button(
            "Search it now", key=f"switch {generation.id}", **access.only_editors(help="Even if texts are missing.")
        ):
            with widgets.in_words():
                host.run(host.library.switch(name))
                st.rerun()
        if generation.state != "active" and st.button(
            "Drop", key=f"drop {generation.id}", **access.only_editors(help="Its vectors stay in the cache.")
        ):
            with widgets.in_words():
                host.run(host.library.drop(generation.id))
                st.rerun()


def _improve(host: Host, info: CollectionInfo) -> None:
    """Another space beside the one that is searched."""
    assert info.active is not None
    name = info.collection.name
    if any(g.state == "building" for g in info.generations):
        return
    with st.expander("Re-embed in another space", icon=":material/upgrade:"):
        st.caption("It is searched as it is until the new vectors are complete, then it switches in one step.")
        now = (info.active.model, info.active.space)
        others = [m.id for m in host.router.catalog.models if (m.id, m.space) != now]
        model = st.selectbox("Model", others, index=None, placeholder="Choose a model", key=f"improve {name}")
        if model is None:
            return
        with widgets.in_words():
            quote = host.run(host.library.quote(name, model=model, anew=True))
            line = next(c for c in quote.candidates if c.model.id == model)
            if isinstance(quote.outcome, Refusal):
                hint = f"{quote.outcome.hint} Which policy pays is chosen above."
                st.error(f"{md(quote.outcome.reason)} {md(hint)}", icon=":material/block:")
                return
            if line.warning:
                st.warning(md(line.warning), icon=":material/warning:")
            batch = line.batch_cost is not None
            price = estimate(line.now_expected, line.now_cost)
            if batch:
                price = f"{estimate(line.batch_expected, line.batch_cost)}, within a day"
            label = f"Re-embed {plural(quote.distinct, 'text')}: {price}"
            route: Any = "batch" if batch else None
            if st.button(md(label), type="primary", icon=":material/upgrade:", **access.only_editors()):
                host.run(host.library.improve(name, model, route=route))
                st.session_state["next tab"] = "Jobs"
                st.rerun()


def _export(info: CollectionInfo) -> None:
    st.subheader("Export")
    st.caption("Every embedded chunk with its vector, its document and its text; the space is in the file's metadata.")
    with st.container(horizontal=True):
        for word, ending in FORMATS.items():
            st.link_button(word, download.link(info.collection.name, ending), icon=":material/download:")
