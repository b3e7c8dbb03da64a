"""Memory of a large corpus: read, quoted and embedded, streamed, above what the program takes when idle.

A JSON Lines corpus is made by varying the sample articles (2 MB, then `--megabytes`, 20 by default), and goes through
a collection in a process of its own: read into chunks, quoted, and embedded against the sandbox in its fast mode (in
another process). At a quarter the job is paused and resumed; at half the process kills itself with SIGKILL. A second
process finds the job and ends it by itself, searches and exports. Idle is the same process with the local model
loaded. The figure is the peak of its resident memory above that: at most 512 MB, and as good as the same for both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from router.sandbox import Sandbox

if TYPE_CHECKING:
    from router.store.jobs import Job

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples" / "help-centre"
MODEL = "openai/text-embedding-3-small"
LIMIT_MB = 512
MORE_MB = 64
"""The most that a large corpus may take above a little one."""
LITTLE_MB = 2


def make_corpus(path: Path, megabytes: float) -> int:
    """Write a corpus of about so many megabytes; every row is a paragraph or two with its words changed. Rows."""
    rng = random.Random(4)
    articles = [file.read_text(encoding="utf-8") for file in sorted(SAMPLES.glob("*.md"))]
    paragraphs = [p for article in articles for p in article.split("\n\n") if len(p) > 120]
    words = sorted({word for p in paragraphs for word in p.split() if word.isalpha()})
    rows = size = 0
    with path.open("w", encoding="utf-8") as out:
        while size < megabytes * 1_000_000:
            text = " ".join(rng.choice(paragraphs) for _ in range(rng.randint(1, 3))).split()
            for _ in range(len(text) // 6):
                text[rng.randrange(len(text))] = rng.choice(words)
            line = json.dumps({"id": f"row-{rows}", "text": " ".join(text)}) + "\n"
            size += out.write(line)
            rows += 1
    return rows


class Peak:
    """The most resident memory of this process from now on, in MB. What is mapped from files counts too."""

    def __init__(self) -> None:
        self.most = self.of_its_own = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            resident, own = memory_mb()
            self.most, self.of_its_own = max(self.most, resident), max(self.of_its_own, own)


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process, and the part of it that is not mapped from files, in MB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)

    def mb(name: str) -> float:
        return int(fields[name].split()[0]) / 1024

    return mb("VmRSS"), mb("RssAnon")


class Program:
    """What the app has in its process: a router, its collections, and the worker that runs their jobs."""

    def __init__(self, folder: Path) -> None:
        from router.engine import Router
        from router.jobs.worker import Worker
        from router.library import Library

        self.loop = asyncio.new_event_loop()
        self._opening = Router.open(folder)
        router = self.run(self._opening.__aenter__())
        self.run(router.embed([f"idle: the local model is loaded in {os.getpid()}"], policy="local"))
        self.library = Library(router)
        self.worker = Worker(router, self.library.corpora, self.library.jobs, poll_s=0.1)
        self.idle = memory_mb()
        tell("idle", 0.0, *self.idle)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        return self.loop.run_until_complete(work)

    def step(self, name: str, work: Coroutine[Any, Any, object], *, then: Callable[[], None] = lambda: None) -> None:
        """Run it, and tell the peak of memory meanwhile; `then` is done before the loop stops turning."""

        async def watched() -> None:
            peak, start = Peak(), time.perf_counter()
            await work
            peak.stop()
            seconds = time.perf_counter() - start
            tell(name, seconds, peak.most - self.idle[0], peak.of_its_own - self.idle[1])
            then()

        self.run(watched())

    async def until(self, true: Callable[[Job], bool]) -> None:
        """Return once something is true of the job."""
        while not true(self.library.jobs.all()[0]):
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """End in good order."""
        self.run(self.worker.stop())
        self.run(self.library.aclose())
        self.run(self._opening.__aexit__(None, None, None))
        self.loop.close()


def before_the_kill(folder: Path, corpus: Path) -> None:
    """Read, quote, embed; paused at a quarter and resumed; killed at half."""
    program = Program(folder)
    library = program.library

    async def to_a_quarter() -> None:
        job = await library.confirm("corpus")
        program.worker.start()
        await program.until(lambda job: job.done * 4 >= job.total)
        await library.pause(job.id)
        await program.until(lambda job: job.lease_until == 0)
        assert library.job(job.id).state == "paused"
        assert library.job(job.id).done * 2 < job.total, "the job was not paused in time"

    async def to_half() -> None:
        job = await library.resume(library.jobs.all()[0].id)
        await program.until(lambda job: job.done * 2 >= job.total)
        assert library.job(job.id).state == "running"

    program.run(library.create("corpus", model=MODEL, policy="quality"))
    program.step("read", library.add_files("corpus", [corpus]))
    program.step("quote", library.quote("corpus"))
    program.step("embed, to its pause", to_a_quarter())
    program.step("resumed, to its kill", to_half(), then=lambda: os.kill(os.getpid(), signal.SIGKILL))


def after_the_kill(folder: Path) -> None:
    """The job is found and ended by itself; then its vectors are used."""
    from router.search import index

    program = Program(folder)

    async def to_the_end() -> None:
        program.worker.start()
        await program.until(lambda job: job.state not in ("queued", "running"))
        [job] = program.library.jobs.all()
        assert (job.state, job.done, job.failed) == ("done", job.total, 0), job

    program.step("found, to its end", to_the_end())
    index.MOST_BYTES = 0  # streamed: vectors that a search holds for the next one, up to a limit, are not measured here
    program.step("search", program.library.search("corpus", "how do I pay by card?"))
    program.step("export", program.library.export("corpus", folder / "out.parquet", with_text=True))
    program.close()


def tell(name: str, seconds: float, resident: float, own: float) -> None:
    """A figure, for the process that waits for it."""
    print(json.dumps([name, seconds, resident, own]), flush=True)


def measure(corpus: Path, sandbox: Sandbox) -> float:
    """Print the steps of the two processes; the worst peak."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for part, ends in (("before", -signal.SIGKILL), ("after", 0)):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.corpus_memory", "--child", part, folder, str(corpus)],
                cwd=ROOT, env={**os.environ, **sandbox.environment}, stdout=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == ends, f"the process ended with {done.returncode}"
            for name, seconds, resident, own in map(json.loads, done.stdout.splitlines()):
                if name == "idle":
                    print(f"  idle {resident:,.0f} MB ({own:,.0f} its own)", flush=True)
                    continue
                print(f"  {name:22} {seconds:8.1f} s   peak {resident:6,.0f} MB above idle ({own:,.0f} its own)")
                worst = max(worst, resident)
    return worst


def main() -> int:
    """Print the figures; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--child", nargs=3, metavar=("PART", "FOLDER", "CORPUS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        part, folder, corpus = args.child
        before_the_kill(Path(folder), Path(corpus)) if part == "before" else after_the_kill(Path(folder))
        return 0
    worst: list[float] = []
    with tempfile.TemporaryDirectory() as made, Sandbox() as sandbox:
        for megabytes in (LITTLE_MB, args.megabytes):
            path = Path(made) / "corpus.jsonl"
            rows = make_corpus(path, megabytes)
            sandbox.reset()
            print(f"{path.stat().st_size / 1e6:,.1f} MB, {rows:,} rows", flush=True)
            worst.append(measure(path, sandbox))
    print(f"worst peak above idle: {max(worst):,.0f} MB (limit {LIMIT_MB})")
    print(f"the large corpus above the little one: {worst[1] - worst[0]:,.0f} MB (limit {MORE_MB})")
    return int(max(worst) > LIMIT_MB or worst[1] - worst[0] > MORE_MB)


if __name__ == "__main__":
    sys.exit(main())
