"""Adding documents in three steps on one page: files with a verdict on each, the quote, the confirmation.

An upload is written to the data folder before it is read, and deleted afterwards. Documents that are not confirmed yet
are kept in the collection, so a closed tab loses nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from pages.components import access, bars, tables, ticks, widgets
from pages.components.background import Task, kept, wait_for
from pages.components.columns import chooser
from pages.components.format import PER, count, estimate, exact_usd, md, plural, seconds, tokens, unbroken, usd, when
from router.domain.values import Refusal
from router.host import Host
from router.ingest.extract import UPLOADS
from router.ingest.file_report import FileReport
from router.jobs.estimate import CorpusEstimate
from router.jobs.quote import CorpusCandidate, CorpusQuote
from router.library import CollectionInfo

PREVIEW_HEIGHT = 380
"""In pixels; longer previews scroll."""
VERDICTS = {"added": ("read", "green"), "unchanged": ("unchanged", "gray"), "failed": ("not read", "red")}
TIERS = {"as the policy says": None, "now": "api", "within a day, at the batch price": "batch"}


def add(host: Host, info: CollectionInfo) -> None:
    """Step one: choose files, read them, and show a verdict on each."""
    name = info.collection.name
    task: Task[list[FileReport]] | None = st.session_state.get(f"reading {name}")
    if task is not None and not task.future.done():
        wait_for(task, "Reading", lambda: _estimate(st.session_state[f"estimate {name}"], info))
        st.rerun()
    empty = not info.documents and not info.new_documents
    with st.expander("Add documents", icon=":material/upload_file:", expanded=empty):
        turn = st.session_state.setdefault(f"turn {name}", 0)
        folder = st.toggle("A whole folder", key=f"folder {name} {turn}")
        uploads = st.file_uploader(
            "Folder" if folder else "Files", type=list(UPLOADS), key=f"files {name} {turn}{' folder' * folder}",
            accept_multiple_files="directory" if folder else True,
            **access.only_editors(help="Several at once, or a zip. Nothing is spent before you confirm."),
        )  # fmt: skip
        lines = any(upload.name.lower().endswith(".txt") for upload in uploads) and st.toggle(
            ".txt files hold a text a line", key=f"lines {name}", help="Otherwise each file is one document."
        )
        chosen = [chooser(upload) for upload in uploads]
        if uploads and widgets.act(f"Read {plural(len(uploads), 'file')}", "file_open", type="primary"):
            with widgets.errors_shown():
                names = [upload.name for upload in uploads]
                paths = _relative(names) if folder else names
                saved = [host.library.upload(up, path) for up, path in zip(uploads, paths, strict=True)]
                columns = {str(one.path): of for one, of in zip(saved, chosen, strict=True)}
                st.session_state[f"turn {name}"] += 1  # a new, empty uploader, which frees the memory of these
                found: list[CorpusEstimate | str] = []
                st.session_state[f"estimate {name}"] = found
                read = partial(
                    host.library.add_files, name, saved, columns=columns, txt_lines=lines, estimated=found.append
                )
                st.session_state[f"reading {name}"] = Task(host, lambda progress: read(progress=progress))
                st.rerun()
    if (reports := wait_for(task, "Reading")) is not None:
        _verdicts(reports, host.router.policies.zone(info.collection.policy))


def _estimate(found: list[CorpusEstimate | str], info: CollectionInfo) -> bool:
    """The cost of the files being read, estimated from a sample; False while there is none yet."""
    if not found:
        return False
    (one,) = found
    if isinstance(one, str):
        st.caption(md(one))
        return True
    st.markdown(f":gray-badge[estimate] {md(one.words.removeprefix('estimate, '))}\\. The exact quote follows\\.")
    space = info.active.space if info.active else None
    shown = [c for c in one.candidates if space in (None, c.likely.model.space)]
    widgets.candidates(tables.estimated(shown), alt="The likely cost of each model, estimated from a sample")
    st.caption(md(" ".join(one.notes)))
    return True


def _relative(names: list[str]) -> list[str]:
    """The paths of an uploaded folder's files, without the folder itself."""
    parts = [name.split("/") for name in names]
    one_folder = all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1
    return ["/".join(part[1:]) for part in parts] if one_folder else names


def _verdicts(reports: list[FileReport], zone: str) -> None:
    rows = [
        {
            "file": report.name,
            "verdict": [VERDICTS[report.state][0]],
            "chunks": report.chunks,
            "rows skipped": report.skipped,
            "why": " ".join(filter(None, [report.reason, _replaces(report, zone), *report.notes])),
        }
        for report in sorted(reports, key=lambda r: r.state != "failed")
    ]
    columns = ["file", "verdict", "chunks", *["rows skipped"] * any(row["rows skipped"] for row in rows), "why"]
    good = sum(report.state != "failed" for report in reports)
    st.caption(f"{good:,} of {plural(len(reports), 'file')} could be read.")
    config = {"verdict": widgets.words_column(dict(VERDICTS.values())), "why": widgets.WIDE}
    widgets.table(rows, "The result for each file", config, column_order=columns)
    skipped = [{"file": report.name, "why": why} for report in reports for why in report.reasons]
    if len(skipped) > 1:
        with st.expander(f"The first {plural(len(skipped), 'skipped row')}"):
            widgets.table(skipped, "Rows that were skipped, and why", config)


def _replaces(report: FileReport, zone: str) -> str:
    old = report.replaces
    if old is None:
        return ""
    what = f"{report.name} of {old.source}" if report.from_elsewhere else f"the version of {when(old.added, zone)}"
    return f"Replaces {what}; {old.new:,} of {plural(old.texts, 'text')} {'is' if old.new == 1 else 'are'} new."


def offer(host: Host, info: CollectionInfo) -> None:
    """Steps two and three: the quote for each model, and the button that starts the job."""
    if not info.new_documents and (info.active is not None or not info.documents):
        return
    st.subheader("Before anything is spent")
    model = None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if info.active is None:
            model = widgets.model_box(host.router, key="order model")
        help = "Batches cost half, if the provider has a batch tier."
        route = TIERS[st.selectbox("When", list(TIERS), key="order when", help=help)]
        queries = st.number_input("Queries a month", 0, value=1_000, step=1_000, key="order queries")
    quote = _quote(host, info, model, int(queries))
    if quote is None:
        return
    _sums(quote)
    chosen = quote.chosen
    if isinstance(quote.outcome, Refusal):
        widgets.show_refusal(quote.outcome.reason, quote.outcome.hint)
    else:
        st.text(unbroken(quote.decision))
    shown, pinned = quote.candidates, ""
    if info.active is not None:
        shown = tuple(c for c in quote.candidates if c.model.space == info.active.space)
        pinned = f" The collection is pinned to the space {md(info.active.space)}; other models cannot serve it."
    widgets.candidates(tables.corpus(shown), alt="The models that could embed this collection, with their cost")
    st.caption(
        f"Costs exclude cached texts. A year adds {plural(int(queries), 'query', 'queries')} a month."
        f" {widgets.quality_note(host.router.catalog)}{pinned}"
    )
    if chosen is not None:
        _effect(quote, chosen)
        if chosen.warning:
            st.warning(md(chosen.warning), icon=":material/warning:")
    with st.expander("See the first chunks"), st.container(border=False, height=PREVIEW_HEIGHT):
        for chunk in quote.preview[:6]:
            st.caption(md(f"{chunk.key} · {tokens(chunk.tokens)}"))
            st.text(chunk.text)
    _confirm(host, info, quote, model, route)


def _quote(host: Host, info: CollectionInfo, model: str | None, queries: int) -> CorpusQuote | None:
    """The quote, computed again when anything that it depends on has changed."""
    router, name = host.router, info.collection.name
    state = (
        name, model, queries, info.documents, info.chunks, info.new_documents, info.job, router.totals(),
        router.policies.get(info.collection.policy), router.policies.paid_enabled(),
        tuple(router.configured(m) for m in router.catalog.models),
    )  # fmt: skip

    def compute() -> CorpusQuote | None:
        task = Task(host, lambda _: host.library.quote(name, model=model, queries_a_month=queries))
        return wait_for(task, "Computing the quote")

    return kept("quote", state, compute)


def _sums(quote: CorpusQuote) -> None:
    left_out = [plural(quote.duplicates, "exact duplicate")] * bool(quote.duplicates)
    left_out += [f"{quote.near_empty:,} nearly empty"] * bool(quote.near_empty)
    less = f", less {' and '.join(left_out)}" if left_out else ""
    new = f" ({quote.new_documents:,} new)" if quote.new_documents else ""
    needed = next((c.verdict.expected_tokens for c in quote.candidates if c.verdict.chosen), None)
    size = "" if needed is None else f", {count(needed)} tokens to embed"
    chunks = f"{plural(quote.documents, 'document')}{new}, {plural(quote.chunks, 'chunk')}{less}"
    st.markdown(md(f"{chunks}: {plural(quote.distinct, 'text')}{size}."))


def _effect(quote: CorpusQuote, chosen: CorpusCandidate) -> None:
    """How much of each budget would be left."""
    cost = chosen.verdict.cost or 0
    for one in quote.budgets:
        name, amount, left_after = one.owner.removeprefix("policy/"), one.budget.amount, max(0, one.left - cost)
        fits = "" if cost <= one.left or not one.budget.hard else " · **too small**"
        likely, least = usd(one.left - (chosen.verdict.expected or 0)), usd(left_after)
        after = least if likely == least else f"likely {likely}, at least {least}"
        with st.container(gap="xxsmall"):
            left = f"{usd(one.left)} left of {usd(amount)} {PER[one.budget.window]}, {after} after it"
            st.caption(f"**{md(name)}** · {md(left)}{fits}")
            share = 1 - left_after / amount if amount else 1.0
            st.html(bars.gauge(share, f"{name}: {least} left after it"))


def _confirm(host: Host, info: CollectionInfo, quote: CorpusQuote, model: str | None, route: Any) -> None:
    name, chosen = info.collection.name, quote.chosen

    def forget(_: object) -> None:
        """The verdicts on the files that were read."""
        st.session_state.pop(f"reading {name}", None)

    with st.container(horizontal=True):
        if chosen is not None:
            expected, cost = _price(chosen, route)
            label = f"Embed {plural(quote.distinct, 'text')} with {chosen.model.name}: {estimate(expected, cost)}"
            paid = None if chosen.model.local else route
            exact = "" if cost is None else f"{exact_usd(cost)} at most. "
            help = md(f"{exact}Expected to take {seconds(chosen.verdict.seconds)}.")
            # The key is of the label, so a late click, when texts or price have changed, has no effect.
            key = ticks.key("order", (label, paid))
            if widgets.act(md(label), "play_arrow", type="primary", key=key, help=help):
                widgets.run(host, host.library.confirm(name, model=model, route=paid), tab="Jobs", then=forget)
        if quote.overnight is not None and model in (None, quote.overnight[0].model.id):
            start, then = (one.model for one in quote.overnight)
            price = estimate(*_price(quote.overnight[1], "batch"))
            label = f"Start now with {start.name}, improve overnight with {then.name}: {price}"

            async def both() -> None:
                await host.library.confirm(name, model=start.id)
                await host.library.improve(name, then.id, route="batch")

            if widgets.act(md(label), "bedtime", key=ticks.key("overnight", (label,))):
                widgets.run(host, both(), tab="Jobs", then=forget)
        if info.new_documents and widgets.act("Discard new files", "delete"):
            widgets.run(
                host, host.library.discard(name), then=forget,
                notice=lambda gone: f"{plural(gone, 'file')} discarded. Nothing was spent.",
            )  # fmt: skip


def _price(chosen: CorpusCandidate, route: str | None) -> tuple[int | None, int | None]:
    """Its likely cost by a route, and the most it can cost."""
    if route == "batch" and chosen.verdict.batch_cost is not None:
        return chosen.verdict.expected_batch, chosen.verdict.batch_cost
    return chosen.verdict.expected, chosen.verdict.cost
