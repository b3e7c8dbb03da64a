"""`collections`: fill one from files, see the price, embed, search, take the vectors out."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.corpus import added_as_json, embed_all, exit_code, fill, tell_added, tell_plan
from router.cli.jobs import job_as_json
from router.cli.options import IdColumn, ModelId, PolicyName, Replace, TextColumns, WithText, check_out
from router.cli.output import Json, answer, emit, pick, say, table
from router.cli.shell import with_library
from router.domain.errors import BadInput
from router.domain.money import show, to_json
from router.ingest.columns import Columns

if TYPE_CHECKING:
    from router.ingest.file_report import FileReport
    from router.jobs.quote import CorpusQuote
    from router.library import CollectionInfo, Library
    from router.store.jobs import Job

collections_app = typer.Typer(no_args_is_help=True, help="Named documents, embedded in one space and searched.")
Name = Annotated[str, typer.Argument(help="Of the collection.")]
_SHOWN = 240  # characters of a hit
_STATES = {"adding": "being read", "added": "not confirmed", "ready": "ready", "failed": "not read"}


@collections_app.command("list")
def list_collections(as_json: Json = False) -> None:
    """All collections."""
    found = with_library(lambda library: asyncio.to_thread(library.collections))
    if as_json:
        emit({"collections": [_info(info) for info in found]})
        return
    if not found:
        say("No collections yet. `python -m router collections add NAME FILE` makes one.")
        return
    rows = [
        (info.collection.name, info.active.space if info.active else "not chosen yet",
         info.documents, info.chunks, info.new_documents, info.job.state if info.job else None)
        for info in found
    ]  # fmt: skip
    table(("name", "space", "documents", "chunks", "not confirmed", "last job"), rows, right=(2, 3, 4))


@collections_app.command("add")
def add(
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="Files, folders and .zip archives.")],
    policy: PolicyName = "default",
    model: ModelId = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="The most tokens of a chunk.")] = None,
    text_column: TextColumns = None,
    id_column: IdColumn = None,
    txt_lines: Annotated[bool, typer.Option("--txt-lines", help=".txt files hold a text a line.")] = False,
    embed: Annotated[bool, typer.Option("--embed", help="Agree to the quote, and embed now.")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="By the batch tier: cheaper, within a day.")] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="FILES is one folder: also list what the collection has and it has no more.")
    ] = False,
    drop: Annotated[bool, typer.Option("--delete", help="With --sync: delete these documents.")] = False,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Read FILES into a collection, which is made if there is none, and quote it; with --embed, embed it too."""
    if sync and (len(files) != 1 or not files[0].is_dir()):
        raise BadInput("--sync keeps a collection in step with one folder.", "Give one folder, or leave --sync out.")
    if drop and not sync:
        raise BadInput("--delete belongs to --sync.", "`collections remove` deletes documents by name.")

    async def work(library: Library) -> tuple[list[FileReport], CorpusQuote, list[str], Job | None]:
        reports = await fill(
            library, name, files, policy=policy, model=model, chunk_tokens=chunk_tokens,
            columns=Columns(texts=tuple(text_column or ()), id=id_column), txt_lines=txt_lines,
        )  # fmt: skip
        gone = library.gone(name, files[0], [report.name for report in reports]) if sync else []
        if gone and drop:
            await library.delete_documents(name, gone)
        quote = await library.quote(name, model=model)
        job = None
        if embed:
            job, _ = await embed_all(library, name, reports, quote, replace=replace, model=model, batch=batch)
        return reports, quote, gone, job

    reports, quote, gone, job = with_library(work)
    if as_json:
        emit({**added_as_json(reports, quote, job), "gone": gone, "deleted": gone if drop else []})
    else:
        if sync:
            tell_plan(reports, gone, drop)
        tell_added(reports, quote, job, shlex.join(["embed", "--collection", name]))
    raise typer.Exit(exit_code(reports, quote, job))


@collections_app.command("documents")
def documents(name: Name, as_json: Json = False) -> None:
    """The documents of a collection, by name."""
    found = with_library(lambda library: asyncio.to_thread(library.documents, name, limit=-1))
    if as_json:
        names = "name state chunks skipped bytes added source reason"
        emit({"documents": [{**pick(row, names), "source": row.source or None} for row in found]})
        return
    if not found:
        say(f"The collection '{name}' has no documents. `python -m router collections add {shlex.quote(name)} FILE`")
        return
    rows = [
        (row.name, _STATES[row.state], row.chunks, f"{datetime.fromtimestamp(row.added, UTC):%Y-%m-%d %H:%M}")
        for row in found
    ]
    table(("document", "state", "chunks", "added (UTC)"), rows, right=(2,))


@collections_app.command("remove")
def remove(
    name: Name,
    names: Annotated[list[str], typer.Argument(metavar="DOCUMENT...", help="As `collections documents` names them.")],
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also the cached vectors that nothing else needs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete documents of a collection. Their vectors stay in the cache: adding them again costs nothing."""
    with_library(lambda library: library.delete_documents(name, names, vectors=vectors))
    what = "1 document is" if len(names) == 1 else f"{len(names):,} documents are"
    answer(as_json, {"deleted": names}, f"{what} deleted from '{name}'.")


@collections_app.command("search")
def search(
    name: Name,
    query: Annotated[str, typer.Argument()],
    k: Annotated[int, typer.Option("-k", help="How many chunks.")] = 5,
    as_json: Json = False,
) -> None:
    """The chunks nearest to a query, by exact cosine."""
    found = with_library(lambda library: library.search(name, query, k=k))
    if as_json:
        emit({
            "hits": [
                {"score": round(hit.score, 6), "chunk": hit.chunk.key, "document": hit.chunk.document,
                 "text": hit.chunk.text, "copies": hit.copies}
                for hit in found.hits
            ],
            **pick(found, "model space searched missing"),
            "cost_usd": to_json(found.cost),
            **pick(found, "route decision"),
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
    with_text: WithText = False,
    as_json: Json = False,
) -> None:
    """Write the vectors of a collection to a file."""
    check_out(out)
    written = with_library(lambda library: library.export(name, out, with_text=with_text))
    answer(as_json, {"written": written, "out": str(out)}, f"written   {written:,} vectors to {out}")


@collections_app.command("delete")
def delete(
    name: Name,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also the cached vectors that no other collection needs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a collection with its documents and chunks."""
    with_library(lambda library: library.delete(name, vectors=vectors))
    answer(as_json, {"deleted": name}, f"The collection '{name}' is deleted.")


# ---- what is printed ----


def _info(info: CollectionInfo) -> dict[str, object]:
    return {
        "name": info.collection.name,
        **pick(info.active, "space model dimensions"),
        **pick(info, "documents chunks"),
        "not_confirmed": info.new_documents,
        "job": job_as_json(info.job) if info.job else None,
    }
