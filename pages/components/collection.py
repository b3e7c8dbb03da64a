"""A collection's tabs: documents, search and settings with generations, export and deletion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from pages.components import access, download, ticks, widgets
from pages.components.background import Task, wait_for
from pages.components.format import EXPORTS, cost, estimate, md, percent, plural, size, when
from pages.components.upload import PREVIEW_HEIGHT
from router.domain.values import Refusal
from router.host import Host
from router.library import CollectionInfo
from router.search.search import SearchResult
from router.store.models import DocumentRow, Generation

PAGE = 100
STATES = {
    "adding": ("being read", "gray"), "added": ("to confirm", "orange"), "ready": ("confirmed", "green"),
    "failed": ("not read", "red"),
}  # fmt: skip


# ---- documents ---------------------------------------------------------------------------------


def documents(host: Host, info: CollectionInfo) -> None:
    """The documents; ticked ones can be previewed and deleted."""
    name = info.collection.name
    st.subheader("Documents")
    total = host.library.count_documents(name)
    if not total:
        widgets.empty("No document yet. Add some above.", ":material/description:")
        return
    pages = -(-total // PAGE)
    page = 1 if pages == 1 else int(st.number_input(f"Page (of {pages:,})", 1, pages, 1, key=f"page {name}", width=160))
    rows = {row.id: row for row in host.library.documents(name, limit=PAGE, offset=(page - 1) * PAGE)}
    zone = host.router.policies.zone(info.collection.policy)
    columns = ["document", "state", "chunks", "size", "added", *["why"] * any(row.reason for row in rows.values())]
    shown = f"documents {name} {page}"
    chosen = ticks.table(
        shown,
        {number: _document(row, zone) for number, row in rows.items()},
        gone="no longer there: it was deleted or replaced elsewhere",
        column_order=columns,
        column_config={"document": {"width": "medium"}, "state": widgets.words_column(dict(STATES.values()))},
        alt="The documents of this collection",
    )
    st.caption(f"Times in {md(zone)}. Tick a row to see its chunks, or several to delete them.")
    ticked = [rows[number] for number in chosen]
    if len(ticked) == 1:
        _preview(host, ticked[0])
    # The key is of these documents; see spend_report.unconfirmed.
    if ticked and widgets.act(md(f"Delete {_documents(ticked)}"), "delete", key=ticks.key("delete", chosen)):
        _ask_to_delete(host, name, ticked, shown)


def _document(row: DocumentRow, zone: str) -> dict[str, Any]:
    return {
        "document": row.name,
        "state": [STATES[row.state][0]],
        "chunks": row.chunks,
        "size": size(row.bytes),
        "added": when(row.added, zone),
        "why": row.reason,
    }


def _documents(rows: Sequence[DocumentRow]) -> str:
    """`2 documents, 31 chunks`."""
    return f"{plural(len(rows), 'document')}, {plural(sum(row.chunks for row in rows), 'chunk')}"


def _preview(host: Host, row: DocumentRow) -> None:
    st.markdown(f"**Chunks of {md(row.name)}**")
    with st.container(border=True, height=PREVIEW_HEIGHT):
        for chunk in host.library.chunks(row.id):
            st.caption(f"{chunk.position + 1} · {chunk.tokens:,} tokens{' · nearly empty' * chunk.near_empty}")
            st.text(chunk.text)
        if row.chunks > 20:
            st.caption("The first twenty are shown.")


def _ask_to_delete(host: Host, name: str, rows: Sequence[DocumentRow], shown: str) -> None:
    """Ask before documents are deleted."""
    key = ticks.key(f"vectors of documents {name}", [row.id for row in rows])

    def delete() -> str:
        vectors = bool(st.session_state.get(key))
        ticks.clear(shown)
        gone = host.run(host.library.delete_documents(name, [row.id for row in rows], vectors=vectors))
        said = f"{plural(gone, 'document')} deleted."
        if late := len(rows) - gone:
            said += f" {plural(late, 'document')} had been deleted or replaced elsewhere."
        return said

    what, items = f"{_documents(rows)} of **{md(name)}**:", [md(row.name) for row in rows]
    yes = f"Delete {plural(len(rows), 'document')}"
    widgets.ask(what, items, yes, delete, icon=":material/delete:", more=lambda: _vectors_too(key))


def _vectors_too(key: str) -> bool:
    help = "Otherwise the cache keeps them, and the same texts cost nothing if they are added again."
    return st.checkbox("Also their vectors, where no other document needs them", key=key, help=help)


# ---- search ------------------------------------------------------------------------------------


def search(host: Host, info: CollectionInfo) -> None:
    """The nearest chunks by exact cosine."""
    if info.active is None:
        words = "Nothing is embedded yet, so there is nothing to search. Confirm a quote first."
        widgets.empty(words, ":material/search_off:")
        if st.button("Documents and quote", icon=":material/description:"):
            st.session_state["next tab"] = "Documents"
            st.rerun()
        return
    name = info.collection.name
    with st.form(f"search {name}", border=False):
        first, second, third = st.columns([7, 2, 1.5], vertical_alignment="bottom")
        query = first.text_input("Look for", key=f"query {name}", placeholder="How do I cancel an invoice?")
        k = second.number_input("Results", 1, 100, 10, key=f"k {name}")
        options = {"type": "primary", "icon": ":material/search:", "width": "stretch"}
        submitted = third.form_submit_button("Search", **options, **access.only_editors())
    if submitted and query.strip():
        st.session_state[f"search task {name}"] = Task(host, lambda _: host.library.search(name, query, k=int(k)))
    task: Task[SearchResult] | None = st.session_state.get(f"search task {name}")
    if task is None:
        model = host.router.catalog.get(info.active.model)
        price = "free" if model.local else "at most a few thousandths of a cent, or free if it is cached"
        st.caption(f"The query is embedded by {md(info.active.model)}: {price}.")
    elif (found := wait_for(task, "Searching")) is not None:
        _hits(found)


def _hits(found: SearchResult) -> None:
    price = cost(found.cost, found.unconfirmed)
    missing = f" {plural(found.missing, 'text')} without a vector yet: not searched." if found.missing else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        widgets.route_badge(found.route)
        compared = f"{plural(found.searched, 'text')} compared in {found.space} · query: {price}.{missing}"
        st.caption(md(f"{compared} Scores are cosines; 1 is the same direction."))
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
    """Policy, generations, export and deletion."""
    name = info.collection.name
    now = info.collection.policy
    policy = widgets.policy_box(
        host.router, begin=now, key=f"policy of {name}", width=320, help="Pays from now on. The space stays the same."
    )
    if policy and policy != now and widgets.act("Save the policy", "save"):
        said = f"Saved: {policy} pays for {name} from now on."
        widgets.run(host, host.library.set_policy(name, policy), notice=said)
    st.subheader(
        "Generations",
        help="A generation is one model's vectors for all texts. One is searched; another can be built beside it, and"
        " replaces it once complete.",
    )
    if info.active is None:
        widgets.empty("No space yet. The first quote that you confirm sets it.", ":material/layers:")
    else:
        for generation in info.generations:
            _generation(host, name, generation)
        total, done = host.run(host.library.coverage(name))
        st.caption(f"{done:,} of {plural(total, 'text')} can be searched ({percent(done / total if total else 1.0)}).")
        _improve(host, info)
        if done:
            st.subheader("Export")
            st.caption("Every embedded chunk with its vector, document and text. The file's metadata names the space.")
            with st.container(horizontal=True):
                for word, ending in EXPORTS.items():
                    st.link_button(word, download.link(name, ending), icon=":material/download:")
    st.subheader("Delete")
    with st.popover("Delete the collection", icon=":material/delete:"):
        st.markdown(f"Delete **{md(name)}** with its {plural(info.documents, 'document')}? Its jobs are cancelled.")
        vectors = _vectors_too(f"vectors of {name}")
        if widgets.act("Delete permanently", type="primary", key=f"delete {info.collection.id}"):
            said = f"Deleted: {name}. Its past spending is kept."
            gone = host.library.delete(name, vectors=vectors)
            widgets.run(host, gone, notice=said, then=lambda _: st.query_params.pop("collection", None))


def _generation(host: Host, name: str, generation: Generation) -> None:
    looks = {"active": ("searched", "green"), "building": ("being built", "blue"), "former": ("former", "gray")}
    word, colour = looks[generation.state]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(md(f"{generation.model}, {generation.dimensions:,} dimensions"), width="content")
        st.badge(word, color=colour)
        number, help = generation.id, "Even if texts are missing."
        if generation.state == "building" and widgets.act("Search it now", key=f"switch {number}", help=help):
            widgets.run(host, host.library.switch(name))
        help = "Its vectors stay in the cache."
        if generation.state != "active" and widgets.act("Drop", key=f"drop {number}", help=help):
            widgets.run(host, host.library.drop(number))


def _improve(host: Host, info: CollectionInfo) -> None:
    """Re-embed in another space beside the one that is searched."""
    assert info.active is not None
    name = info.collection.name
    if any(g.state == "building" for g in info.generations):
        return
    with st.expander("Re-embed in another space", icon=":material/upgrade:"):
        st.caption("The current vectors are searched until the new ones are complete; then search switches at once.")
        now = (info.active.model, info.active.space)
        model = widgets.model_box(host.router, placeholder="Choose a model", without=now, key=f"improve {name}")
        if model is None:
            return
        with widgets.errors_shown():
            quote = host.run(host.library.quote(name, model=model, anew=True))
            line = next(c for c in quote.candidates if c.model.id == model)
            if isinstance(quote.outcome, Refusal):
                hint = f"{quote.outcome.hint} The policy that pays is chosen above."
                widgets.show_refusal(quote.outcome.reason, hint)
                return
            if line.warning:
                st.warning(md(line.warning), icon=":material/warning:")
            route, price = None, estimate(line.now_expected, line.now_cost)
            if line.batch_cost is not None:
                route, price = "batch", f"{estimate(line.batch_expected, line.batch_cost)}, within a day"
            label = f"Re-embed {plural(quote.distinct, 'text')}: {price}"
            if widgets.act(md(label), "upgrade", type="primary"):
                widgets.run(host, host.library.improve(name, model, route=route), tab="Jobs")
