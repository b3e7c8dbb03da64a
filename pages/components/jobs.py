"""Jobs: progress, rate, cost, and the buttons that control them.

The live part is a fragment that reruns by itself while its job runs, and reads one row a second.
"""

from __future__ import annotations

import streamlit as st

from pages.components import widgets
from pages.components.format import Colour, md, plural, seconds, usd, when
from router.host import Host
from router.library import CollectionInfo
from router.store.jobs import Job

LOOKS: dict[str, tuple[str, Colour]] = {
    "queued": (":material/hourglass_top:", "gray"),
    "running": (":material/sync:", "blue"),
    "paused": (":material/pause:", "orange"),
    "waiting": (":material/schedule:", "violet"),
    "done": (":material/check:", "green"),
    "failed": (":material/block:", "red"),
    "cancelled": (":material/close:", "gray"),
}
BUSY = ("queued", "running")
EVERY_S = 1.0
WAITING_S = 15.0


def badge(job: Job) -> None:
    """A job's state as icon and word."""
    icon, colour = LOOKS[job.state]
    st.badge(job.state, icon=icon, color=colour)


def bar(job: Job, *, brief: bool = False) -> None:
    """Progress as a bar with words; `brief` leaves out the rate."""
    share = job.done / job.total if job.total else 1.0
    st.progress(min(1.0, share), text=md(words(job, brief=brief)))


def words(job: Job, *, brief: bool = False) -> str:
    """`78 of 100 texts · 12 a second · 2 s left · $0.0041 spent`."""
    parts = [f"{job.done:,} of {plural(job.total, 'text')}"]
    if job.state == "running" and job.rate > 0:
        if not brief:
            parts.append(f"{job.rate:,.0f} a second" if job.rate >= 1 else f"{60 * job.rate:,.0f} a minute")
        if job.seconds_left is not None and job.done + job.failed < job.total:
            parts.append(f"{seconds(job.seconds_left)} left")
    parts.append(f"{usd(job.spent)} spent" if job.spent or job.route != "local" else "free")
    if job.failed:
        parts.append(f"{job.failed:,} failed")
    return " · ".join(parts)


def running(host: Host, *, most: int = 3) -> None:
    """The open jobs of all collections, each with a link; refreshed while one of them runs."""
    found = host.library.list_jobs(open_only=True)
    if found:
        busy = any(job.state in BUSY for job in found)
        st.fragment(_in_short, run_every=2 * EVERY_S if busy else None)(host, busy, most)


def _in_short(host: Host, busy: bool, most: int) -> None:
    found = host.library.list_jobs(open_only=True)
    if busy and not any(job.state in BUSY for job in found):
        st.rerun()
    for job in found[:most]:
        with st.container(gap="xxsmall"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                query = {"collection": job.collection, "tab": "Jobs"}
                st.page_link("collections.py", label=f"**{md(job.collection)}**", query_params=query)
                badge(job)
            bar(job, brief=True)
    if found[most:]:
        st.caption(f"and {plural(len(found) - most, 'other job')}.")


def of_collection(host: Host, info: CollectionInfo) -> None:
    """The latest job, live, and the earlier ones."""
    found = host.library.list_jobs(info.collection.name)
    if not found:
        widgets.empty("No job yet. Add documents and confirm their quote.", ":material/hourglass_empty:")
        return
    job = found[0]
    every = EVERY_S if job.state in BUSY else WAITING_S if job.state == "waiting" else None
    st.fragment(_look, run_every=every)(host, job.id, job.state)
    if found[1:]:
        st.subheader("Earlier jobs")
        zone = host.router.policies.zone(info.collection.policy)
        rows = [
            {
                "job": job.id,
                "state": job.state,
                "model": job.model,
                "texts": f"{job.done:,} of {job.total:,}",
                "failed": job.failed,
                "spent": usd(job.spent),
                "created": when(job.created, zone),
                "ended": when(job.finished, zone) if job.finished else "–",
                "why": job.reason,
            }
            for job in found[1:]
        ]
        widgets.table(rows, "Earlier jobs of this collection")
        st.caption(f"Times in {md(zone)}.")


def _look(host: Host, number: int, before: str) -> None:
    with widgets.errors_shown():
        job = host.library.job(number)
        if job.state != before:
            st.rerun()  # the whole page, since its other parts and the refresh rate change too
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**Job {job.id}** · {md(job.model)}", width="content")
                badge(job)
                widgets.route_badge(job.route)
            bar(job)
            if job.reason:
                boxes = {"failed": st.error, "paused": st.warning, "waiting": st.warning}
                boxes.get(job.state, st.caption)(md(job.reason))
            if job.state == "waiting" and job.wake:
                zone = host.router.policies.zone(job.policy)
                st.caption(f"It resumes by itself on {md(when(job.wake, zone))} {md(zone)}, or when you resume it.")
            _buttons(host, job)
            if job.failed:
                _failures(host, job)


def _buttons(host: Host, job: Job) -> None:
    library = host.library
    actions = (
        ("Pause", "pause", job.state in (*BUSY, "waiting"), library.pause, None),
        ("Resume", "play_arrow", job.state in ("paused", "waiting"), library.resume, None),
        ("Cancel", "close", job.open, library.cancel, "Vectors already made are kept."),
        ("Retry failed", "refresh", job.failed and not job.open, library.retry, None),
    )
    with st.container(horizontal=True):
        for label, icon, shown, act, help in actions:
            # The job's number is in the key, so a late click does nothing to the next job.
            if shown and widgets.act(label, icon, key=f"job {job.id} {label}", help=help):
                widgets.run(host, act(job.id))
        if job.state == "done" and st.button("Search it", icon=":material/search:", key="job search"):
            st.session_state["next tab"] = "Search"
            st.rerun()


def _failures(host: Host, job: Job) -> None:
    with st.expander(f"{plural(job.failed, 'text')} failed"):
        failures = host.library.failures(job.id)
        rows = [{"chunk": chunk.key, "why": why, "text": chunk.text[:300]} for chunk, why in failures]
        widgets.table(rows, "Texts that could not be embedded, and why")
