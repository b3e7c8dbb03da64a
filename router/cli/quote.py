"""`quote`: what a file would cost by every model, and which would be chosen; spends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from router.cli import options
from router.cli.corpus import quote_into, refused_code
from router.cli.output import Json, emit, pick, say, table, usd_or_none, verdict_as_json
from router.cli.rows import problems_of, read_files, tell_rows
from router.cli.shell import WRONG_USE, with_router
from router.domain.errors import BadInput
from router.domain.money import show
from router.domain.values import Role
from router.ingest.columns import Columns

if TYPE_CHECKING:
    from router.pipeline.results import Quote, QuoteLine


def quote(
    files: options.Files = None,
    policy: options.PolicyName = "default",
    collection: Annotated[
        str | None, typer.Option(help="What the files would cost in it, or without files what waits there.")
    ] = None,
    model: options.ModelId = None,
    role: options.RoleName = "document",
    dimensions: options.Dimensions = None,
    long_texts: options.LongTextsName = None,
    text_column: options.TextColumns = None,
    id_column: options.IdColumn = None,
    as_json: Json = False,
) -> None:
    """What embedding FILES would cost: every candidate with its price, before and after the cache and repeats."""
    long = options.long_texts_of(long_texts)
    columns = Columns(texts=tuple(text_column or ()), id=id_column)
    if collection is not None:
        if role != "document" or long is not None or dimensions is not None:
            raise BadInput("A collection has a role, a size and a policy of its own.", "Leave these options out.")
        raise typer.Exit(quote_into(collection, files or [], policy, model, columns, as_json))
    rows = read_files(files or [], columns)

    found = with_router(
        lambda router: router.quote(
            rows.texts,
            policy=policy,
            role=cast(Role, role),  # the engine checks it
            model=model,
            dimensions=dimensions,
            long_texts=long,
            partial=True,
        )
    )
    if as_json:
        emit({
            **pick(found, "texts distinct tokens"),
            "candidates": [_candidate(line) for line in found.lines],
            "chosen": found.model,
            "decision": found.decision,
            "skipped": len(rows.skipped),
            "skipped_rows": rows.skipped,
            "refused": len(found.problems) + rows.refused,
            "problems": problems_of(rows, found.problems),
            "notes": rows.notes,
        })  # fmt: skip
    else:
        _tell(found)
        tell_rows(rows, found.problems)
    raise typer.Exit(refused_code(found.outcome) or (WRONG_USE if rows.refused else 0))


def _candidate(line: QuoteLine) -> dict[str, object]:
    return {
        **verdict_as_json(line.verdict, line.verdict.cost, line.verdict.expected),
        "tokens_to_pay": 0 if line.verdict.model.local else line.verdict.tokens,
        "expected_tokens_to_pay": 0 if line.verdict.model.local else line.verdict.expected_tokens,
        **pick(line, "distinct_tokens full_tokens"),
        "full_expected_usd": usd_or_none(line.full_expected),
        "full_cost_usd": usd_or_none(line.full_cost),
    }


def _tell(found: Quote) -> None:
    say(f"{found.texts:,} texts, {found.distinct:,} distinct, {found.tokens:,} tokens")
    rows = []
    reasons: dict[str, list[str]] = {}
    endings: dict[str, list[str]] = {}
    for line in found.lines:
        verdict = line.verdict
        if verdict.eligible and verdict.model.ending:
            endings.setdefault(verdict.model.ending, []).append(verdict.model.id)
        free = verdict.model.local
        if not verdict.chosen:
            reasons.setdefault(verdict.reason, []).append(verdict.model.id)
        rows.append((
            f"{'→' if verdict.chosen else ' '} {verdict.model.id}",
            verdict.quality,
            verdict.cached,
            line.full_expected_tokens,
            "free" if free else "unknown" if line.full_expected is None else show(line.full_expected),
            0 if free else verdict.expected_tokens,
            "free" if free else "unknown" if verdict.expected is None else show(verdict.expected),
            "" if free or verdict.cost in (None, verdict.expected) else show(verdict.cost or 0),
            f"{verdict.seconds:.1f}",
        ))  # fmt: skip
    headers = (
        "  model", "quality", "cached", "tokens\nof all", "likely\nof all", "tokens\nto pay", "likely\nto pay",
        "at most", "seconds",
    )  # fmt: skip
    table(headers, rows, right=range(1, 9))
    say(found.decision)
    for reason, models in reasons.items():
        say(f"not {', '.join(models)}: {reason}")
    for ending, models in endings.items():
        say(f"{ending}: {', '.join(models)}")
