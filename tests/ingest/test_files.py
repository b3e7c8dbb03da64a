"""Files into chunks: a folder of good and bad ones, tables, encodings, and what an edit costs."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.domain.values import Policy
from router.ingest.columns import Columns
from router.ingest.file_report import FileReport
from router.pipeline.validate import digest
from tests.ingest import makers
from tests.libraries import SMALL, Opened, jsonl, opened, texts

LATIN = (
    "Le café de la gare est fermé à Noël, où l'hiver était d'habitude très doux. Pendant l'été, en revanche, les"
    " voyageurs s'arrêtent à la terrasse, commandent une crème brûlée et repartent après la tombée de la nuit."
)


async def stored(here: Opened, name: str) -> dict[str, list[str]]:
    """The texts of each document of a collection."""
    found: dict[str, list[str]] = {}
    collection = here.library.corpora.get(name).id
    for page in here.library.corpora.chunks.all(collection, states=("added", "ready")):
        for chunk in page:
            found.setdefault(chunk.document, []).append(chunk.text)
            assert digest(chunk.text) == chunk.digest
    return found


def by_name(reports: Sequence[FileReport]) -> dict[str, FileReport]:
    """Reports by the file's name."""
    assert len({report.name for report in reports}) == len(reports)
    return {report.name: report for report in reports}


def article(at: int, more: str = "") -> str:
    """An article of several chunks."""
    parts = [f"Part {n} of article {at} says what to do with thing {n} of {at}. " * 12 for n in range(8)]
    return f"# Article {at}\n\n" + "\n\n".join(parts) + f"\n\n{more}"


async def test_five_good_files_are_taken_and_five_bad_ones_say_why(tmp_path: Path) -> None:
    """A broken PDF, a binary named .txt, an empty file and a zip bomb are reported; Latin-1 is read rightly."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "good.md").write_text("# Good\n\nA good article about bread.", "utf-8")
    (folder / "good.txt").write_text("A good text about tea.\nIt has two lines.", "utf-8")
    (folder / "good.html").write_text("<html><body><p>A good page about jam.</p></body></html>", "utf-8")
    (folder / "good.pdf").write_bytes(makers.pdf_saying("A good document about salt"))
    jsonl(folder / "good.jsonl", ["A good row about milk", "Another one about eggs"])
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nthis is not a PDF at all")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "latin.txt").write_bytes(LATIN.encode("latin-1"))
    (folder / "empty.md").write_bytes(b"")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", b"0" * 60_000_000)
        archive.writestr("inside.md", "A good article in a zip.")
    (folder / "bomb.zip").write_bytes(bomb.getvalue())
    async with opened(tmp_path / "data") as here:
        await here.library.create("mixed")
        reports = by_name(await here.library.add_files("mixed", [folder]))
        assert {name for name, r in reports.items() if r.state == "added"} == {
            *("good.md", "good.txt", "good.html", "good.pdf", "good.jsonl", "latin.txt", "inside.md")
        }
        failed = {name: r.reason for name, r in reports.items() if r.state == "failed"}
        assert set(failed) == {"broken.pdf", "binary.txt", "empty.md", "bomb.txt"}
        assert all(name in reason for name, reason in failed.items())
        assert "200 times" in failed["bomb.txt"]
        assert "empty" in failed["empty.md"]
        found = await stored(here, "mixed")
        assert found["latin.txt"] == [LATIN]
        assert found["good.pdf"] == ["A good document about salt"]
        assert found["good.jsonl"] == ["A good row about milk", "Another one about eggs"]
        assert {d.name: d.reason for d in here.library.documents("mixed") if d.state == "failed"} == failed


async def test_an_edit_changes_only_the_chunks_around_it(tmp_path: Path) -> None:
    """Of a hundred documents one is edited: the others are not even read into chunks again."""
    folder = tmp_path / "files"
    folder.mkdir()
    for at in range(100):
        (folder / f"a{at:03}.md").write_text(article(at), "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("articles", model=SMALL, chunk_tokens=128)
        first = await here.library.add_files("articles", [folder])
        assert {r.state for r in first} == {"added"}
        before = {t for found in (await stored(here, "articles")).values() for t in found}
        await here.library.corpora.confirm(here.library.corpora.get("articles").id)
        (folder / "a050.md").write_text(article(50, "One more sentence at the end of it."), "utf-8")
        again = by_name(await here.library.add_files("articles", [folder]))
        assert [name for name, r in again.items() if r.state != "unchanged"] == ["a050.md"]
        await here.library.corpora.confirm(here.library.corpora.get("articles").id)
        after = {t for found in (await stored(here, "articles")).values() for t in found}
        assert 1 <= len(after - before) <= 2
        assert here.library.info("articles").documents == 100


async def test_rows_are_taken_exactly_and_bad_ones_are_skipped(tmp_path: Path) -> None:
    """White space at the ends stays, so that the cache knows the text from elsewhere; a NUL, half an emoji go."""
    rows = ["  two blanks before  ", "", "a NUL \0 in it", "half an emoji \ud83d", "plain"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": at, "text": t}) for at, t in enumerate(rows)), "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows")
        [report] = await here.library.add_files("rows", [path])
        assert (report.state, report.chunks, report.skipped) == ("added", 2, 3)
        assert report.reason == "Row 1 (line 2) is empty."
        assert await stored(here, "rows") == {"rows.jsonl": ["  two blanks before  ", "plain"]}
        [document] = here.library.documents("rows")
        assert [c.key for c in here.library.chunks(document.id)] == ["rows.jsonl#0", "rows.jsonl#4"]


async def test_a_broken_line_is_reported_and_the_others_are_taken(tmp_path: Path) -> None:
    """With its number and its reason, of the first twenty; a file of nothing else says why."""
    lines = ['{"text": "a good row"}', *["{broken"] * 30, '{"text": "another good row"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "none.jsonl").write_text("{broken\n" * 3, "utf-8")
    (tmp_path / "table.csv").write_text("id,text\n1,fine\n2,Hello, world\n3,fine too\n", "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows")
        reports = by_name(await here.library.add_files("rows", sorted(tmp_path.glob("*.*"))))
        rows, none, table = (reports[name] for name in ("rows.jsonl", "none.jsonl", "table.csv"))
        assert (rows.state, rows.chunks, rows.skipped, len(rows.reasons)) == ("added", 2, 30, 20)
        assert rows.reason.startswith("Row 2 (line 2) is not valid JSON: ")
        assert rows.reasons[19].startswith("Row 21 (line 21)")
        assert (table.chunks, table.skipped) == (2, 1)
        assert table.reason.startswith("Row 2 (line 3) has 3 cells")
        assert none.state == "failed"
        assert "all of its 3 rows are empty or broken. Row 1 (line 1) is not valid JSON" in none.reason


async def test_a_long_row_is_split_and_its_chunks_are_told_apart(tmp_path: Path) -> None:
    """No chunk is over the limit by the model's own tokenizer; short rows stay whole."""
    path = jsonl(tmp_path / "rows.jsonl", ["short", "word " * 2_000, "also short"])
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows", model=SMALL, chunk_tokens=300)
        [report] = await here.library.add_files("rows", [path])
        [document] = here.library.documents("rows")
        chunks = here.library.chunks(document.id, limit=100)
        assert report.chunks == len(chunks) > 3
        assert all(chunk.tokens <= 300 for chunk in chunks)
        labels = [chunk.label for chunk in chunks]
        assert labels == ["r0", *(f"r1/{n}" for n in range(1, len(chunks) - 1)), "r2"]
        assert "".join(c.text for c in chunks[1:-1]).split() == ["word"] * 2_000 or all(
            set(c.text.split()) == {"word"} for c in chunks[1:-1]
        )


@pytest.mark.parametrize(
    ("given", "want"), [({}, "the body"), ({"table.csv": "note"}, "the note"), ({"": "note"}, "the note")]
)
async def test_the_column_of_a_table_is_found_or_given(tmp_path: Path, given: dict[str, str], want: str) -> None:
    """Without a word `text`, `content`, `body` and so on are looked for in this order."""
    path = tmp_path / "table.csv"
    path.write_text("id,note,body\n7,the note,the body\n", "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("table")
        await here.library.add_files(
            "table", [path], columns={file: Columns(texts=(column,)) for file, column in given.items()}
        )
        assert await stored(here, "table") == {"table.csv": [want]}


async def test_a_table_without_such_a_column_names_those_that_there_are(tmp_path: Path) -> None:
    """The report says what to choose from."""
    path = tmp_path / "table.csv"
    path.write_text("number,colour\n7,red\n", "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("table")
        [report] = await here.library.add_files("table", [path])
        assert report.state == "failed"
        assert "number, colour" in report.reason


async def test_a_txt_is_one_document_or_a_text_a_line(tmp_path: Path) -> None:
    """As somebody says."""
    path = tmp_path / "lines.txt"
    path.write_text("the first line\nthe second line\n", "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("one")
        await here.library.create("lines")
        await here.library.add_files("one", [path])
        await here.library.add_files("lines", [path], txt_lines=True)
        assert await stored(here, "one") == {"lines.txt": ["the first line\nthe second line"]}
        assert await stored(here, "lines") == {"lines.txt": ["the first line", "the second line"]}


async def test_a_policy_that_normalises_does_so_before_chunks_are_made(tmp_path: Path) -> None:
    """Else the engine would embed another text than the one whose digest is looked for."""
    path = jsonl(tmp_path / "rows.jsonl", ["  cafe\u0301  ", "caf\u00e9"])
    async with opened(tmp_path / "data") as here:
        await here.router.policies.save(Policy(name="tidy", normalise=True), ["m"])
        await here.library.create("rows", policy="tidy")
        await here.library.add_files("rows", [path])
        assert await stored(here, "rows") == {"rows.jsonl": ["caf\u00e9", "caf\u00e9"]}


async def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Two folders may both have a readme."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "readme.md").write_text(f"This is the readme of {name}.", "utf-8")
    async with opened(tmp_path / "data") as here:
        await here.library.create("both")
        reports = await here.library.add_files("both", [tmp_path / "a", tmp_path / "b"])
        assert [r.name for r in reports] == ["a/readme.md", "b/readme.md"]
        assert len(await stored(here, "both")) == 2


async def test_an_upload_is_deleted_once_it_was_read_and_a_persons_file_is_not(tmp_path: Path) -> None:
    """The texts are in the chunks, and must go when these are erased; what lies elsewhere is not ours."""
    mine = jsonl(tmp_path / "mine.jsonl", texts(3))
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows")
        with mine.open("rb") as stream:
            saved = here.library.upload(stream, "theirs.jsonl")
        archive = tmp_path / "more.zip"
        with zipfile.ZipFile(archive, "w") as made:
            made.writestr("packed.md", "An article that was packed.")
        reports = await here.library.add_files("rows", [saved.path, mine, archive])
        assert [r.state for r in reports] == ["added"] * 3
        assert mine.is_file()
        assert archive.is_file()
        assert [p for p in (tmp_path / "data" / "uploads").rglob("*") if p.is_file()] == []


async def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    """A page can draw a bar: bytes read never fall, and end at all of them."""
    path = jsonl(tmp_path / "rows.jsonl", texts(3_000))
    seen: list[tuple[int, int, str]] = []
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows")
        await here.library.add_files("rows", [path], progress=lambda *now: seen.append(now))
    size = path.stat().st_size
    assert seen[0][:2] == (0, size)
    assert seen[-1][:2] == (size, size)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert len(seen) > 4


async def test_closing_while_a_file_is_read_ends_the_reading(tmp_path: Path) -> None:
    """The program can end at any time; what was read of the file is not half there."""
    path = jsonl(tmp_path / "rows.jsonl", texts(20_000))
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows")
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int, name: str) -> None:
            if done:
                loop.call_soon_threadsafe(begun.set)

        reading = asyncio.create_task(here.library.add_files("rows", [path], progress=progress))
        await begun.wait()
    [report] = await reading
    assert report.state == "failed"
    assert "cancelled" in report.reason
    async with opened(tmp_path / "data") as here:
        assert here.library.info("rows").new_documents == 0
        assert list(here.library.corpora.chunks.distinct(1, states=("adding", "added", "ready", "failed"))) == []
