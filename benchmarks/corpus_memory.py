"""Memory of a large corpus: read, quoted and embedded, streamed, above what the program takes when idle.

A JSON Lines corpus is made by varying the sample articles (2 MB, then `--megabytes`, 20 by default), and goes through
a collection in a process of its own: read into chunks, quoted, embedded against the sandbox in its fast mode (in
another process), searched and exported. Idle is the same process with the local model loaded. The figure is the peak
of its resident memory above that; it must be at most 512 MB, and grow hardly with the corpus.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from router.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples" / "help-centre"
MODEL = "openai/text-embedding-3-small"
LIMIT_MB = 512
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
    """The most resident memory of this process while a block runs, in MB. What is mapped from files counts too."""

    def __enter__(self) -> Peak:
        self.most = self.of_its_own = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
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


def steps(folder: Path, corpus: Path) -> Iterator[tuple[str, float, float, float]]:
    """(what, seconds, peak above idle, peak above idle without what is mapped from files), in MB, a step each."""
    from router.corpora.library import Library
    from router.corpora.worker import Worker
    from router.engine import Router

    loop = asyncio.new_event_loop()
    opening = Router.open(folder)
    router = loop.run_until_complete(opening.__aenter__())
    loop.run_until_complete(router.embed(["idle: the local model is loaded"], policy="local"))
    library = Library(router)
    worker = Worker(router, library.corpora, library.jobs)
    idle, idle_own = memory_mb()
    yield "idle", 0.0, idle, idle_own

    async def confirm() -> None:
        await library.confirm("corpus")
        await worker.run_all()
        [job] = library.jobs.all()
        assert (job.state, job.failed) == ("done", 0), job

    loop.run_until_complete(library.create("corpus", model=MODEL, policy="quality"))
    for what, work in (
        ("read", lambda: library.add_files("corpus", [corpus])),
        ("quote", lambda: library.quote("corpus")),
        ("embed", confirm),
        ("search", lambda: library.search("corpus", "how do I pay by card?")),
        ("export", lambda: library.export("corpus", folder / "out.parquet", with_text=True)),
    ):
        start = time.perf_counter()
        with Peak() as peak:
            loop.run_until_complete(work())
        yield what, time.perf_counter() - start, peak.most - idle, peak.of_its_own - idle_own
    loop.run_until_complete(worker.stop())
    loop.run_until_complete(library.aclose())
    loop.run_until_complete(opening.__aexit__(None, None, None))
    loop.close()


def measure(corpus: Path, sandbox: Sandbox) -> dict[str, tuple[float, float, float]]:
    """The steps in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.corpus_memory", "--child", folder, str(corpus)],
            cwd=ROOT, env={**os.environ, **sandbox.environment}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    found: dict[str, tuple[float, float, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the figures; 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "CORPUS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps({name: figures for name, *figures in steps(Path(args.child[0]), Path(args.child[1]))}))
        return 0
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, Sandbox() as sandbox:
        for megabytes in (LITTLE_MB, args.megabytes):
            corpus = Path(folder) / "corpus.jsonl"
            rows = make_corpus(corpus, megabytes)
            sandbox.reset()
            found = measure(corpus, sandbox)
            idle, idle_own = found.pop("idle")[1:]
            print(
                f"{corpus.stat().st_size / 1e6:,.1f} MB, {rows:,} rows; idle {idle:,.0f} MB ({idle_own:,.0f} its own)"
            )
            for name, (seconds, above, own) in found.items():
                print(f"  {name:8} {seconds:8.1f} s   peak {above:6,.0f} MB above idle ({own:,.0f} its own)")
                worst = max(worst, above)
    print(f"worst peak above idle: {worst:,.0f} MB (limit {LIMIT_MB})")
    return int(worst > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
