"""Rows of tables and lists."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.domain.errors import BadInput
from router.ingest import readers_rows, readers_text
from router.ingest.columns import Columns
from router.ingest.extract import columns, read_rows
from router.ingest.readers_rows import Row

FRENCH = "Le garçon a mangé la crème brûlée à l’hôtel. “Très bon”, dit-il au maître d’œuvre.\n"


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(path: Path, *columns: str) -> list[str]:
    return [row.text for row in read_rows(path, Columns(texts=columns))]


def test_txt_is_a_text_a_line(tmp_path: Path) -> None:
    """Each line is a row with its number as id; empty and white rows come as ""; inner white space and NUL are kept."""
    path = put(tmp_path, "a.txt", "one\n\n  \t\r\n two \x00 \nthree")
    assert list(read_rows(path)) == [
        Row(id="1", number=1, text="one", line=1),
        Row(id="2", number=2, text="", line=2),
        Row(id="3", number=3, text="", line=3),
        Row(id="4", number=4, text=" two \x00 ", line=4),
        Row(id="5", number=5, text="three", line=5),
    ]


def test_a_broken_line_does_not_stop_the_others(tmp_path: Path) -> None:
    """It has its number, its line and its reason, and no text."""
    path = put(tmp_path, "a.jsonl", '{"text": "good"}\n\n{broken\n{"text": "also good"}\n')
    rows = list(read_rows(path))
    assert [(row.id, row.text, row.line) for row in rows] == [("1", "good", 1), ("2", "", 3), ("3", "also good", 4)]
    assert [row.problem for row in rows if row.problem] == [
        "is not valid JSON: Expecting property name enclosed in double quotes"
    ]
    assert columns(put(tmp_path, "b.jsonl", '{broken\n{"id": 1, "body": "x"}\n')) == ["id", "body"]


def test_jsonl_ids_numbers_nulls_and_strings(tmp_path: Path) -> None:
    """Ids may be numbers or missing, a text null or NaN, a line a bare string; blank lines do not count."""
    path = put(
        tmp_path,
        "a.jsonl",
        '{"id": "x", "text": "a"}\n\n{"id": 7, "text": null}\n{"text": NaN}\n"bare"\n{"id": null, "text": " "}\n',
    )
    assert [(row.id, row.text, row.line) for row in read_rows(path)] == [
        ("x", "a", 1),
        ("7", "", 3),
        ("", "", 4),
        ("", "bare", 5),
        ("", "", 6),
    ]


def test_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    """A lone surrogate from a JSON escape reaches the caller as it is, in both JSON readers."""
    assert texts(put(tmp_path, "a.jsonl", r'{"text": "a\ud800b"}')) == ["a\ud800b"]
    assert texts(put(tmp_path, "a.json", r'["a\ud800b", "\u0000"]')) == ["a\ud800b", "\x00"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": 5}', "has a 'text' that is not text"),
        ('{"text": true}', "has a 'text' that is not text"),
        ('{"text": ["a"]}', "has a 'text' that is not text"),
        ('{"text": "a", "id": []}', "has an 'id' that is neither text nor a number"),
        ('{"body": "a", "title": "b"}', "has no 'text', only: body, title"),
        ("{}", "has no 'text', only: nothing"),
        ("5", "is neither an object nor a string"),
        ("[" * 100_000, "is not valid JSON: nested too deeply"),
        ("1" * 5_000, "is not valid JSON: Exceeds the limit"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_bad_json_row_is_set_aside_with_its_line(tmp_path: Path, name: str, line: str, reason: str) -> None:
    """What is no text is not made one. A list that is no JSON cannot be read on; a file of lines can."""
    good = '{"text": "fine"}'
    path = put(tmp_path, name, f"{good}\n{line}\n{good}" if name == "a.jsonl" else f"[{good},\n{line},\n{good}]")
    if name == "a.json" and "JSON" in reason:
        with pytest.raises(BadInput, match=f"line 2: {reason.removeprefix('is ')}"):
            texts(path)
        return
    rows = list(read_rows(path))
    assert [(row.text, row.line) for row in rows] == [("fine", 1), ("", 2), ("fine", 3)]
    assert [row.problem.startswith(reason) for row in rows] == [False, True, False]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"data": []}', "is not a list"),
        ('["a",\n"b"', "line 2: .*expected , or ]"),
        ('["a",\n]', "line 2: not valid JSON"),
        ('["a"\n"b"]', "line 2: .*expected , or ]"),
        ('["a"]\n\n[]', "line 3: .*something follows"),
        ('["a",\n\n"b\nc"]', "line 3: .*control character"),
        ('[{"text": "a"},\n{"text":\n"a" "b"}]', "line 3: not valid JSON"),
        ("   ", "is not a list"),
    ],
)
def test_a_broken_json_list_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    """A list that does not end, or has something behind it, is an error with its line, never a short list."""
    with pytest.raises(BadInput, match=reason):
        texts(put(tmp_path, "a.json", content))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    items=st.lists(st.one_of(st.text(), st.fixed_dictionaries({"text": st.text(), "n": st.integers()}))),
    indent=st.sampled_from([None, 2]),
    block=st.integers(1, 40),
)
def test_a_json_list_reads_as_the_standard_library_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: list[object], indent: int | None, block: int
) -> None:
    """Whatever the size of the blocks in which it is read."""
    monkeypatch.setattr(readers_rows, "_BLOCK", block)
    path = put(tmp_path, "a.json", json.dumps(items, indent=indent))
    wanted = [item["text"] if isinstance(item, dict) else item for item in items]
    assert texts(path) == ["" if str(text).isspace() else text for text in wanted]


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken in the middle"])
def test_a_large_json_list_is_streamed(tmp_path: Path, broken: bool) -> None:
    """50 MB in a few; rows before a mistake come first, then the list is refused with the line of the mistake."""
    path, many = tmp_path / "a.json", 5_000
    row = json.dumps({"id": 1, "text": "x" * 9_985})
    with path.open("w", encoding="utf-8") as file:
        for number in range(many):
            file.write(("[" if not number else "\n" if broken and number == many // 2 else ",\n") + row)
        file.write("]")
    read = 0
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=f"line {many // 2 + 1}: .*expected , or ]") if broken else nullcontext():
            for found in read_rows(path):
                read = found.line
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == (many // 2 if broken else many)
    assert peak < 4_000_000


def test_csv_finds_its_delimiter_columns_and_lines(tmp_path: Path) -> None:
    """Commas, semicolons, tabs and bars; quoted line ends; the line where the row begins; short rows are empty."""
    for mark in ",;\t|":
        path = put(tmp_path, "a.csv", f'key{mark}body\nk1{mark}"a{mark}\nb"\n\nk2\nk3{mark}c\n')
        assert columns(path) == ["key", "body"]
        rows = list(read_rows(path, Columns(texts=("body",), id="key")))
        assert [(row.id, row.text, row.line) for row in rows] == [
            ("k1", f"a{mark}\nb", 2),
            ("k2", "", 5),
            ("k3", "c", 6),
        ]


def test_tsv_is_parted_by_tabs_only(tmp_path: Path) -> None:
    """A .tsv is not guessed at."""
    path = put(tmp_path, "a.tsv", "a,b,c\ttext\n1\thello, world\n")
    assert texts(path) == ["hello, world"]


def test_a_csv_text_is_never_cut_in_silence(tmp_path: Path) -> None:
    """An unquoted delimiter, or a quotation mark out of place, is named with its line, and the next rows go on."""
    path = put(tmp_path, "a.csv", 'id,text\n1,fine\n2,Hello, world\n3,"say "hi" now"\n4,also fine\n')
    rows = list(read_rows(path))
    assert [(row.id, row.text, row.line) for row in rows] == [
        ("1", "fine", 2), ("2", "", 3), ("3", "", 4), ("4", "also fine", 5)
    ]  # fmt: skip
    assert rows[1].problem.startswith("has 3 cells under a header of 2")
    assert rows[2].problem.startswith("has a quotation mark out of place")


def test_a_quotation_mark_that_takes_in_other_rows_refuses_the_file(tmp_path: Path) -> None:
    """Nobody can tell where the next row begins; so none is made up."""
    for rest in ("3,lost\n", '3,"lost"\n'):
        with pytest.raises(BadInput, match=r"line 3: .*Check the quotation marks"):
            texts(put(tmp_path, "b.csv", f'id,text\n1,fine\n2,"open\n{rest}'))
    with pytest.raises(BadInput, match="line 1: the header has a quotation mark"):
        columns(put(tmp_path, "c.csv", '"id"x,text\n1,fine\n'))


def test_a_csv_of_one_column_has_empty_rows(tmp_path: Path) -> None:
    """A blank line under a header of one column is an empty row."""
    assert texts(put(tmp_path, "a.csv", "text\na\n\nb\n")) == ["a", "", "b"]


def test_a_wrong_column_names_those_that_there_are(tmp_path: Path) -> None:
    """So that one can be chosen."""
    csv = put(tmp_path, "a.csv", "id,body,title\n1,b,c\n")
    with pytest.raises(BadInput, match=r"no column 'note'\. There are: id, body, title"):
        texts(csv, "note")
    with pytest.raises(BadInput, match=r"no column 'text'\. There are: number, colour"):
        texts(put(tmp_path, "c.csv", "number,colour\n1,red\n"))
    assert texts(csv) == ["b"]
    assert texts(csv, "title") == ["c"]
    with pytest.raises(BadInput, match="2 columns 'text'"):
        texts(put(tmp_path, "b.csv", "text,text\n1,2\n"))


def test_columns_of_every_kind(tmp_path: Path) -> None:
    """The header, the keys of the first object, the schema; none for plain lines and lists of strings."""
    assert columns(put(tmp_path, "a.jsonl", '{"id": 1, "body": "x"}\n')) == ["id", "body"]
    assert columns(put(tmp_path, "a.json", '[{"id": 1, "body": "x"}]')) == ["id", "body"]
    assert columns(put(tmp_path, "b.json", '["x"]')) == []
    assert columns(put(tmp_path, "a.txt", "x")) == []
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), tmp_path / "a.parquet")
    assert columns(tmp_path / "a.parquet") == ["id", "body"]


def test_parquet_rows(tmp_path: Path) -> None:
    """Strings of every Arrow kind; ids of any kind become text; nulls are empty rows."""
    values = ["é", None, "  ", "a\x00b"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"id": pa.array([10, 11, None, 13]), "text": pa.array(values).cast(kind)}), path)
        assert [(row.id, row.text) for row in read_rows(path)] == [("10", "é"), ("11", ""), ("", ""), ("13", "a\x00b")]


def test_parquet_without_text_is_refused(tmp_path: Path) -> None:
    """A missing column names the others; a column of numbers is not made text; a broken file says so."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "other": ["a", "b"]}), path)
    with pytest.raises(BadInput, match="column 'text' holds int64, not text"):
        texts(path)
    with pytest.raises(BadInput, match=r"no column 'body'\. There are: text, other"):
        texts(path, "body")
    assert texts(path, "other") == ["a", "b"]
    assert texts(path, "other", "text") == ["other: a\ntext: 1", "other: b\ntext: 2"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"a\.parquet is a broken Parquet file"):
        texts(path)


def test_parquet_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that stand for gigabytes: by repeating one text, or by a row group that unpacks to too much."""
    path = tmp_path / "a.parquet"
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["a" * 1_000_000]))
    pq.write_table(pa.table({"text": repeated}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    rows = read_rows(path)
    assert len(next(rows).text) == 1_000_000
    with pytest.raises(BadInput, match="unpacks to more than 200 times its size"):
        list(itertools.islice(rows, 25))
    pq.write_table(pa.table({"text": ["a" * 1_000_000, "b" * 1_000_000]}), path, use_dictionary=False)
    monkeypatch.setattr(readers_rows, "_ROW_GROUP_BYTES", 1 << 20)
    with pytest.raises(BadInput, match="row group 1 unpacks to 1 MB"):
        texts(path)


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("utf-8", FRENCH),
        ("utf-8-sig", FRENCH),
        ("utf-16", FRENCH),
        ("utf-32", FRENCH),
        ("cp1252", FRENCH),
        ("cp1252", "Café\n"),
        ("latin-1", "El niño comió la piña mañana\n"),
        ("latin-1", "x" * 3_000_000 + " naïve\nPlain words in plain lines.\n"),
        *(("cp1252", t) for t in ("fermé à Noël", "não há pão", "Hyvää päivää", "één euro", "25°C, 100 €", "¡Hola!")),
        ("cp1252", "«Où est l’été?» – Mo–Fr… smørrebrød, cœur\n"),
        ("cp1250", "Zażółć gęślą jaźń"),
        ("cp1253", "Καλημέρα κόσμε"),
        ("koi8_r", "Привет, как дела? Это проверка"),
        ("cp1251", "Добро пожаловать в наш магазин"),
        ("cp1251", "Привет, как дела? Это проверка кодировки русского текста.\n"),
        ("cp932", "これは日本語のテキストです。文字コードを判定します。\n"),
    ],
    ids=lambda value: value[:20],
)
def test_encodings_are_read_rightly(tmp_path: Path, codec: str, text: str) -> None:
    """By the byte order mark, by being UTF-8, or by a guess at the place that is not."""
    assert texts(put(tmp_path, "a.txt", text.encode(codec))) == text.splitlines()


def test_a_broken_character_in_utf8_does_not_turn_the_file_to_mojibake(tmp_path: Path) -> None:
    """A file that is UTF-8 but for one byte is refused with the place, not read as another encoding."""
    with pytest.raises(BadInput, match=r"a\.txt is UTF-8, but the character at byte 8 is broken"):
        texts(put(tmp_path, "a.txt", "éàü\n".encode()[:6] + b"a\n\xff\n"))


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"%PDF-1.7 and so on",
        b"PK\x03\x04 rest",
        bytes(1000),
        "UTF-16 without its mark".encode("utf-16-le"),
        bytes((7 * n * n + 13 * n) % 251 for n in range(5000)),
    ],
    ids=["png", "pdf", "zip", "zeros", "utf-16 without mark", "noise"],
)
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_a_binary_by_another_name_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """With a reason, before any row."""
    with pytest.raises(BadInput, match=f"{name} is not text"):
        texts(put(tmp_path, name, content))


def test_empty_missing_and_endless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file and a missing one say so; a line without end is not read into memory."""
    with pytest.raises(BadInput, match=r"a\.txt is empty"):
        texts(put(tmp_path, "a.txt", ""))
    with pytest.raises(BadInput, match="There is no file"):
        texts(tmp_path / "none.txt")
    monkeypatch.setattr(readers_text, "MAX_TEXT", 100)
    assert texts(put(tmp_path, "b.txt", "x" * 99 + "\ny")) == ["x" * 99, "y"]
    for name in ("c.txt", "c.jsonl", "c.csv"):
        with pytest.raises(BadInput, match="line 2: longer than 100 characters"):
            texts(put(tmp_path, name, '"text"\n' + "x" * 101))


def test_a_csv_cell_over_many_lines_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quotation mark that opens at the top of a large file does not take all of it into memory."""
    monkeypatch.setattr(readers_rows, "MAX_TEXT", 1000)
    with pytest.raises(BadInput, match=r"line 2: field larger than field limit"):
        texts(put(tmp_path, "a.csv", 'text\n"' + "line\n" * 1000))


def test_nan_is_an_empty_row_only_as_a_number(tmp_path: Path) -> None:
    """The word "NaN" in a table is a text."""
    assert math.isnan(json.loads("NaN"))
    assert texts(put(tmp_path, "a.csv", "text\nNaN\n")) == ["NaN"]
