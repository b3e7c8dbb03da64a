"""Fault 42: an exception that nobody foresaw, in the reader of one file of twenty.

Figure: nineteen are read, one is named with its kind, and the log has the traceback; in the browser and in the shell.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pages.components import columns as choosing
from router.cli.rows import read_files
from router.domain.errors import BadInput, StoreFull
from router.ingest import archives, extract, readers_rows
from router.ingest.columns import AS_USUAL
from router.store.collections import Corpora
from tests.ingest.makers import archive
from tests.libraries import opened


@pytest.fixture
def twenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ten tables and ten documents; the reader of `07.csv`, or of `13.md`, has a fault."""
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(10):
        (folder / f"{n:02}.csv").write_text(f"id,text\n1,row {n}\n2,more {n}\n", "utf-8")
        (folder / f"{n + 10:02}.md").write_text(f"Document {n}", "utf-8")
    rows, clean = readers_rows.READERS[".csv"], extract.without_data

    def broken_rows(path: Path, *more: Any) -> Iterator[Any]:
        for number, row in enumerate(rows(path, *more)):
            if path.name == "07.csv" and number:
                raise KeyError("nobody thought of this")
            yield row

    def broken_document(text: str) -> Any:
        if text == "Document 3":
            raise RecursionError("nor of this")
        return clean(text)

    monkeypatch.setitem(readers_rows.READERS, ".csv", broken_rows)
    monkeypatch.setattr(extract, "without_data", broken_document)
    return folder


async def test_the_others_are_read_in_the_browser(
    twenty: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, figure: Callable[[int, str], None]
) -> None:
    """An upload of twenty: each of the two is reported with its kind, and logged with its traceback."""
    async with opened(tmp_path / "data") as here:
        await here.library.create("docs")
        with caplog.at_level(logging.ERROR):
            reports = {r.name: r for r in await here.library.add_files("docs", [twenty])}
        failed = {name: r.reason for name, r in reports.items() if r.state == "failed"}
        assert set(failed) == {"07.csv", "13.md"}
        assert "KeyError: 'nobody thought of this'" in failed["07.csv"]
        assert "RecursionError: nor of this" in failed["13.md"]
        assert {d.name for d in here.library.documents("docs") if d.state == "added"} == set(reports) - set(failed)
    assert caplog.text.count("Traceback") == 2
    assert "in broken_rows" in caplog.text
    figure(42, f"{len(reports) - len(failed)} of {len(reports)} read, {len(failed)} named")


def test_the_others_are_read_in_the_shell(twenty: Path) -> None:
    """The same of a folder; a file by itself is refused with the reason."""
    found = read_files([twenty])
    assert {row.id for row in found.broken} == {"07.csv", "13.md"}
    assert "nobody foresaw this KeyError" in found.broken[0].reason
    assert len(found.texts) == 9 * 2 + 1 + 9  # the row before the fault was read
    with pytest.raises(BadInput, match="nobody foresaw this RecursionError"):
        read_files([twenty / "13.md"])


async def test_a_file_that_vanishes_costs_only_itself(twenty: Path, tmp_path: Path) -> None:
    """Between the look at it and its reading."""
    async with opened(tmp_path / "data") as here:
        collection = await here.library.create("docs")
        files = sorted(twenty.iterdir())
        real = extract.kind_of

        def vanishing(path: Path) -> Any:
            if path.name == "11.md":
                path.unlink(missing_ok=True)
            return real(path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("router.ingest.archives.kind_of", vanishing)
            reports = {r.name: r for r in await here.library.add_files(collection.name, files)}
        assert reports["11.md"].state == "failed"
        assert sum(r.state == "added" for r in reports.values()) == 17


async def test_a_document_that_cannot_be_written_costs_only_itself(
    twenty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that share its commit are written, and the reports keep the order of the files."""
    real = Corpora.whole_document

    def broken(self: Corpora, *args: Any, **about: Any) -> Any:
        def write(conn: Any) -> None:
            real(self, *args, **about)(conn)
            if about["name"] == "12.md":
                raise ZeroDivisionError

        return write

    monkeypatch.setattr(Corpora, "whole_document", broken)
    async with opened(tmp_path / "data") as here:
        collection = await here.library.create("docs")
        reports = await here.library.add_files("docs", [twenty])
        assert [r.name for r in reports] == sorted(r.name for r in reports)
        assert {r.name for r in reports if r.state == "failed"} == {"07.csv", "12.md", "13.md"}
        documents = {d.name: d for d in here.library.corpora.documents(collection.id)}
        assert {r.name: r.chunks for r in reports} == {name: d.chunks for name, d in documents.items()}
        assert documents["12.md"].state == "failed"


def test_an_entry_that_cannot_be_unpacked_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a zip, and of files beside it; a full disk is no file's trouble and is told as such."""
    real = archives.save_stream
    trouble: Exception = ZeroDivisionError("in the zip")

    def broken(*args: Any, name: str = "", **more: Any) -> Any:
        if name == "b.md":
            raise trouble
        return real(*args, name=name, **more)

    monkeypatch.setattr(archives, "save_stream", broken)
    path = archive(tmp_path / "a.zip", {"a.md": "A", "b.md": "B", "c.md": "C"})
    verdicts = archives.expand([path], tmp_path / "into")
    assert [verdict.path is not None for verdict in verdicts] == [True, False, True]
    assert "ZeroDivisionError: in the zip" in verdicts[1].reason
    trouble = StoreFull("The disk is full.", "")
    with pytest.raises(StoreFull):
        archives.expand([path], tmp_path / "into")


def test_a_table_whose_columns_cannot_be_told_leaves_the_page_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chooser offers nothing for it, and the others keep theirs."""

    def broken(path: Path) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(choosing, "columns_of", broken)
    monkeypatch.setattr(choosing.st, "session_state", {})
    upload = io.BytesIO(b"id,text\n1,x\n")
    upload.file_id, upload.name = "1", "a.csv"  # type: ignore[attr-defined]
    assert choosing.chooser(upload) == AS_USUAL
