"""`embed`: files into vectors, or into a collection, by a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from router.cli import options
from router.cli.corpus import embed_into
from router.cli.output import Json, emit, named, pick, progress, say, warn
from router.cli.rows import Texts, problems_of, read_files, tell_rows
from router.cli.shell import FAILED, WRONG_USE, with_router
from router.domain.errors import BadInput, Refused, RouterError
from router.domain.money import show, to_json
from router.domain.values import Role
from router.ingest.columns import Columns

if TYPE_CHECKING:
    from router.engine import Router
    from router.pipeline.results import Result

_BLOCK = 4096  # rows written at once


def embed(
    files: options.Files = None,
    policy: options.PolicyName = "default",
    collection: Annotated[
        str | None, typer.Option(help="Add the files to this collection, made if need be, and run its job to the end.")
    ] = None,
    model: options.ModelId = None,
    role: options.RoleName = "document",
    dimensions: options.Dimensions = None,
    long_texts: options.LongTextsName = None,
    text_column: options.TextColumns = None,
    id_column: options.IdColumn = None,
    replace: options.Replace = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the vectors here, a collection's all: .parquet, .npz or .jsonl."),
    ] = None,
    with_text: options.WithText = False,
    as_json: Json = False,
) -> None:
    """Embed the texts of FILES: from the cache, on this machine or over an API, as the policy says."""
    long = options.long_texts_of(long_texts)
    columns = Columns(texts=tuple(text_column or ()), id=id_column)
    if out is not None:
        options.check_out(out, *(files or ()))
    if collection is not None:
        if role != "document" or long is not None:
            raise BadInput("A collection has a role and a policy of its own.", "Leave --role and --long-texts out.")
        raise typer.Exit(
            embed_into(collection, files or [], policy, model, dimensions, columns, replace, out, with_text, as_json)
        )
    rows = read_files(files or [], columns)

    async def work(router: Router) -> Result:
        with progress("Embedding") as report:
            return await router.embed(
                rows.texts,
                policy=policy,
                role=cast(Role, role),  # the engine checks it
                model=model,
                dimensions=dimensions,
                long_texts=long,
                partial=True,
                progress=report,
            )

    result = with_router(work)
    if len(result.problems) == result.texts:
        out = None
    if out is not None:
        _write(out, rows, result, with_text)
    if as_json:
        emit(_as_json(rows, result, out))
    else:
        _tell(rows, result, out)
    raise typer.Exit(_exit_code(rows, result.problems))


def _write(out: Path, rows: Texts, result: Result, with_text: bool) -> None:
    from router.search.export import open_writer

    good = [at for at in range(result.texts) if at not in result.problems]
    with open_writer(
        out, space=result.space, model=result.model, dimensions=result.dimensions, with_text=with_text
    ) as writer:
        for start in range(0, len(good), _BLOCK):
            block = good[start : start + _BLOCK]
            texts = [rows.texts[at] for at in block] if with_text else None
            writer.write([rows.ids[at] for at in block], texts, result.vectors[block])


def _exit_code(rows: Texts, problems: Mapping[int, RouterError]) -> int:
    """3 where money or the policy refused a row, else 1 where a provider failed, else 2 where a row was no text."""
    codes = {error.exit_code for error in problems.values()} | ({WRONG_USE} if rows.refused else set())
    return next((code for code in (Refused.exit_code, FAILED, WRONG_USE) if code in codes), 0)


def _as_json(rows: Texts, result: Result, out: Path | None) -> dict[str, object]:
    routes = asdict(result.counts)
    return {
        "texts": result.texts + rows.refused,
        "distinct": sum(routes.values()),
        "repeated": result.repeated,
        "skipped": len(rows.skipped),
        "refused": len(result.problems) + rows.refused,
        "routes": routes,
        **pick(result, "model space dimensions tokens"),
        "expected_usd": to_json(result.plan.expected),
        "cost_usd": to_json(result.cost),
        "unconfirmed_usd": to_json(result.unconfirmed),
        "avoided_usd": to_json(result.saved.total),
        "decision": result.decision,
        "out": None if out is None else str(out),
        "cut": len(result.cut),
        "cut_rows": [rows.ids[at] for at in result.cut],
        "skipped_rows": rows.skipped,
        "problems": problems_of(rows, result.problems),
        "notes": rows.notes,
    }


def _tell(rows: Texts, result: Result, out: Path | None) -> None:
    counts, refused = asdict(result.counts), len(result.problems)
    distinct = sum(counts.values())
    repeats = f", {result.repeated:,} repeated" if result.repeated else ""
    say(f"{distinct + result.repeated:,} of {result.texts:,} texts answered: {distinct:,} distinct{repeats}")
    say(f"routes    {', '.join(f'{count:,} {route}' for route, count in counts.items())}")
    say(f"model     {result.model}, space {result.space}, {result.dimensions:,} dimensions")
    unconfirmed = f", and {show(result.unconfirmed)} unconfirmed" if result.unconfirmed else ""
    say(f"cost      {show(result.cost)}{unconfirmed}; {show(result.saved.total)} saved")
    say(f"decision  {result.decision}")
    if result.cut:
        say(f"cut       {len(result.cut):,} to the model's length: {named([rows.ids[at] for at in result.cut])}")
    if out is not None:
        say(f"written   {result.texts - refused:,} vectors to {out}")
    elif refused == result.texts:
        say("written   nothing")
    else:
        say("written   to the cache only; --out FILE writes the vectors")
    tell_rows(rows, result.problems)
    if refused + rows.refused:
        warn(f"{refused + rows.refused:,} of {result.texts + rows.refused:,} texts were not embedded.")
