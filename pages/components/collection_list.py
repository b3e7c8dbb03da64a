"""Collections at a glance: the cards, the first steps where there is none, what is done to all of them, the head."""

from __future__ import annotations

import time
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
SAMPLE = "help-centre"
TABS = ("Documents", "Search", "Jobs", "Settings")
DOUBLE_CLICK_S = 1.0
"""From the first click's run to the second's, which waits for it."""


def open_collection(name: str, tab: str = "Documents") -> None:
    """Show this collection on the next run."""
    st.query_params["collection"] = name
    st.session_state["tab"] = tab


def close_collection() -> None:
    """Show all of them on the next run."""
    st.query_params.pop("collection", None)
    st.session_state.pop("tab", None)


# ---- the list ----------------------------------------------------------------------------------


def cards(host: Host, infos: list[CollectionInfo]) -> None:
    """A card for each collection; without any, one click to a first one."""
    if not infos or "sampling" in st.session_state:
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
        st.button(
            "Open", key=f"open {name}", icon=":material/arrow_forward:", type="tertiary", on_click=open_collection,
            args=(name,),
        )  # fmt: skip
    st.caption(md(" · ".join(_words(info))))
    if info.new_documents:
        st.caption(f":material/hourglass_top: {plural(info.new_documents, 'file')} read, waiting for you to confirm.")
    if info.job is not None and info.job.open:
        jobs.bar(info.job)
    spent, avoided = (used.charged + used.unconfirmed, used.avoided) if used else (0, 0)
    st.caption(md(f"Spent on it {usd(spent)}, avoided {usd(avoided)} · policy {info.collection.policy}"))


def _words(info: CollectionInfo) -> list[str]:
    """How large it is, and in which space; nothing is counted before it is confirmed."""
    active = info.active
    sizes = [plural(info.documents, "document"), plural(info.chunks, "chunk")] if info.documents else []
    return [*sizes, *([active.space, f"{active.dimensions:,} dimensions"] if active else ["In no space yet"])]


def _first(host: Host) -> None:
    if "sampling" not in st.session_state:
        st.markdown("**No collection yet.** Try it with the sample help centre: about a hundred short articles.")
        if st.button(
            "Embed the sample help centre (free, local)", type="primary", icon=":material/play_arrow:",
            **access.only_editors(),
        ):  # fmt: skip
            st.session_state["sampling"] = Task(host, lambda progress: _fill_samples(host, progress))
    task: Task[Job] | None = st.session_state.get("sampling")
    if task is not None:
        if wait_for(task, "Reading the articles"):
            del st.session_state["sampling"]
            open_collection(SAMPLE, "Jobs")
            st.rerun()
        del st.session_state["sampling"]


async def _fill_samples(host: Host, progress: Progress) -> Job:
    library = host.library
    if all(info.collection.name != SAMPLE for info in library.collections()):
        await library.create(SAMPLE, policy="local")
    await library.add_files(SAMPLE, [SAMPLES], progress=progress)
    return await library.confirm(SAMPLE)


# ---- what is done to all -----------------------------------------------------------------------


def more(host: Host) -> None:
    """A new collection, vectors that were paid for elsewhere, and a text to be rid of."""
    with st.expander("New collection", icon=":material/add:"):
        _new(host)
    with st.expander("Bring vectors that were paid for elsewhere", icon=":material/upload:"):
        _bring(host)
    with st.expander("Erase a text everywhere", icon=":material/delete_forever:"):
        _erase(host)


def _new(host: Host) -> None:
    router = host.router
    names = [policy.name for policy in router.policies.all()]
    name = st.text_input("Name", key="new name", max_chars=80)
    policy = st.selectbox(
        "Policy", names, index=names.index("default"), key="new policy",
        help="Which models it may use, and what it may cost. Its space is chosen when you confirm a quote.",
    )  # fmt: skip
    one, other = st.columns(2)
    size = one.number_input(
        "Tokens a chunk", 16, 32_768, CHUNK_TOKENS, 16, key="new size",
        help="The default fits every model in one piece, so that the space can be chosen after the quote.",
    )  # fmt: skip
    overlap = other.number_input(
        "Shared by neighbours", 0, 16_384, 0, 8, key="new overlap", help="Tokens; at most half of a chunk."
    )
    options = access.only_editors(disabled=not name.strip())
    if st.button("Create it", type="primary", icon=":material/add:", **options):
        with widgets.in_words():
            host.run(host.library.create(name.strip(), policy=policy, chunk_tokens=int(size), overlap=int(overlap)))
            open_collection(name.strip())
            st.rerun()


def _bring(host: Host) -> None:
    st.caption(
        "A .parquet or .jsonl file with `text`, `vector` and, unless you choose it here, `model`. They go into the"
        " cache after a check of their size, their numbers and their length; what is cached already stays."
    )
    upload = st.file_uploader("File of vectors", type=["parquet", "jsonl"], key="vectors file", **access.only_editors())
    model = st.selectbox(
        "Model",
        [m.id for m in host.router.catalog.models],
        index=None,
        placeholder="As the file says",
        key="vectors of",
    )
    if upload is not None and st.button("Take them", icon=":material/upload:", **access.only_editors()):
        with widgets.in_words():
            saved = host.library.upload(upload, upload.name)
            st.session_state["bringing"] = Task(host, lambda _: _take(host, saved.path, model))
    task: Task[Imported] | None = st.session_state.get("bringing")
    if task is not None and wait_for(task, "Checking") and (got := task.result) is not None:
        st.success(f"{plural(got.stored, 'vector')} taken, {got.refused:,} refused.", icon=":material/check:")
        if got.reasons:
            rows = [{"row": row, "reason": reason} for row, reason in got.reasons.items()]
            st.dataframe(rows, hide_index=True, alt="Rows that were refused, and why")


async def _take(host: Host, path: Path, model: str | None) -> Imported:
    try:
        return await host.library.import_vectors(path, model=model)
    finally:
        path.unlink()


def _erase(host: Host) -> None:
    st.caption(
        "Its chunks in all collections, its vectors in every space, its digest in the books. A chunk is erased if it is"
        " exactly this text; to be rid of the texts around it, delete its document."
    )
    text = st.text_area("The exact text", key="erase text")
    if st.button("Erase it", icon=":material/delete_forever:", **access.only_editors(disabled=not text)):
        with widgets.in_words():
            gone = host.run(host.library.erase(text))
            places = f" Its documents: {', '.join(f'{c}/{d}' for c, d in gone.chunks[:20])}." if gone.chunks else ""
            st.success(
                md(
                    f"{plural(len(gone.chunks), 'chunk')} and {plural(gone.vectors, 'vector')} erased; cleared from"
                    f" {plural(gone.requests, 'request')} in the books.{places}"
                ),
                icon=":material/check_circle:",
            )


# ---- the head of one ---------------------------------------------------------------------------


def head(host: Host, info: CollectionInfo) -> str:
    """Its name and figures, and the tab that is chosen."""
    collection = info.collection
    st.button("All collections", icon=":material/arrow_back:", on_click=close_collection)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(md(collection.name), width="content")
        if info.job is not None:
            jobs.badge(info.job)
    words = [*_words(info), f"chunks of up to {tokens(collection.chunk_tokens)}", f"policy {collection.policy}"]
    st.caption(md(" · ".join(words)))
    _go_on()
    usual = None if "tab" in st.session_state else TABS[0]
    chosen = st.segmented_control(
        "Part", TABS, default=usual, required=True, key="tab", label_visibility="collapsed", bind="query-params"
    )
    return str(chosen)


def _go_on() -> None:
    """To the tab that a button leads to; the second half of a double click on it still names the one it was on."""
    before = st.session_state.get("tab")
    if goes_to := st.session_state.pop("next tab", None):
        st.session_state["went"] = (before, goes_to, time.monotonic())
        st.session_state["tab"] = goes_to
    elif (went := st.session_state.get("went")) and before == went[0] and time.monotonic() - went[2] < DOUBLE_CLICK_S:
        st.session_state["tab"] = went[1]
