"""All collections: cards, the first one, actions on all; and the header of an open one."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import streamlit as st

from pages.components import access, jobs, widgets
from pages.components.background import Progress, Task, wait_for
from pages.components.format import md, plural, tokens, usd
from router.host import Host
from router.ingest.imports import Imported
from router.library import CHUNK_TOKENS, CollectionInfo
from router.reporting import figures
from router.store.jobs import Job
from router.store.usage import Slice

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "help-centre"
SAMPLE = SAMPLES.name
TABS = ("Documents", "Search", "Jobs", "Settings")
DOUBLE_CLICK_S = 1.0
"""The longest time between the runs of a double click's two halves."""


def open_collection(name: str, tab: str = "Documents") -> None:
    """Show this collection on the next run."""
    st.query_params["collection"] = name
    st.session_state["tab"] = tab


def close_collection() -> None:
    """Show all of them on the next run."""
    st.query_params.pop("collection", None)
    st.session_state.pop("tab", None)


def cards(host: Host, infos: list[CollectionInfo]) -> None:
    """A card for each collection; if there is none, a button that makes the sample collection."""
    if not infos or "sample task" in st.session_state:
        _first(host)
    router = host.router
    used = figures.groups(router.usage, since=0, until=router.clock() + 1, by="collection")
    for info, place in widgets.cards(infos):
        with place:
            _card(info, used.get(info.collection.name))


def _card(info: CollectionInfo, used: Slice | None) -> None:
    name = info.collection.name
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{md(name)}**", width="content")
        if info.job is not None:
            jobs.badge(info.job)
        st.space("stretch")
        show = partial(open_collection, name)
        st.button("Open", key=f"open {name}", icon=":material/arrow_forward:", type="tertiary", on_click=show)
    st.caption(_words(info))
    if info.new_documents:
        new = plural(info.new_documents, "file")
        st.caption(f":material/hourglass_top: {new} read, waiting for your confirmation.")
    if info.job is not None and info.job.open:
        jobs.bar(info.job)
    spent, saved = (used.charged + used.unconfirmed, used.saved) if used else (0, 0)
    st.caption(md(f"Spent {usd(spent)}, saved {usd(saved)} · policy {info.collection.policy}"))


def _words(info: CollectionInfo, *more: str) -> str:
    """Its size and space, as Markdown; unconfirmed documents are not counted."""
    active = info.active
    sizes = [plural(info.documents, "document"), plural(info.chunks, "chunk")] if info.documents else []
    space = [active.space, f"{active.dimensions:,} dimensions"] if active else ["No space yet"]
    return md(" · ".join([*sizes, *space, *more]))


def _first(host: Host) -> None:
    if "sample task" not in st.session_state:
        st.markdown("**No collection yet.** Try it with the sample help centre: about a hundred short articles.")
        if widgets.act("Embed the sample help centre (free, local)", "play_arrow", type="primary"):
            st.session_state["sample task"] = Task(host, lambda progress: _fill_samples(host, progress))
    job = wait_for(st.session_state.get("sample task"), "Reading the articles")
    st.session_state.pop("sample task", None)
    if job is not None:
        open_collection(SAMPLE, "Jobs")
        st.rerun()


async def _fill_samples(host: Host, progress: Progress) -> Job:
    library = host.library
    if all(info.collection.name != SAMPLE for info in library.collections()):
        await library.create(SAMPLE, policy="local")
    await library.add_files(SAMPLE, [SAMPLES], progress=progress)
    return await library.confirm(SAMPLE)


def more(host: Host) -> None:
    """Create a collection, import vectors, erase a text."""
    for label, icon, draw in (
        ("New collection", "add", _new),
        ("Import vectors", "upload", _import),
        ("Erase a text everywhere", "delete_forever", _erase),
    ):
        with st.expander(label, icon=f":material/{icon}:"):
            draw(host)


def _new(host: Host) -> None:
    name = st.text_input("Name", key="new name", max_chars=80)
    help = "Says which models it may use and what it may cost. The space is set when you confirm a quote."
    policy = widgets.policy_box(host.router, key="new policy", help=help)
    one, other = st.columns(2)
    help = "Chunks of the default size fit every model, so the space can be chosen after the quote."
    size = one.number_input("Tokens a chunk", 16, 32_768, CHUNK_TOKENS, 16, key="new size", help=help)
    help = "Tokens shared by neighbouring chunks; at most half of a chunk."
    overlap = other.number_input("Overlap", 0, 16_384, 0, 8, key="new overlap", help=help)
    if widgets.act("Create", "add", type="primary", disabled=not name.strip()):
        made = host.library.create(name.strip(), policy=policy, chunk_tokens=int(size), overlap=int(overlap))
        widgets.run(host, made, then=lambda _: open_collection(name.strip()))


def _import(host: Host) -> None:
    st.caption(
        "Vectors that were made elsewhere: a .parquet or .jsonl file with `text`, `vector` and, unless you choose it"
        " here, `model`. They are checked and added to the cache; vectors already cached are kept."
    )
    upload = st.file_uploader("File of vectors", type=["parquet", "jsonl"], key="vectors file", **access.only_editors())
    model = widgets.model_box(host.router, placeholder="As the file says", key="vectors of")
    if upload is not None and widgets.act("Import", "upload"):
        with widgets.errors_shown():
            saved = host.library.upload(upload, upload.name)
            st.session_state["import task"] = Task(host, lambda _: _import_file(host, saved.path, model))
    task: Task[Imported] | None = st.session_state.get("import task")
    if (got := wait_for(task, "Checking")) is not None:
        st.success(f"{plural(got.stored, 'vector')} imported, {got.refused:,} refused.", icon=":material/check:")
        if got.reasons:
            rows = [{"row": row, "reason": reason} for row, reason in got.reasons.items()]
            widgets.table(rows, "Rows that were refused, and why")


async def _import_file(host: Host, path: Path, model: str | None) -> Imported:
    try:
        return await host.library.import_vectors(path, model=model)
    finally:
        path.unlink()


def _erase(host: Host) -> None:
    st.caption(
        "Erases its chunks in all collections, its vectors in every space and its digest in the usage records. A chunk"
        " is erased if it is exactly this text; to remove the text around it, delete its document."
    )
    text = st.text_area("The exact text", key="erase text")
    if widgets.act("Erase", "delete_forever", disabled=not text):
        with widgets.errors_shown():
            gone = host.run(host.library.erase(text))
            places = f" Documents: {', '.join(f'{c}/{d}' for c, d in gone.chunks[:20])}." if gone.chunks else ""
            said = f"{plural(len(gone.chunks), 'chunk')} and {plural(gone.vectors, 'vector')} erased."
            said += f" Cleared from {plural(gone.requests, 'recorded request')}.{places}"
            st.success(md(said), icon=":material/check_circle:")


def head(info: CollectionInfo) -> str:
    """Its name and figures; returns the chosen tab."""
    collection = info.collection
    st.button("All collections", icon=":material/arrow_back:", on_click=close_collection)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(md(collection.name), width="content")
        if info.job is not None:
            jobs.badge(info.job)
    st.caption(_words(info, f"chunks of up to {tokens(collection.chunk_tokens)}", f"policy {collection.policy}"))
    _follow_link()
    usual = None if "tab" in st.session_state else TABS[0]
    chosen = st.segmented_control(
        "Part", TABS, default=usual, required=True, key="tab", label_visibility="collapsed", bind="query-params"
    )
    return str(chosen)


def _follow_link() -> None:
    """Open the tab that a button leads to. The second half of a double click on it must not lead back."""
    before = st.session_state.get("tab")
    if target := st.session_state.pop("next tab", None):
        st.session_state["tab link"] = (before, target, time.monotonic())
        st.session_state["tab"] = target
        return
    source, target, at = st.session_state.get("tab link", ("", "", 0.0))
    if target and before == source and time.monotonic() - at < DOUBLE_CLICK_S:
        st.session_state["tab"] = target
