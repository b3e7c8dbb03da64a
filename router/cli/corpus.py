"""Files into collections, for every command that does so: read, quoted, embedded, and told to people and machines."""

from __future__ import annotations

import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from router.cli.jobs import job_as_json, run_jobs, tell_job
from router.cli.output import emit, named, pick, say, table, usd_or_none, verdict_as_json, warn
from router.cli.shell import FAILED, WRONG_USE, with_library
from router.domain.errors import BadInput, Refused
from router.domain.money import show_likely, to_json
from router.domain.values import ROUTES, Plan, Refusal
from router.ingest.columns import AS_USUAL, Columns

if TYPE_CHECKING:
    from router.ingest.file_report import FileReport
    from router.jobs.estimate import CorpusEstimate
    from router.jobs.quote import CorpusQuote
    from router.library import CollectionInfo, Library
    from router.store.jobs import Job
    from router.store.models import Replaced


async def fill(
    library: Library,
    name: str,
    files: Sequence[Path],
    *,
    policy: str = "default",
    model: str | None = None,
    dimensions: int | None = None,
    chunk_tokens: int | None = None,
    columns: Columns = AS_USUAL,
    txt_lines: bool = False,
) -> list[FileReport]:
    """Read files into a collection, which is made if there is none; nothing is embedded.

    Raises:
        BadInput: the collection is there, and under another policy or of another size; or without files, it is not.
    """
    there = _there(library, name)
    if there is None and files:
        await library.create(name, policy=policy, model=model, dimensions=dimensions, chunk_tokens=chunk_tokens)
    elif there is not None and policy not in ("default", there.collection.policy):
        raise BadInput(f"The collection '{name}' is under the policy {there.collection.policy}.", "Leave --policy out.")
    elif there is not None and there.active is not None and dimensions not in (None, there.active.dimensions):
        raise BadInput(
            f"The collection '{name}' has {there.active.dimensions:,} dimensions.", "Leave --dimensions out."
        )
    return await library.add_files(name, files, columns={"": columns}, txt_lines=txt_lines, estimated=tell_estimate)


def tell_estimate(found: CorpusEstimate | str) -> None:
    """What a sample says of a large corpus while it is being read, on stderr."""
    if isinstance(found, str):
        warn(found)
    else:
        warn(f"{found.words}; the exact quote follows")
        for note in found.notes:
            warn(f"estimate: {note}")


def _there(library: Library, name: str) -> CollectionInfo | None:
    return next((info for info in library.collections() if info.collection.name == name), None)


async def embed_all(
    library: Library,
    name: str,
    reports: Sequence[FileReport],
    quote: CorpusQuote,
    *,
    replace: bool,
    model: str | None,
    dimensions: int | None = None,
    batch: bool = False,
) -> tuple[Job | None, int]:
    """Agree to a collection's quote and run its job to the end here: the job, and how many texts it began with.

    No job where there is nothing to embed because no file could be read; the reports say why.

    Raises:
        BadInput: a document from one folder would take the place of one from another, and `replace` is not given. What
            was read waits to be confirmed.
    """
    if quote.chunks == quote.near_empty and any(report.state == "failed" for report in reports):
        return None, 0
    others = [report for report in reports if report.from_elsewhere]
    if others and not replace:
        raise BadInput(
            f"Nothing was embedded: {' '.join(map(replaces, others[:3]))}"
            f"{f' And {len(others) - 3:,} more.' if others[3:] else ''}",
            "Add --replace if that is meant; or add the folder above both, so that their names differ.",
        )
    job = await library.confirm(name, model=model, dimensions=dimensions, route="batch" if batch else None)
    await run_jobs(library, job.id)
    return library.job(job.id), job.done


def embed_into(
    name: str,
    files: Sequence[Path],
    policy: str,
    model: str | None,
    dimensions: int | None,
    columns: Columns,
    replace: bool,
    out: Path | None,
    with_text: bool,
    as_json: bool,
) -> int:
    """`embed --collection`: add the files, embed what is missing, write all vectors to `out`; the exit code."""

    async def work(library: Library) -> tuple[list[FileReport], CorpusQuote, Job | None, dict[str, object]]:
        before = _saved(library, name)
        reports = await fill(
            library, name, files, policy=policy, model=model, dimensions=dimensions, columns=columns, txt_lines=True
        )
        quote = await library.quote(name, model=model)
        job, cached = await embed_all(
            library, name, reports, quote, replace=replace, model=model, dimensions=dimensions
        )
        if job is None:
            return reports, quote, None, {}
        written = out is not None and job.done > 0
        if out is not None and written:
            await library.export(name, out, with_text=with_text)
        verdict = quote.chosen and quote.chosen.verdict
        return reports, quote, job, {
            "distinct": job.done,
            "repeated": quote.duplicates,
            "skipped": quote.near_empty + sum(report.skipped for report in reports),
            "refused": job.total - job.done,  # of the distinct texts, those that have no vector yet
            "routes": {**dict.fromkeys(ROUTES, 0), "cache": cached, job.route: max(0, job.done - cached)},
            "model": job.model,
            **pick(library.info(name).active, "space dimensions"),
            "tokens": verdict.expected_tokens if verdict else 0,
            "expected_usd": usd_or_none(verdict.expected if verdict else None),
            "cost_usd": to_json(job.spent),
            "avoided_usd": to_json(_saved(library, name) - before),
            "out": str(out) if written else None,
        }  # fmt: skip

    reports, quote, job, more = with_library(work)
    if as_json:
        emit({**added_as_json(reports, quote, job), **more})
    else:
        tell_added(reports, quote, job, shlex.join(["embed", "--collection", name]))
        if out is not None:
            say(f"written   {f'the vectors to {out}' if more.get('out') else 'nothing'}")
    return exit_code(reports, quote, job, unreadable=WRONG_USE)


def _saved(library: Library, name: str) -> int:
    """Nanodollars that a collection did not cost so far."""
    router = library.router
    return router.usage.total(since=0, until=router.clock() + 1, where={"collection": name}).saved


def replaces(report: FileReport) -> str:
    """What a file takes the place of, in a sentence; "" where of nothing."""
    old = report.replaces
    if old is None:
        return ""
    what = f"{report.name} of {old.source}" if report.from_elsewhere else "the version"
    at = datetime.fromtimestamp(old.added, UTC)
    new = "is" if old.new == 1 else "are"
    return (
        f"{report.name} replaces {what} of {at:%d %b %H:%M} UTC; {old.new:,} of {old.texts:,}"
        f" text{'s' if old.texts != 1 else ''} {new} new."
    )


def quote_into(
    name: str, files: Sequence[Path], policy: str, model: str | None, columns: Columns, as_json: bool
) -> int:
    """`quote --collection`: what it costs, or what the files would cost in it; the exit code.

    The collection is not changed, and need not be there.
    """

    from router.library import Library as Scratch

    async def work(library: Library) -> tuple[list[FileReport], CorpusQuote]:
        if not files:
            return [], await library.quote(name, model=model)
        there = _there(library, name)
        with tempfile.TemporaryDirectory() as folder:
            async with aclosing(Scratch(library.router, Path(folder))) as scratch:
                if there is None:
                    await scratch.create(name, policy=policy, model=model)
                else:
                    await scratch.create_like(there)
                reports = await scratch.add_files(
                    name, files, columns={"": columns}, txt_lines=True, estimated=tell_estimate
                )
                return reports, await scratch.quote(name, model=model)

    reports, quote = with_library(work)
    if as_json:
        emit(added_as_json(reports, quote, None))
    else:
        given = [*map(str, files[:3]), *(["..."] if len(files) > 3 else [])]
        options = [*(["--policy", policy] if policy != "default" else []), *(["--model", model] if model else [])]
        tell_added(reports, quote, None, shlex.join(["embed", *given, "--collection", name, *options]))
    return exit_code(reports, quote, None, unreadable=WRONG_USE)


def refused_code(outcome: Plan | Refusal) -> int:
    """What a command ends with that would follow this decision."""
    if isinstance(outcome, Plan):
        return 0
    return WRONG_USE if outcome.kind == "input" else Refused.exit_code


def exit_code(reports: Sequence[FileReport], quote: CorpusQuote, job: Job | None, *, unreadable: int = FAILED) -> int:
    """What a command ends with; `unreadable` where a file could not be read."""
    if refused := refused_code(quote.outcome):
        return refused
    if job is not None and job.state != "done":
        return Refused.exit_code if job.state in ("paused", "waiting") else FAILED
    if job is not None and job.failed:
        return FAILED
    return unreadable if any(report.state == "failed" for report in reports) else 0


def added_as_json(reports: Sequence[FileReport], quote: CorpusQuote, job: Job | None) -> dict[str, object]:
    """Files, quote and job for machines."""
    return {
        "files": [
            {**pick(report, "name state chunks skipped reason reasons notes"), "replaces": _replaced(report.replaces)}
            for report in reports
        ],
        "chunks": quote.chunks,
        "texts": quote.distinct + quote.duplicates,
        **pick(quote, "distinct duplicates near_empty"),
        "candidates": [
            {
                **verdict_as_json(one.verdict, one.now_cost, one.now_expected),
                **pick(one.verdict, "tokens expected_tokens"),
                "batch_expected_usd": usd_or_none(one.verdict.expected_batch),
                "batch_cost_usd": usd_or_none(one.verdict.batch_cost),
                "warning": one.warning,
            }
            for one in quote.candidates
        ],
        "chosen": quote.chosen.model.id if quote.chosen else None,
        "decision": quote.decision,
        "job": job_as_json(job) if job else None,
    }


def _replaced(old: Replaced | None) -> dict[str, object] | None:
    return None if old is None else {**pick(old, "added source texts new"), "source": old.source or None}


def tell_plan(reports: Sequence[FileReport], gone: Sequence[str], deleted: bool) -> None:
    """What keeping in step with a folder comes to."""
    count = Counter("changed" if report.replaces else report.state for report in reports)
    new, changed, same = (count[state] for state in ("added", "changed", "unchanged"))
    say(f"in step   {new:,} new, {changed:,} changed, {same:,} unchanged, {len(gone):,} gone")
    if gone:
        what = "deleted" if deleted else "not in the folder any more; --delete deletes"
        say(f"gone      {what}: {named(gone)}")


def _money(expected: int | None, most: int | None) -> str | None:
    return None if expected is None or most is None else show_likely(expected, most)


def tell_added(reports: Sequence[FileReport], quote: CorpusQuote, job: Job | None, hint: str) -> None:
    """Files, quote and job for people; `hint` is what to do where nothing was spent."""
    for report in reports:
        if report.state == "failed":
            warn(f"{report.name}: {report.reason}")
        elif report.skipped:
            count = "1 row is" if report.skipped == 1 else f"{report.skipped:,} rows are"
            warn(f"{report.name}: {count} skipped. {' '.join(report.reasons or ['See when it was added.'])}")
        for note in report.notes:
            warn(f"{report.name}: {note}")
        if said := replaces(report):
            say(said)
    for state in ("added", "unchanged"):
        some = [report for report in reports if report.state == state]
        if some:
            files = "1 file" if len(some) == 1 else f"{len(some):,} files"
            say(f"{state:9} {files}, {sum(report.chunks for report in some):,} chunks")
    say(f"{quote.chunks:,} chunks, {quote.distinct:,} distinct, {quote.near_empty:,} near-empty and left out")
    rows = [
        (
            f"{'→' if c.verdict.chosen else ' '} {c.model.id}",
            c.verdict.quality,
            c.verdict.cached,
            "free" if c.model.local else _money(c.now_expected, c.now_cost),
            "–" if c.model.local else _money(c.verdict.expected_batch, c.verdict.batch_cost),
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
        say(f"Nothing is spent yet. `python -m router {hint}` goes on.")
