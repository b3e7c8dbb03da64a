"""A corpus uploaded in the browser, and the app killed half way: `python -m benchmarks.kill_resume`.

Three times, each on a fresh data folder, Chromium drives the real app: a collection, the upload, the quote, the
go-ahead, and the progress until it is half way (by batch: until the batch is at the provider). Then the app's process
gets SIGKILL, and is started again as `make run` starts it. Nobody opens a page; the job must be done by itself, and:

- local: the vectors are those of an undisturbed run (the same texts, cosine at least `LEAST_COSINE`; batches of other
  texts may round differently in bfloat16);
- api: against the provider on loopback no text that was on disk at the kill is billed again, and the bill is at most
  what the ledger shows as settled and unconfirmed;
- batch: the batch is found again and not made twice, and costs half of what an undisturbed run costs now, to the
  nanodollar.

`--corpus` is a .jsonl or other file; without it the sample articles are varied. Exit code 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.corpus_memory import make_corpus
from router.engine import Router
from router.jobs.worker import Worker
from router.library import Library
from router.sandbox import Sandbox
from router.store.database import connect
from router.store.jobs import JobRoute
from tests.browser.helpers import ROOT, free_port, launch, wait_until_healthy
from tests.browser.steps import choose, press, visit, write
from tests.faults.ledger_oracle import audit_folder

NAME = "corpus"
LOCAL, PAID = "local/all-MiniLM-L6-v2", "openai/text-embedding-3-small"
LEAST_COSINE = 0.999
PATIENCE_S = 1_800.0
SMALL_CALLS = "[providers.openai]\nmax_texts_per_call = 16\nmax_in_flight = 4\n"
WHEN = {"api": "now", "batch": "within a day, at the batch price"}


class App:
    """The app on a data folder, as `make run` starts it."""

    def __init__(self, folder: Path, env: Mapping[str, str], toml: str = "") -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        (self.data / "router.toml").write_text(toml, "utf-8")
        self._env = {**os.environ, **env, "ROUTER_DATA": str(self.data)}
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; no page is opened."""
        port, log = free_port(), self.folder / "log.txt"
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=out, stderr=out)
        wait_until_healthy(self.process, f"{self.url}/healthz", log)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, how: int = signal.SIGTERM) -> None:
        """End it by a signal, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()

    def job(self) -> tuple[str, int, int, int]:
        """(state, texts done, texts in all, nanodollars spent) of the only job, from its row."""
        conn = connect(self.data / "router.db", readonly=True)
        try:
            [(state, done, total, spent)] = conn.execute("SELECT state, done, total, spent FROM jobs").fetchall()
        finally:
            conn.close()
        return state, done, total, spent

    def on_disk(self) -> set[str]:
        """The digests of the texts whose vectors are committed, in hex."""
        conn = connect(self.data / "vectors.db", readonly=True)
        try:
            return {digest.hex() for (digest,) in conn.execute("SELECT digest FROM vectors")}
        finally:
            conn.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What was seen of a run. `seen`: figures of the progress on the page; `billed`: how often each text of `on_disk`
    was billed when the app was dead; `seconds`: from the second start to the end of the job."""

    seen: list[int]
    total: int
    on_disk: set[str]
    billed: dict[str, int]
    seconds: float
    spent: int


def until(true: Callable[[], bool], what: str) -> None:
    """Return as soon as something is true; there is no event to wait for in another process."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it never came: {what}")
        time.sleep(0.25)


# ---- in the browser ----------------------------------------------------------------------------


def order(page: Page, url: str, corpus: Path, model: str, route: str) -> None:
    """Upload a corpus into a new collection, and agree to its quote."""
    name, create = (
        page.get_by_label("Name", exact=True),
        page.get_by_role("button", name=re.compile(r"\bCreate$"), disabled=False),
    )
    visit(page, f"{url}/collections")
    press(page, page.get_by_text("New collection"), then=name)
    write(page, name, NAME, then=create)
    press(page, create, then=page.get_by_text("No document yet."))
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files(corpus)
    read = page.get_by_role("button", name="Read 1 file")
    expect(read).to_be_visible()
    press(page, read, then=page.get_by_text("1 of 1 file could be read."))
    choose(page, "Model", model)
    if route in WHEN:
        choose(page, "When", WHEN[route])
    go = page.get_by_role("button", name=re.compile(f"^Embed .* with {re.escape(model.split('/')[1])}"))
    expect(go).to_be_visible()
    press(page, go, then=page.get_by_text("Job 1"))


def watch(page: Page, enough: Callable[[int, int], bool]) -> tuple[list[int], int]:
    """Look at the progress until it is enough: the different figures that were shown, and the total."""
    seen: list[int] = []
    total = 0

    def look() -> bool:
        nonlocal total
        shown = re.search(r"([\d,]+) of ([\d,]+) text", page.get_by_test_id("stProgress").first.inner_text())
        if shown is not None:
            done, total = (int(group.replace(",", "")) for group in shown.groups())
            if not seen or done != seen[-1]:
                seen.append(done)
            return enough(done, total)
        return False

    until(look, "the progress on the page")
    return seen, total


def killed(
    browser: Browser, app: App, corpus: Path, model: str, route: str, sandbox: Sandbox | None, shots: Path | None
) -> Killed:
    """Order the job, kill the app half way, start it again, and wait for the job's end."""

    def half_way(done: int, total: int) -> bool:
        if route != "batch":
            return done * 2 >= total
        return sandbox is not None and any(r.operation.startswith("GET /batches/") for r in sandbox.received())

    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        order(page, app.url, corpus, model, route)
        seen, total = watch(page, half_way)
        if shots is not None:
            page.screenshot(path=shots / f"{route}-half-way.png")
        app.end(signal.SIGKILL)
        state, done, _, _ = app.job()
        assert state == "running", f"the job was {state} at the kill"
        assert done < total, "the kill came too late: give a larger corpus"
    on_disk = app.on_disk()
    bill = sandbox.bill().digests if sandbox is not None else {}
    asked_at_kill = len(sandbox.received()) if sandbox is not None else 0
    app.start()
    start = time.monotonic()
    if route == "batch":
        assert sandbox is not None
        until(lambda: _asked_for(sandbox, asked_at_kill) is not None, "a look at the batch after the restart")
        sandbox.advance(str(_asked_for(sandbox, asked_at_kill)), "completed")
    until(lambda: app.job()[0] != "running", "the end of the job")
    seconds = time.monotonic() - start
    until(lambda: audit_folder(app.data).pending == 0, "the end of the holds of the program that was killed")
    state, done, total, spent = app.job()
    assert (state, done) == ("done", total), f"the job is {state}, {done} of {total}"
    if shots is not None:
        with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
            page = context.new_page()
            visit(page, f"{app.url}/collections?collection={NAME}&tab=Jobs")
            expect(page.get_by_role("button", name="Search it")).to_be_visible()
            page.screenshot(path=shots / f"{route}-done.png")
    return Killed(
        seen=seen, total=total, on_disk=on_disk, billed={key: bill.get(key, 0) for key in on_disk}, seconds=seconds,
        spent=spent,
    )  # fmt: skip


def _asked_for(sandbox: Sandbox, since: int) -> str | None:
    """The batch that was asked for since so many requests."""
    asked = (r.operation.removeprefix("GET /batches/") for r in sandbox.received()[since:] if r.status == 200)
    return next((name for name in asked if name.startswith("batch_")), None)


# ---- beside it ---------------------------------------------------------------------------------


def aside(work: Coroutine[Any, Any, None]) -> None:
    """Run it in a thread of its own: Playwright keeps an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


def undisturbed(data: Path, env: Mapping[str, str], corpus: Path, model: str) -> None:
    """The same corpus through the same library, from beginning to end, by calls now."""
    data.mkdir(parents=True, exist_ok=True)
    route: JobRoute = "local" if model == LOCAL else "api"

    async def run() -> None:
        async with Router.open(data, env=env) as router:
            library = Library(router)
            worker = Worker(router, library.corpora, library.jobs)
            await library.create(NAME)
            await library.add_files(NAME, [corpus])
            await library.confirm(NAME, model=model, route=None if route == "local" else route)
            await worker.run_all()
            [job] = library.jobs.all()
            assert (job.state, job.failed) == ("done", 0), job
            await worker.stop()
            await library.aclose()

    aside(run())


def exported(data: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Text and vector of every chunk, by its name."""

    async def run() -> None:
        async with Router.open(data, env={}) as router:
            library = Library(router)
            await library.export(NAME, data / "out.parquet")
            await library.aclose()

    aside(run())
    table = pq.read_table(data / "out.parquet")
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    rows = zip(table["id"].to_pylist(), table["text"].to_pylist(), vectors, strict=True)
    return {name: (text, vector) for name, text, vector in rows}


def compare(one: Path, other: Path) -> tuple[float, int, int]:
    """(lowest cosine, vectors that are equal bit for bit, vectors) of two exports of the same texts."""
    a, b = exported(one), exported(other)
    assert {name: text for name, (text, _) in a.items()} == {name: text for name, (text, _) in b.items()}
    cosines = [float(vector @ b[name][1]) for name, (_, vector) in a.items()]
    return min(cosines), sum(vector.tobytes() == b[name][1].tobytes() for name, (_, vector) in a.items()), len(a)


# ---- the three runs ----------------------------------------------------------------------------


class Report:
    """Prints what was seen, and remembers what was missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def say(self, words: str) -> None:
        print(f"  {words}", flush=True)

    def hold(self, true: bool, words: str) -> None:
        """A figure with its bound."""
        self.say(f"{words}{'' if true else '   <-- MISSED'}")
        if not true:
            self.missed.append(words)


def tell(report: Report, route: str, run: Killed, one: Path, other: Path) -> None:
    """What every run must come to."""
    print(f"{route}: {run.total:,} texts", flush=True)
    shown = ", ".join(f"{done:,}" for done in run.seen)
    report.hold(route == "batch" or len(run.seen) >= 3, f"progress on the page before the kill: {shown}")
    report.say(f"{len(run.on_disk):,} vectors on disk at the kill; done by itself {run.seconds:.1f} s after the start")
    lowest, equal, n = compare(one, other)
    least = LEAST_COSINE if route == "local" else 1 - 1e-6
    report.hold(lowest >= least, f"against the undisturbed run: lowest cosine {lowest:.7f}, {equal:,} of {n:,} equal")


def run_local(report: Report, browser: Browser, folder: Path, corpus: Path, shots: Path | None) -> None:
    with App(folder / "local", {}) as app:
        run = killed(browser, app, corpus, LOCAL, "local", None, shots)
    other = folder / "local-undisturbed"
    other.mkdir()
    shutil.copy(app.data / "precision.json", other)  # it is measured at the first load, and might come out otherwise
    undisturbed(other, {}, corpus, LOCAL)
    tell(report, "local", run, app.data, other)


def run_paid(
    report: Report, browser: Browser, folder: Path, corpus: Path, shots: Path | None, routes: list[str]
) -> None:
    other = folder / "paid-undisturbed"
    with Sandbox() as sandbox:
        undisturbed(other, sandbox.environment, corpus, PAID)
        price_now = sandbox.bill().nanodollars
    for route in routes:
        with Sandbox(latency_ms=500, max_in_flight=4, batch_seconds=1e9) as sandbox:
            with App(folder / route, sandbox.environment, SMALL_CALLS) as app:
                run = killed(browser, app, corpus, PAID, route, sandbox, shots)
            tell(report, route, run, app.data, other)
            bill, books = sandbox.bill(), audit_folder(app.data)
            again = sum(bill.digests[key] != times for key, times in run.billed.items())
            report.hold(again == 0, f"{again} of {len(run.on_disk):,} texts on disk at the kill were billed again")
            twice = sum(times - 1 for times in bill.digests.values())
            report.hold(twice <= 2 * 4 * 16, f"{twice:,} texts billed twice in all, in flight at the kill")
            report.hold(
                bill.nanodollars <= books.shown and books.held == 0,
                f"bill {bill.nanodollars:,} nanodollars; ledger {books.settled:,} settled, {books.unconfirmed:,}"
                f" unconfirmed, {books.held:,} held; the job says {run.spent:,}",
            )
            if route == "batch":
                made = sum(r.operation == "POST /batches" and r.status == 200 for r in sandbox.received())
                report.hold(made == 1, f"batches made: {made}")
                report.hold(
                    bill.nanodollars * 2 == price_now == run.spent * 2,
                    f"half the price: {bill.nanodollars:,} against {price_now:,} now",
                )


def main() -> int:
    """Print the figures; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a file to upload instead of varied sample articles")
    parser.add_argument("--rows", type=int, help="only so many lines of it")
    parser.add_argument("--only", choices=["local", "api", "batch"], nargs="+", default=["local", "api", "batch"])
    parser.add_argument("--shots", type=Path, help="a folder for screenshots")
    args = parser.parse_args()
    expect.set_options(timeout=120_000)
    if args.shots is not None:
        args.shots.mkdir(parents=True, exist_ok=True)
    report = Report()
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        folder = Path(made)
        corpus = folder / "corpus.jsonl"
        if args.corpus is None:
            make_corpus(corpus, 0.5)
        else:
            lines = args.corpus.read_text(encoding="utf-8").splitlines(keepends=True)
            corpus.write_text("".join(lines[: args.rows]), "utf-8")
        browser = launch(playwright)
        if "local" in args.only:
            run_local(report, browser, folder, corpus, args.shots)
        if paid := [route for route in args.only if route != "local"]:
            run_paid(report, browser, folder, corpus, args.shots, paid)
        browser.close()
    print(json.dumps({"missed": report.missed}))
    return int(bool(report.missed))


if __name__ == "__main__":
    sys.exit(main())
