"""Reading a corpus up to its quote, beside one pass of the tokenizer over the same text on all cores.

20 MB of JSON lines, 500 Markdown files and 50 PDFs, made here from the words of samples/. The pass is WordPiece's, by
which chunks are made (the quote's cl100k_base is a second one, and part of what is timed). Medians of turns that
alternate; at least half of the pass' MB/s for the first two. Beside them the CPU seconds of both, with those of their
processes, for a machine that others use as well. With the folder of another checkout as argument
(`git worktree add ../before d046880`), that one is timed beside it, in the same turns.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from router import tokens

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.5
TURNS = 3
JSON_BYTES, MARKDOWN_FILES, PDF_FILES = 20_000_000, 500, 50
READ = """
import asyncio, os, sys, time
from pathlib import Path
from router.engine import Router
from router.library import Library
from router import tokens
tokens.count("wordpiece", ["a"]), tokens.count("cl100k_base", ["a"])
async def main():
    async with Router.open(sys.argv[2], env={}) as router:
        library = Library(router)
        try:
            await library.create("corpus")
            start, cpu = time.perf_counter(), sum(os.times()[:4])
            reports = await library.add_files("corpus", [Path(sys.argv[1])])
            await library.quote("corpus")
            print(time.perf_counter() - start, sum(os.times()[:4]) - cpu)
            assert all(report.state == "added" for report in reports), reports
        finally:
            await library.aclose()
asyncio.run(main())
"""
"""Prints the seconds from the file to its quote, and of CPU; run in a process of its own, by whichever checkout."""


def words() -> list[str]:
    """The words of the samples, in their order."""
    texts = (path.read_text("utf-8") for path in sorted((ROOT / "samples").rglob("*.md")))
    return [word for text in texts for word in re.findall(r"\S+", text) if len(word) < 20]


def paragraphs(rng: random.Random, vocabulary: Sequence[str]) -> Iterator[str]:
    """Endless paragraphs of made-up sentences, 200 to 1,800 characters each."""
    while True:
        sentences: list[str] = []
        length = rng.randint(200, 1_800)
        while sum(map(len, sentences)) < length:
            sentences.append(" ".join(rng.choices(vocabulary, k=rng.randint(6, 22))).capitalize() + ".")
        yield " ".join(sentences)


def json_lines(folder: Path, text: Iterator[str]) -> list[str]:
    """One file of 20 MB; its texts."""
    texts: list[str] = []
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        size = 0
        while size < JSON_BYTES:
            texts.append(next(text))
            size += file.write(json.dumps({"id": f"r{len(texts)}", "text": texts[-1]}) + "\n")
    return texts


def markdown_files(folder: Path, text: Iterator[str]) -> list[str]:
    """500 files of twelve paragraphs under headings."""
    texts = []
    for number in range(MARKDOWN_FILES):
        parts = [f"## Part {n}\n\n{next(text)}" for n in range(12)]
        texts.append(f"# File {number}\n\n" + "\n\n".join(parts))
        (folder / f"{number}.md").write_text(texts[-1], "utf-8")
    return texts


def pdf_files(folder: Path, text: Iterator[str]) -> list[str]:
    """50 files of ten pages of a standard font."""
    texts = []
    for number in range(PDF_FILES):
        pages = [next(text) for _ in range(10)]
        (folder / f"{number}.pdf").write_bytes(pdf(pages))
        texts.append("\n\n".join(pages))
    return texts


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF with a text a page, in lines of about ninety characters."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for n, page in enumerate(pages):
        lines = re.findall(r".{1,90}(?:\s|$)", page.encode("cp1252", "replace").decode("cp1252"))
        lines = [re.sub(r"([()\\\\])", r"\\\1", line) for line in lines]
        shown = "".join(f"({line}) Tj T*\n" for line in lines)
        stream = f"BT /F1 10 Tf 12 TL 50 780 Td\n{shown}ET".encode("cp1252", "replace")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * n} 0 R"
            f" /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF"
        % (len(objects) + 1, table, len(objects) + 1, len(body))
    )


def one_pass(texts: Sequence[str]) -> tuple[float, float]:
    """Seconds for WordPiece over the texts, on all cores: by the clock, and of CPU."""
    start, cpu = time.perf_counter(), time.process_time()
    tokens.count("wordpiece", texts)
    return time.perf_counter() - start, time.process_time() - cpu


def reading(checkout: Path, corpus: Path) -> tuple[float, float]:
    """Seconds from the files to the quote, by a checkout: by the clock, and of CPU."""
    with tempfile.TemporaryDirectory() as data:
        done = subprocess.run(
            [sys.executable, "-c", READ, str(corpus), f"{data}/data"], cwd=checkout, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def main() -> int:
    """Print MB/s of both, and their ratio; 1 where a ratio that is bound is below `LEAST`."""
    before = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    makers: tuple[tuple[str, Callable[[Path, Iterator[str]], list[str]], bool], ...] = (
        ("20 MB of JSON lines", json_lines, True),
        ("500 Markdown files", markdown_files, True),
        ("50 PDFs", pdf_files, False),
    )
    missed = False
    vocabulary = words()
    tokens.count("wordpiece", ["a"])
    for name, make, bound in makers:
        with tempfile.TemporaryDirectory() as folder:
            texts = make(Path(folder), paragraphs(random.Random(1), vocabulary))
            mb = sum(len(text.encode()) for text in texts) / 1e6
            passes, ours, theirs = [], [], []
            for _ in range(TURNS):
                passes.append(one_pass(texts))
                ours.append(reading(ROOT, Path(folder)))
            if before is not None:
                theirs.append(reading(before, Path(folder)))
        tokenizer, tokenizer_cpu = map(statistics.median, zip(*passes, strict=True))
        quoted, quoted_cpu = map(statistics.median, zip(*ours, strict=True))
        missed |= bound and tokenizer / quoted < LEAST
        bar = f"(at least {LEAST})" if bound else ""
        print(f"{name:20} {mb:5.1f} MB  tokenizer {mb / tokenizer:5.2f} MB/s  to the quote {mb / quoted:5.2f}", end=" ")
        print(f"MB/s  ratio {tokenizer / quoted:.2f} {bar}  CPU {tokenizer_cpu:.1f} s and {quoted_cpu:.1f} s", end="")
        for wall, cpu in theirs:
            print(f"  before {mb / wall:.2f} MB/s, CPU {cpu:.1f} s; now {wall / quoted:.1f} times", end="")
        print(flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
