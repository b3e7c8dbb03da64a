"""`jobs`: what is being embedded, for people and scripts; `jobs work` runs jobs without the pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.output import Json, emit, pick, progress, say, table
from router.cli.shell import FAILED, with_library
from router.domain.money import show, to_json

if TYPE_CHECKING:
    from router.library import Library
    from router.store.jobs import Job

jobs_app = typer.Typer(no_args_is_help=True, help="Jobs that embed collections.")
Number = Annotated[int, typer.Argument(metavar="ID", help="As `jobs list` shows it.")]
POLL_S = 0.5


def job_as_json(job: Job) -> dict[str, object]:
    """A job for machines. Times in UTC."""
    return {
        **pick(job, "id collection state reason model route policy total done failed"),
        "spent_usd": to_json(job.spent),
        "texts_per_second": round(job.rate, 1),
        "seconds_left": None if job.seconds_left is None or not job.open else round(job.seconds_left),
        **{name: _time(getattr(job, name)) for name in ("wake", "created", "finished")},
    }


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def tell_job(job: Job) -> None:
    """The same for people."""
    failed = f", {job.failed:,} failed" if job.failed else ""
    say(f"job {job.id}   {job.collection}: {job.state}{f' — {job.reason}' if job.reason else ''}")
    say(f"texts     {job.done:,} of {job.total:,}{failed}")
    say(f"model     {job.model}, by {job.route}, policy {job.policy}")
    say(f"spent     {show(job.spent)}")


async def run_jobs(library: Library, number: int | None = None) -> None:
    """Run jobs until there is nothing more to do just now; with `number` that one alone, and its progress is shown.

    Another program on the same data folder may be running it: then it is waited for.
    """
    worker = library.worker(only=number)
    running = asyncio.ensure_future(worker.run_all())
    try:
        with progress("Embedding") as report:
            while True:
                await asyncio.wait([running], timeout=POLL_S)
                job = None if number is None else await asyncio.to_thread(library.job, number)
                if job is not None:
                    report(job.done + job.failed, job.total)
                if running.done():
                    running.result()
                    if job is None or job.state not in ("queued", "running"):
                        return
                    await asyncio.sleep(POLL_S)
                    running = asyncio.ensure_future(worker.run_all())
    finally:
        running.cancel()
        await worker.stop()


@jobs_app.command("list")
def list_jobs(as_json: Json = False) -> None:
    """All jobs, the newest first."""
    found = with_library(lambda library: asyncio.to_thread(library.list_jobs))
    if as_json:
        emit({"jobs": [job_as_json(job) for job in found]})
        return
    if not found:
        say("No jobs yet. `python -m router collections add NAME FILE --embed` makes one.")
        return
    rows = [
        (str(j.id), j.collection, j.state, f"{j.done:,} of {j.total:,}", j.failed, show(j.spent), j.model, j.route)
        for j in found
    ]
    table(("id", "collection", "state", "texts", "failed", "spent", "model", "route"), rows, right=(0, 3, 4, 5))
    for job in found:
        if job.open and job.reason:
            say(f"{job.id}: {job.reason}")


@jobs_app.command("show")
def show_job(number: Number, as_json: Json = False) -> None:
    """One job, with the texts that failed."""
    job, failures = with_library(
        lambda library: asyncio.to_thread(lambda: (library.job(number), library.failures(number)))
    )
    if as_json:
        emit({**job_as_json(job), "failures": [{"chunk": chunk.key, "reason": why} for chunk, why in failures]})
        return
    tell_job(job)
    for chunk, why in failures:
        say(f"failed    {chunk.key}: {why}")


def _changing(name: str) -> Callable[..., None]:
    """The command that calls the library's method of this name with a job's number."""

    def change(number: Number, as_json: Json = False) -> None:
        job: Job = with_library(lambda library: getattr(library, name)(number))
        if as_json:
            emit(job_as_json(job))
        else:
            tell_job(job)

    return change


for name, does in {
    "pause": "Let a job rest until it is resumed.",
    "resume": "Go on with a job that is paused or waits, at today's price.",
    "cancel": "End a job. What it made stays.",
    "retry": "Try the texts of a job that failed again.",
}.items():
    jobs_app.command(name, help=does)(_changing(name))


@jobs_app.command("work")
def work_jobs(
    once: Annotated[bool, typer.Option("--once", help="End when there is nothing more to do just now.")] = False,
) -> None:
    """Run jobs here, without the pages, until interrupted."""

    async def work(library: Library) -> list[Job]:
        if once:
            await run_jobs(library)
            return await asyncio.to_thread(library.list_jobs, open_only=True)
        worker = library.worker()
        worker.start()
        say("Working on jobs; Ctrl-C ends it, and jobs go on where they were.")
        try:
            await asyncio.Event().wait()
        finally:
            await worker.stop()
        return []

    left = with_library(work)
    for job in left:
        tell_job(job)
    if any(job.state == "paused" for job in left):
        raise typer.Exit(FAILED)
