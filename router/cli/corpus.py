"""Files into collections, for every command that does so: read, quoted, embedded, and told to people and machines."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from router.cli.jobs import job_as_json, run_jobs, tell_job
from router.cli.output import emit, named, say, table, usd_or_none, verdict_as_json, warn
from router.cli.shell import FAILED, WRONG_USE, with_library
from router.domain.errors import BadInput, Refused
from router.domain.money import show_likely, to_json
from router.domain.values import Refusal
from router.ingest.columns import AS_USUAL, Columns

if TYPE_CHECKING:
    from router.ingest.file_report import FileReport
    from router.jobs.estimate import CorpusEstimate
    from router.jobs.quote import CorpusCandidate, CorpusQuote
    from router.library import CollectionInfo, Library
    from router.store.jobs import Job
    from router.store.models import Generation


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
    library: Library, name: str, *, model: str | None, dimensions: int | None = None, batch: bool = False
) -> tuple[Job, Job]:
    """Agree to a collection's quote and run its job to the end here: the job as it began, and as it ended."""
    begun = await library.confirm(name, model=model, dimensions=dimensions, route="batch" if batch else None)
    await run_jobs(library, begun.id)
    return begun, library.job(begun.id)


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

    async def work(library: Library) -> tuple[list[FileReport], CorpusQuote, dict[str, object], Job | None]:
        before = _avoided(library, name)
        reports = await fill(
            library, name, files, policy=policy, model=model, dimensions=dimensions, columns=columns, txt_lines=True
        )
        quote = await library.quote(name, model=model)
        if nothing_read(reports, quote):
            return reports, quote, added_as_json(reports, quote, None), None
        require_agreement(reports, replace)
        begun, job = await embed_all(library, name, model=model, dimensions=dimensions)
        if out is not None and job.done:
            await library.export(name, out, with_text=with_text)
        active = library.info(name).active
        assert active is not None  # `confirm` has pinned it
        said = embedded_as_json(reports, quote, begun, job, active)
        said["avoided_usd"] = to_json(_avoided(library, name) - before)
        said["out"] = str(out) if out is not None and job.done else None
        return reports, quote, said, job

    reports, quote, said, job = with_library(work)
    if as_json:
        emit(said)
    else:
        tell_added(reports, quote, job, shlex.join(["embed", "--collection", name]))
        if out is not None:
            say(f"written   {f'the vectors to {out}' if said.get('out') else 'nothing'}")
    return exit_code(reports, quote, job, unreadable=WRONG_USE)


def _avoided(library: Library, name: str) -> int:
    """Nanodollars that a collection did not cost so far."""
    router = library.router
    return router.usage.total(since=0, until=router.clock() + 1, where={"collection": name}).avoided


def require_agreement(reports: Sequence[FileReport], replace: bool) -> None:
    """Ask, by refusing, before a document from one folder takes the place of one from another.

    Raises:
        BadInput: there is such a document, and `--replace` was not given. What was read waits to be confirmed.
    """
    others = [report for report in reports if report.from_elsewhere]
    if others and not replace:
        raise BadInput(
            f"Nothing was embedded: {' '.join(replaces(report) for report in others[:3])}"
            f"{f' And {len(others) - 3:,} more.' if others[3:] else ''}",
            "Add --replace if that is meant; or add the folder above both, so that their names differ.",
        )


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


def nothing_read(reports: Sequence[FileReport], quote: CorpusQuote) -> bool:
    """Whether there is nothing to embed because no file could be read; the reports say why."""
    return quote.chunks == quote.near_empty and any(report.state == "failed" for report in reports)


def quote_into(
    name: str, files: Sequence[Path], policy: str, model: str | None, columns: Columns, as_json: bool
) -> int:
    """`quote --collection`: the exit code."""
    reports, quote = with_library(
        lambda library: price(library, name, files, policy=policy, model=model, columns=columns)
    )
    if as_json:
        emit(added_as_json(reports, quote, None))
    else:
        given = [*map(str, files[:3]), *(["..."] if len(files) > 3 else [])]
        options = [*(["--policy", policy] if policy != "default" else []), *(["--model", model] if model else [])]
        tell_added(reports, quote, None, shlex.join(["embed", *given, "--collection", name, *options]))
    return exit_code(reports, quote, None, unreadable=WRONG_USE)


async def price(
    library: Library, name: str, files: Sequence[Path], *, policy: str, model: str | None, columns: Columns
) -> tuple[list[FileReport], CorpusQuote]:
    """What a collection costs, or what these files would cost in it; it is not changed, and need not be there."""
    from router.library import Library as Scratch

    if not files:
        return [], await library.quote(name, model=model)
    there = _there(library, name)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(library.router, Path(folder))
        try:
            if there is None:
                await scratch.create(name, policy=policy, model=model)
            else:
                await scratch.create_like(there)
            reports = await scratch.add_files(
                name, files, columns={"": columns}, txt_lines=True, estimated=tell_estimate
            )
            return reports, await scratch.quote(name, model=model)
        finally:
            await scratch.aclose()


def exit_code(reports: Sequence[FileReport], quote: CorpusQuote, job: Job | None, *, unreadable: int = FAILED) -> int:
    """What a command ends with; `unreadable` where a file could not be read."""
    if isinstance(quote.outcome, Refusal):
        return BadInput.exit_code if quote.outcome.kind == "input" else Refused.exit_code
    if job is not None and job.state != "done":
        return Refused.exit_code if job.state in ("paused", "waiting") else FAILED
    if job is not None and job.failed:
        return FAILED
    return unreadable if any(report.state == "failed" for report in reports) else 0


def added_as_json(reports: Sequence[FileReport], quote: CorpusQuote, job: Job | None) -> dict[str, object]:
    """Files, quote and job for machines."""
    return {
        "files": [
            {"name": r.name, "state": r.state, "chunks": r.chunks, "skipped": r.skipped, "reason": r.reason,
             "reasons": r.reasons, "notes": r.notes, "replaces": _replaced(r)}
            for r in reports
        ],
        "chunks": quote.chunks,
        "texts": quote.distinct + quote.duplicates,
        "distinct": quote.distinct,
        "duplicates": quote.duplicates,
        "near_empty": quote.near_empty,
        "candidates": [_candidate(c) for c in quote.candidates],
        "chosen": quote.chosen.model.id if quote.chosen else None,
        "decision": quote.decision,
        "job": job_as_json(job) if job else None,
    }  # fmt: skip


def embedded_as_json(
    reports: Sequence[FileReport], quote: CorpusQuote, begun: Job, job: Job, active: Generation
) -> dict[str, object]:
    """The same with all that `embed` says of a file; of distinct texts, `refused` have no vector yet."""
    routes = {"cache": begun.done, "local": 0, "api": 0, "batch": 0}
    routes[job.route] += max(0, job.done - begun.done)
    return {
        **added_as_json(reports, quote, job),
        "distinct": job.done,
        "repeated": quote.duplicates,
        "skipped": quote.near_empty + sum(report.skipped for report in reports),
        "refused": job.total - job.done,
        "routes": routes,
        "model": job.model,
        "space": active.space,
        "dimensions": active.dimensions,
        "tokens": quote.chosen.verdict.expected_tokens if quote.chosen else 0,
        "expected_usd": usd_or_none(quote.chosen.verdict.expected if quote.chosen else None),
        "cost_usd": to_json(job.spent),
    }


def _replaced(report: FileReport) -> dict[str, object] | None:
    old = report.replaces
    if old is None:
        return None
    return {"added": old.added, "source": old.source or None, "texts": old.texts, "new": old.new}


def _candidate(candidate: CorpusCandidate) -> dict[str, object]:
    return {
        **verdict_as_json(candidate.verdict, candidate.now_cost, candidate.now_expected),
        "tokens": candidate.verdict.tokens,
        "expected_tokens": candidate.verdict.expected_tokens,
        "batch_expected_usd": usd_or_none(candidate.verdict.expected_batch),
        "batch_cost_usd": usd_or_none(candidate.verdict.batch_cost),
        "warning": candidate.warning,
    }


def tell_plan(reports: Sequence[FileReport], gone: Sequence[str], deleted: bool) -> None:
    """What keeping in step with a folder comes to."""
    changed = sum(report.replaces is not None for report in reports)
    new = sum(report.state == "added" and report.replaces is None for report in reports)
    same = sum(report.state == "unchanged" and report.replaces is None for report in reports)
    say(f"in step   {new:,} new, {changed:,} changed, {same:,} unchanged, {len(gone):,} gone")
    if gone:
        what = "deleted" if deleted else "not in the folder any more; --delete deletes"
        say(f"gone      {what}: {named(gone)}")


def _money(expected: int | None, most: int | None) -> str:
    return "–" if expected is None or most is None else show_likely(expected, most)


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
            "–" if c.verdict.quality is None else f"{c.verdict.quality:g}",
            f"{c.verdict.cached:,}",
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
