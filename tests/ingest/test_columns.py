"""Which cells are texts and which are ids: delimiters, columns, nesting, and ids that are given once."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.cli.rows import read_files
from router.domain.errors import BadInput
from router.ingest.columns import Columns, Ids
from router.ingest.extract import columns, read_rows
from tests.ingest.makers import archive
from tests.libraries import opened

CASES = Path(__file__).parents[1] / "data" / "cases" / "rows"


def put(folder: Path, name: str, content: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return path


def texts(path: Path, *names: str) -> list[str]:
    return [row.problem or row.text for row in read_rows(path, Columns(texts=names))]


def test_a_survey_is_parted_by_semicolons(tmp_path: Path) -> None:
    """Though its header and its answers have commas."""
    assert columns(CASES / "survey.csv")[2] == "text"
    assert texts(CASES / "survey.csv") == ["Sehr gute Beratung, danke", "Lange Wartezeit"]
    path = put(tmp_path, "a.csv", "id;Wie war es, insgesamt\n1;Sehr gut, danke\n2;Schlecht, leider\n")
    assert texts(path, "Wie war es, insgesamt") == ["Sehr gut, danke", "Schlecht, leider"]


@pytest.mark.parametrize("mark", ",;\t|")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_the_line_that_names_the_delimiter_is_no_record(tmp_path: Path, mark: str, encoding: str) -> None:
    """`sep=;`, as Excel writes it; the lines that follow keep their numbers."""
    path = put(tmp_path, "a.csv", f'sep={mark}\r\nid{mark}text\r\n7{mark}"für {mark} alle"\r\n', encoding)
    assert [(row.id, row.text, row.line) for row in read_rows(path)] == [("7", f"für {mark} alle", 3)]


def test_a_table_of_one_column_may_have_commas(tmp_path: Path) -> None:
    """Where the header has no delimiter, no row has one."""
    assert texts(put(tmp_path, "a.csv", "text\nhello, world\nplain\n")) == ["hello, world", "plain"]


CELLS = st.text(st.sampled_from("ab ,;\t|\"\n'é"), max_size=8)


@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=8), mark=st.sampled_from(",;\t|"))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_what_a_writer_wrote_is_read_back(tmp_path: Path, rows: list[list[str]], mark: str) -> None:
    """Every cell of a table with quoted texts, whichever delimiter parts it."""
    body = io.StringIO()
    writer = csv.writer(body, delimiter=mark, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["note", "text"], *rows])
    path = put(tmp_path, "a.csv", body.getvalue())
    assert texts(path) == ["" if text.isspace() else text for _, text in rows]


def test_two_columns_of_one_name_are_said(tmp_path: Path) -> None:
    """In Parquet as in CSV; an id column that stands twice is only refused where it is asked for."""
    with pytest.raises(BadInput, match="2 columns 'text'"):
        texts(CASES / "dupcol.parquet")
    path = put(tmp_path, "a.csv", "id,id,text\n1,2,x\n")
    assert [(row.id, row.text) for row in read_rows(path)] == [("1", "x")]
    with pytest.raises(BadInput, match="2 columns 'id'"):
        next(read_rows(path, Columns(id="id")))


async def test_a_broken_table_does_not_stop_the_others(tmp_path: Path) -> None:
    """Of several files that are added together the others are read."""
    good = put(tmp_path, "good.csv", "id,text\n1,fine\n")
    async with opened(tmp_path / "data") as here:
        await here.library.create("both")
        reports = await here.library.add_files("both", [CASES / "dupcol.parquet", good])
        assert [(r.name, r.state) for r in reports] == [("dupcol.parquet", "failed"), ("good.csv", "added")]
        assert "2 columns 'text'" in reports[0].reason


def test_several_columns_are_joined_under_their_names(tmp_path: Path) -> None:
    """Empty ones are left out; a single column is taken as it is."""
    path = put(tmp_path, "a.csv", "title,abstract\nOne,First.\n,Second.\n,\n")
    assert texts(path, "title", "abstract") == ["title: One\nabstract: First.", "abstract: Second.", ""]
    assert texts(path, "abstract") == ["First.", "Second.", ""]
    pq.write_table(pa.table({"a": ["x", None], "n": [1, 2]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", "a", "n") == ["a: x\nn: 1", "n: 2"]


def test_nested_keys(tmp_path: Path) -> None:
    """`a.b` is the key b of the object a, `a.0` the first of a list, and a key with a dot comes first."""
    items = [{"meta": {"body": "one", "tags": ["t0", "t1"]}, "a.b": "dotted", "a": {"b": "nested"}}, {"meta": 3}]
    path = put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, items)))
    assert texts(path, "meta.body") == ["one", "has no 'meta.body', only: meta"]
    assert texts(path, "meta.tags.1")[0] == "t1"
    assert texts(path, "a.b")[0] == "dotted"
    assert texts(path, "meta.body", "a.b") == ["meta.body: one\na.b: dotted", ""]
    assert [row.id for row in read_rows(path, Columns(texts=("a.b",), id="meta.tags.0"))] == ["t0", "2"]


def test_the_usual_columns_are_found_in_the_shell_too(tmp_path: Path) -> None:
    """As in the browser: `content` and `key` without a word."""
    found = read_files([put(tmp_path, "a.jsonl", '{"key": "k", "content": "words"}\n')])
    assert (found.ids, found.texts) == (["k"], ["words"])


def test_a_missing_id_takes_no_number_that_a_row_has() -> None:
    """The second row has no id, the first has the id 2."""
    found = read_files([CASES / "idcollide.csv"])
    assert dict(zip(found.texts, found.ids, strict=True)) == {"alpha text": "2", "beta text": "row 2"}


@given(ids=st.lists(st.sampled_from(["", "1", "2", "3", "row 1", "row 2", "1 (2)"]), min_size=1, max_size=12))
def test_no_id_is_given_twice(ids: list[str]) -> None:
    """Whatever ids a file has; a row without one never gets a number."""
    names = Ids()
    given_ids = [names.take(key, number, number) for number, key in enumerate(ids, 1)]
    assert len(set(given_ids)) == len(ids)
    assert all(not given_id.isdecimal() for key, given_id in zip(ids, given_ids, strict=True) if not key)
    assert names.doubled == sum(given_id not in (key, f"row {n}") for n, (key, given_id) in enumerate(
        zip(ids, given_ids, strict=True), 1
    ))  # fmt: skip


async def test_ids_that_stand_twice_are_kept_apart_and_said(tmp_path: Path) -> None:
    """In a request's files and in a collection."""
    path = put(tmp_path, "a.csv", "id,text\n7,one\n7,two\n,three\n")
    found = read_files([path])
    assert found.ids == ["7", "7 (2)", "row 3"]
    assert found.notes == ["1 id stands twice: '7' of line 3 is kept as '7 (2)'."]
    async with opened(tmp_path / "data") as here:
        await here.library.create("rows")
        (report,) = await here.library.add_files("rows", [path])
        assert report.notes == tuple(found.notes)
        document = here.library.documents("rows")[0]
        assert [chunk.label for chunk in here.library.chunks(document.id)] == found.ids


def test_two_folders_with_one_inner_name(tmp_path: Path) -> None:
    """No id twice; the folder tells them apart."""
    folders = Path(__file__).parents[1] / "data" / "cases" / "folders"
    found = read_files([folders / "a", folders / "b"])
    assert found.ids == ["a/notes.md#1", "b/notes.md#1"]
    shutil.copytree(folders, tmp_path / "both")
    assert read_files([tmp_path / "both"]).ids == ["a/notes.md#1", "b/notes.md#1"]


def test_what_a_system_leaves_in_a_zip_is_passed_over() -> None:
    """`__MACOSX` and `.DS_Store` are nobody's documents, and no failure."""
    found = read_files([CASES / "mac.zip"])
    assert (len(found.texts), found.refused) == (1, 0)


NAMES = {
    "cp437": ["résumé.md", "Größe.md"], "cp850": ["Bericht für Köln.md", "Übersicht.md"], "cp866": ["Отчёт за год.md"],
    "cp932": ["報告書.md", "テスト資料.md"], "gb18030": ["报告.md", "年度总结.md"], "big5": ["會議記錄.md"],
    "cp949": ["회의록.md", "보고서.md"], "cp1252": ["Señal único.md"], "cp852": ["Zażółć gęślą.md"],
    "cp1251": ["Отчёт.md"],     "cp737": ["Αναφορά έτους.md"], "utf-8": ["Bericht für Köln.md", "报告.md"],
}  # fmt: skip


@pytest.mark.parametrize("encoding", NAMES)
def test_members_have_the_names_that_their_author_wrote(tmp_path: Path, encoding: str) -> None:
    """Without the UTF-8 flag, in the code page of whoever packed them."""
    names = NAMES[encoding]
    path = archive(
        tmp_path / "a.zip", {f"{n:04}{'x' * (len(name.encode(encoding)) - 4)}": name for n, name in enumerate(names)}
    )
    body = path.read_bytes()
    for n, name in enumerate(names):
        raw = name.encode(encoding)
        body = body.replace(f"{n:04}{'x' * (len(raw) - 4)}".encode(), raw)
    path.write_bytes(body)
    assert [key.rsplit("#", 1)[0] for key in read_files([path]).ids] == names


def test_utf8_without_the_flag() -> None:
    """The case that was reported."""
    (key,) = read_files([CASES / "utf8noflag.zip"]).ids
    assert key == "Bericht für Köln.md#1"
