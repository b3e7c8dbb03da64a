"""Fault 41: Markdown, HTML and texts made to be slow.

Figure: each is read whole or refused, within 30 s, under the reader's limits; the file beside them is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from router.domain.errors import BadInput
from router.ingest import splitter
from router.ingest.chunking import split_texts
from router.ingest.extract import read_document
from tests.libraries import opened

MOST_S = 30.0


def slow(size: int) -> dict[str, str]:
    """Files of about so many characters, of the kinds that were reported and of others like them."""

    def repeated(unit: str) -> str:
        return (unit * (size // len(unit) + 1))[:size]

    return {
        "quotes.md": repeated("> "),
        "lists.md": repeated("".join("  " * n + "- item\n" for n in range(100))),
        "numbers.md": repeated("1. "),
        "brackets.md": repeated("![["),
        "fences.md": repeated("```\n~~~\n"),
        "blanks.md": "x" + repeated(" ") + "x",
        "front.md": "---\ntitle: x\n---\n" + repeated(" ") + "x",
        "data.md": repeated("data:a;"),
        "angles.html": repeated("<"),
        "comments.html": repeated("<!--"),
        "empty.html": repeated("<nav "),
        "deep.html": repeated("<div>"),
        "blanks.html": "<pre>x" + repeated(" ") + "x</pre>",
        "word.txt": repeated("a"),
    }


async def test_no_file_takes_time_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None], pytestconfig: pytest.Config
) -> None:
    """Read whole or refused, in time; with small counts the limit is small as well."""
    full = pytestconfig.getoption("--full")
    size = 400_000 if full else 120_000
    if not full:
        monkeypatch.setattr(splitter, "SECONDS", 3)
    slowest, refused = 0.0, []
    files = slow(size)
    (tmp_path / "good.md").write_text("A good sentence.", "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("docs")
        for name, text in files.items():
            (tmp_path / name).write_text(text, "utf-8")
            began = time.monotonic()
            reports = await here.library.add_files("docs", [tmp_path / name, tmp_path / "good.md"])
            slowest = max(slowest, time.monotonic() - began)
            states = {report.name: report for report in reports}
            assert states["good.md"].state in {"added", "unchanged"}
            if states[name].state == "failed":
                refused.append(name)
                assert "holds no text" in states[name].reason or "takes more than" in states[name].reason
            else:
                assert states[name].chunks
    assert slowest < MOST_S
    figure(41, f"{len(files)} files, the slowest in {slowest:.1f} s; refused: {', '.join(refused) or 'none'}")


def test_a_splitting_that_is_stopped_leaves_the_next_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is ended with a reason, and the text after it is split as ever; short texts stay here."""
    long, words = "> " * 100_000, "Some words in a row. " * 4_000
    monkeypatch.setattr(splitter, "SECONDS", 0)
    with splitter.Splitter() as split:
        with pytest.raises(BadInput, match=r"cannot be split: that takes more than 0 seconds or 448 MB"):
            list(split.pieces(long, tokenizer="wordpiece", limit=256, markdown=True))
        monkeypatch.setattr(splitter, "SECONDS", 20)
        for tokenizer in ("wordpiece", "bytes"):
            found = list(split.pieces(words, tokenizer=tokenizer, limit=128, overlap=8))
            assert [found] == split_texts([words], tokenizer=tokenizer, limit=128, overlap=8)
        with pytest.raises(BadInput, match="half a surrogate pair"):
            list(split.pieces(words + "\ud800", tokenizer="wordpiece", limit=128))
        monkeypatch.setattr(splitter, "Guarded", None)
        assert list(split.pieces("short", tokenizer="bytes", limit=64))
        assert list(split.pieces(words, tokenizer="bytes", limit=512))  # by the process that there is


def test_a_text_too_long_for_the_memory_is_split_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at blank lines: no word is lost, places go on, all but the chunks at the cuts are the same."""
    text = "\n\n".join(f"Paragraph {n} says what has to be said of the number {n}." for n in range(2_000))
    monkeypatch.setattr(splitter, "PART", 40_000)
    with splitter.Splitter() as split:
        found = [text[p.start : p.end] for p in split.pieces(text, tokenizer="wordpiece", limit=64)]
    assert " ".join(found).split() == text.split()
    whole = {text[p.start : p.end] for p in split_texts([text], tokenizer="wordpiece", limit=64)[0]}
    assert len(set(found) - whole) < len(whole) // 10


def test_blanks_without_end_cost_the_reader_nothing(tmp_path: Path) -> None:
    """A megabyte of blanks within a line is no work of hours for the tidying of what was read."""
    path = tmp_path / "a.html"
    path.write_text("<pre>a" + " " * 1_000_000 + "b\n" * 10 + "</pre>", "utf-8")
    began = time.monotonic()
    assert read_document(path).text.startswith("a ")
    assert time.monotonic() - began < MOST_S
