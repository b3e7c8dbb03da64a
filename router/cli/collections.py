"""`collections`: fill one from files, see the price, embed, search, take the vectors out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.embed import ModelId, PolicyName, check_out
from router.cli.jobs import job_as_json, run_jobs, tell_job, with_library
from router.cli.output import Json, emit, say, table, warn
from router.cli.shell import FAILED
from router.domain.errors import BadInput, Refused
from router.domain.money import show, to_json
from router.domain.values import Refusal

if TYPE_CHECKING:
    from router.corpora.ingest import FileReport
    from router.corpora.jobs import Job
    from router.corpora.library import CollectionInfo, Library
    from router.corpora.quote import CorpusCandidate, CorpusQuote
    from router.corpora.search import Found

collections_app = typer.Typer(no_args_is_help=True, help="Named documents, embedded in one space and searched.")
Name = Annotated[str, typer.Argument(help="Of the collection.")]
_SHOWN = 240  # characters of a hit


@collections_app.command("list")
def list_collections(as_json: Json = False) -> None:
    """All collections."""

    async def work(library: Library) -> list[CollectionInfo]:
        return library.collections()

    found = with_library(work)
    if as_json:
        emit({"collections": [_info(info) for info in found]})
        return
    if not found:
        say("No collections yet. `python -m router collections add NAME FILE` makes one.")
        return
    rows = [
        (
            info.collection.name,
            info.active.space if info.active else "not chosen yet",
            f"{info.documents:,}",
            f"{info.chunks:,}",
            f"{info.new_documents:,}",
            info.job.state if info.job else "–",
        )
        for info in found
    ]
    table(("name", "space", "documents", "chunks", "not confirmed", "last job"), rows, right=(2, 3, 4))


@collections_app.command("add")
def add(
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="Files, folders and .zip archives.")],
    policy: PolicyName = "default",
    model: ModelId = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="The most tokens of a chunk.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Of tables and JSON lines.")] = None,
    txt_lines: Annotated[bool, typer.Option("--txt-lines", help=".txt files hold a text a line.")] = False,
    embed: Annotated[bool, typer.Option("--embed", help="Agree to the quote, and embed now.")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="By the batch tier: cheaper, within a day.")] = False,
    as_json: Json = False,
) -> None:
    """Read FILES into a collection, which is made if there is none, and quote it; with --embed, embed it too."""

    async def work(library: Library) -> tuple[list[FileReport], CorpusQuote, Job | None]:
        if name not in {info.collection.name for info in library.collections()}:
            await library.create(name, policy=policy, model=model, chunk_tokens=chunk_tokens)
        columns = {} if text_column is None else {"": text_column}
        reports = await library.add_files(name, files, text_columns=columns, txt_lines=txt_lines)
        quote = await library.quote(name, model=model)
        if not embed:
            return reports, quote, None
        job = await library.confirm(name, model=model, route="batch" if batch else None)
        await run_jobs(library, job.id)
        return reports, quote, library.job(job.id)

    reports, quote, job = with_library(work)
    if as_json:
        emit(_added(reports, quote, job))
    else:
        _tell_added(name, reports, quote, job)
    raise typer.Exit(_exit_code(reports, quote, job))


@collections_app.command("search")
def search(
    name: Name,
    query: Annotated[str, typer.Argument()],
    k: Annotated[int, typer.Option("-k", help="How many chunks.")] = 5,
    as_json: Json = False,
) -> None:
    """The chunks nearest to a query, by exact cosine."""

    async def work(library: Library) -> Found:
        return await library.search(name, query, k=k)

    found = with_library(work)
    if as_json:
        emit({
            "hits": [
                {"score": round(hit.score, 6), "chunk": hit.chunk.key, "document": hit.chunk.document,
                 "text": hit.chunk.text, "copies": hit.copies}
                for hit in found.hits
            ],
            "model": found.model, "space": found.space, "searched": found.searched, "missing": found.missing,
            "cost_usd": to_json(found.cost), "route": found.route, "decision": found.decision,
        })  # fmt: skip
        return
    for hit in found.hits:
        text = " ".join(hit.chunk.text.split())
        say(f"{hit.score:.4f}  {hit.chunk.key}\n        {text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}")
    missing = f"; {found.missing:,} are not embedded yet" if found.missing else ""
    say(f"searched  {found.searched:,} texts in {found.space}{missing}")
    say(f"cost      {show(found.cost)}, the query by {found.route}")


@collections_app.command("export")
def export(
    name: Name,
    out: Annotated[Path, typer.Argument(metavar="FILE", help=".parquet, .npz or .jsonl.")],
    with_text: Annotated[bool, typer.Option("--with-text", help="Write the texts beside the vectors.")] = False,
    as_json: Json = False,
) -> None:
    """Write the vectors of a collection to a file."""
    check_out(out, out.with_name(out.name + ".none"))

    async def work(library: Library) -> int:
        return await library.export(name, out, with_text=with_text)

    written = with_library(work)
    if as_json:
        emit({"written": written, "out": str(out)})
    else:
        say(f"written   {written:,} vectors to {out}")


@collections_app.command("delete")
def delete(
    name: Name,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also the cached vectors that no other collection needs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a collection with its documents and chunks."""

    async def work(library: Library) -> None:
        await library.delete(name, vectors=vectors)

    with_library(work)
    if as_json:
        emit({"deleted": name})
    else:
        say(f"The collection '{name}' is deleted.")


# ---- what is printed ----


def _exit_code(reports: list[FileReport], quote: CorpusQuote, job: Job | None) -> int:
    if isinstance(quote.outcome, Refusal):
        return BadInput.exit_code if quote.outcome.kind == "input" else Refused.exit_code
    if job is not None and job.state != "done":
        return Refused.exit_code if job.state in ("paused", "waiting") else FAILED
    if (job is not None and job.failed) or any(report.state == "failed" for report in reports):
        return FAILED
    return 0


def _info(info: CollectionInfo) -> dict[str, object]:
    active = info.active
    return {
        "name": info.collection.name,
        "space": active.space if active else None,
        "model": active.model if active else None,
        "dimensions": active.dimensions if active else None,
        "documents": info.documents,
        "chunks": info.chunks,
        "not_confirmed": info.new_documents,
        "job": job_as_json(info.job) if info.job else None,
    }


def _added(reports: list[FileReport], quote: CorpusQuote, job: Job | None) -> dict[str, object]:
    return {
        "files": [
            {"name": r.name, "state": r.state, "chunks": r.chunks, "skipped": r.skipped, "reason": r.reason}
            for r in reports
        ],
        "chunks": quote.chunks,
        "distinct": quote.distinct,
        "duplicates": quote.duplicates,
        "near_empty": quote.near_empty,
        "candidates": [_candidate(c) for c in quote.candidates],
        "chosen": quote.chosen.model.id if quote.chosen else None,
        "decision": quote.decision,
        "job": job_as_json(job) if job else None,
    }


def _candidate(candidate: CorpusCandidate) -> dict[str, object]:
    verdict = candidate.verdict
    return {
        "model": verdict.model.id,
        "space": verdict.model.space,
        "quality": verdict.quality,
        "cached": verdict.cached,
        "tokens": verdict.tokens,
        "cost_usd": _usd(candidate.now_cost),
        "batch_cost_usd": _usd(candidate.batch_cost),
        "seconds": round(verdict.seconds, 1),
        "eligible": verdict.eligible,
        "reason": verdict.reason,
        "warning": candidate.warning,
    }


def _usd(cost: int | None) -> str | None:
    return None if cost is None else to_json(cost)


def _money(cost: int | None) -> str:
    return "–" if cost is None else show(cost)


def _tell_added(name: str, reports: list[FileReport], quote: CorpusQuote, job: Job | None) -> None:
    for report in reports:
        if report.state == "failed":
            warn(f"{report.name}: {report.reason}")
        elif report.skipped:
            warn(f"{report.name}: {report.skipped:,} rows are skipped, the first because: {report.reason}")
    for state in ("added", "unchanged"):
        some = [report for report in reports if report.state == state]
        if some:
            files = "1 file" if len(some) == 1 else f"{len(some):,} files"
            say(f"{state:9} {files}, {sum(report.chunks for report in some):,} chunks")
    say(f"{quote.chunks:,} chunks, {quote.distinct:,} distinct, {quote.near_empty:,} near-empty and left out")
    rows = [
        (
            f"{'→' if c.verdict.chosen else ' '} {c.model.id}",
            "–" if c.verdict.quality is None else f"{c.verdict.quality:g}",
            f"{c.verdict.cached:,}",
            "free" if c.model.local else _money(c.now_cost),
            "–" if c.model.local else _money(c.batch_cost),
            f"{c.verdict.seconds:,.0f}",
        )
        for c in quote.candidates
    ]
    table(("  model", "quality", "cached", "now", "by batch", "seconds"), rows, right=range(1, 6))
    say(quote.decision)
    if quote.chosen is not None and quote.chosen.warning:
        warn(quote.chosen.warning)
    if job is not None:
        tell_job(job)
    elif quote.chosen is not None:
        say(f"Nothing is spent yet. `python -m router collections add {name} ... --embed` goes on.")
