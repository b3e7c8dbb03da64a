"""Rows of tables and lists, one at a time: .txt, .jsonl, .json, .csv, .tsv and .parquet.

A file may be larger than memory, and may be hostile, so nothing here holds more than a row, a block or a Parquet page.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from router.corpora.readers_text import MAX_TEXT, lines, open_text
from router.domain.errors import BadInput

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_BLOCK = 1 << 16
_ROW_GROUP_BYTES = 256 << 20
_RATIO = 200  # text to file: no honest table packs better, above
_RATIO_FLOOR = 10 << 20  # so many bytes of text
_PARQUET_ROWS = 1024
_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a file. `text` is "" where the row is empty or only white space: to be skipped and reported.

    Attributes:
        id: the id column, or the row's number from 1.
        line: the line of the file where the row begins, from 1; in Parquet the row's number.
        problem: why the row cannot be read, as `is not valid JSON: ...`; then it has no text, and the next ones go on.
    """

    id: str
    text: str = field(repr=False)
    line: int
    problem: str = ""


def read_txt(path: Path, _text_column: str, _id_column: str) -> Iterator[Row]:
    """A text a line."""
    for number, line in enumerate(lines(path), 1):
        yield _row(number, number, line.removesuffix("\n"), None)


# ---- JSON --------------------------------------------------------------------------------------


def read_jsonl(path: Path, text_column: str, id_column: str) -> Iterator[Row]:
    """An object or a string a line; blank lines are not rows."""
    for number, (line, item) in enumerate(_jsonl_items(path), 1):
        yield _json_row(number, line, item, text_column, id_column)


def read_json(path: Path, text_column: str, id_column: str) -> Iterator[Row]:
    """One list of objects or strings."""
    for number, (line, item) in enumerate(_JsonList(path).items(), 1):
        yield _json_row(number, line, item, text_column, id_column)


def json_columns(path: Path) -> list[str]:
    """The keys of the first object."""
    items = _JsonList(path).items() if path.suffix.lower() == ".json" else _jsonl_items(path)
    first = next((item for _, item in items if not isinstance(item, Exception)), None)
    return list(first) if isinstance(first, dict) else []


def _jsonl_items(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, item); the item of a line that is no JSON is the error."""
    for line, source in enumerate(lines(path), 1):
        if not source.isspace():
            try:
                item = json.loads(source.rstrip("\r\n"))
            except (ValueError, RecursionError) as error:
                item = error
            yield line, item


def _json_row(number: int, line: int, item: Any, text_column: str, id_column: str) -> Row:
    def bad(problem: str) -> Row:
        return Row(id=str(number), text="", line=line, problem=problem)

    if isinstance(item, str):
        return _row(number, line, item, None)
    if isinstance(item, Exception):
        return bad(f"is not valid JSON: {_why(item)}")
    if not isinstance(item, dict):
        return bad("is neither an object nor a string")
    if text_column not in item:
        return bad(f"has no '{text_column}', only: {', '.join(list(item)[:20])[:200] or 'nothing'}")
    text, id_ = item[text_column], item.get(id_column)
    if text is None or text != text:  # null, or the NaN that pandas writes for a missing cell
        text = ""
    if not isinstance(text, str):
        return bad(f"has a '{text_column}' that is not text")
    if id_ is not None and not isinstance(id_, str | int | float):
        return bad(f"has an '{id_column}' that is neither text nor a number")
    return _row(number, line, text, None if id_ is None else str(id_))


class _JsonList:
    """The items of one JSON list with their lines, read a block at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer, self.at, self.line = "", 0, 1
        self.file: TextIO

    def items(self) -> Iterator[tuple[int, Any]]:
        """(line, item) one by one."""
        with open_text(self.path) as self.file:
            if self._next() != "[":
                raise BadInput(f"{self.path.name} is not a list.", "Write [ ... ], or one object a line as .jsonl.")
            self._skip(1)
            more = self._next() != "]"
            while more:
                line = self.line
                yield line, self._item()
                after = self._next()
                if after not in (",", "]"):
                    raise _bad_json(self.path, self.line, "expected , or ] after an item")
                more = after == ","
                self._skip(more)
                self._next()
            self._skip(1)
            if self._next():
                raise _bad_json(self.path, self.line, "something follows the end of the list")

    def _item(self) -> Any:
        while True:
            buffer, start = self.buffer, self.at
            try:
                item, end = json.JSONDecoder().raw_decode(buffer, start)
            except (ValueError, RecursionError) as error:
                if len(buffer) - start > MAX_TEXT or not self._fill():
                    raise _bad_json(self.path, self.line, error, start) from None
            else:
                self._skip(end - self.at)
                return item

    def _next(self) -> str:
        """The next character that is not white space, unread; "" at the end of the file."""
        while True:
            match = _SPACE.match(self.buffer, self.at)
            self._skip(match.end() - self.at if match else 0)
            if self.at < len(self.buffer) or not self._fill():
                return self.buffer[self.at : self.at + 1]

    def _skip(self, characters: int) -> None:
        self.line += self.buffer.count("\n", self.at, self.at + characters)
        self.at += characters

    def _fill(self) -> bool:
        """Read as much again as is unread, so that a long item is not decoded over and over."""
        block = self.file.read(max(_BLOCK, len(self.buffer) - self.at))
        self.buffer, self.at = self.buffer[self.at :] + block, 0
        return bool(block)


def _bad_json(path: Path, line: int, error: Exception | str, start: int = 0) -> BadInput:
    if isinstance(error, json.JSONDecodeError):
        line += error.doc.count("\n", start, error.pos)
    return BadInput(f"{path.name}, line {line}: not valid JSON: {_why(error)}.", "Correct that line.")


def _why(error: Exception | str) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


# ---- CSV and TSV -------------------------------------------------------------------------------


def read_csv(path: Path, text_column: str, id_column: str) -> Iterator[Row]:
    """Rows under a header. `.tsv` is parted by tabs, `.csv` by whichever of , ; tab | parts the header the most."""
    reader, header = _csv_reader(path)
    if text_column not in header:
        raise _no_column(path.name, text_column, header)
    if header.count(text_column) > 1:
        raise BadInput(f"{path.name} has {header.count(text_column)} columns '{text_column}'.", "Rename all but one.")
    text_at = header.index(text_column)
    id_at = header.index(id_column) if id_column in header else None
    number = 0
    for line, cells, problem in _csv_rows(path, reader):
        if not (cells or problem) and len(header) > 1:
            continue  # a blank line; in a table of one column it is an empty row
        number += 1
        if problem or len(cells) > len(header):
            many = f"has {len(cells)} cells under a header of {len(header)}; quote texts that hold the delimiter"
            yield Row(id=str(number), text="", line=line, problem=problem or many)
            continue
        text = cells[text_at] if text_at < len(cells) else ""
        yield _row(number, line, text, cells[id_at] if id_at is not None and id_at < len(cells) else None)


def csv_columns(path: Path) -> list[str]:
    """The header."""
    return _csv_reader(path)[1]


def _csv_reader(path: Path) -> tuple[Any, list[str]]:
    csv.field_size_limit(MAX_TEXT)
    delimiter = "\t"
    if path.suffix.lower() == ".csv":
        first = next(lines(path, ""), "")
        delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    reader = csv.reader(lines(path, ""), delimiter=delimiter, strict=True)
    line, header, problem = next(_csv_rows(path, reader), (0, [], ""))
    if problem:
        raise BadInput(f"{path.name}, line {line}: the header {problem}.", "Correct that line.")
    return reader, [name.strip() for name in header]


def _csv_rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str], str]]:
    """(line, cells, problem). Where a broken row is of several lines, nobody can tell where the next one begins."""
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num > line or "unexpected end" in str(error):
                raise BadInput(
                    f"{path.name}, line {line}: {error}.", "Check the quotation marks of the row that begins there."
                ) from None
            yield line, [], f"has a quotation mark out of place: {error}"


# ---- Parquet -----------------------------------------------------------------------------------


def read_parquet(path: Path, text_column: str, id_column: str) -> Iterator[Row]:
    """Rows of a Parquet table, a few at a time. Repeated texts stay shared, so that they cannot fill the memory.

    Raises:
        BadInput: besides what is wrong with any table, a row group over 256 MB or text over 200 times the file's size.
    """
    import pyarrow.parquet as pq

    with _parquet_errors(path), pq.ParquetFile(path) as file:
        wanted = _check_parquet(path, file, text_column, id_column)
    with _parquet_errors(path), pq.ParquetFile(path, read_dictionary=wanted[:1], pre_buffer=False) as file:
        left = max(_RATIO_FLOOR, _RATIO * path.stat().st_size)
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted, use_threads=False):
            texts = batch.column(text_column)
            ids = batch.column(id_column) if id_column in wanted[1:] else [None] * len(texts)
            for text, id_ in zip(texts, ids, strict=True):
                number += 1
                words = text.as_py() or ""
                left -= len(words)
                if left < 0:
                    raise BadInput(
                        f"{path.name} unpacks to more than {_RATIO} times its size.",
                        "Write it without the repetitions.",
                    )
                key = None if id_ is None else id_.as_py()
                yield _row(number, number, words, None if key is None else str(key))


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns."""
    import pyarrow.parquet as pq

    with _parquet_errors(path), pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def _check_parquet(path: Path, file: pyarrow.parquet.ParquetFile, text_column: str, id_column: str) -> list[str]:
    """The columns to read, the texts first, after a look at their types and sizes in the file's footer."""
    import pyarrow as pa

    names = file.schema_arrow.names
    if text_column not in names:
        raise _no_column(path.name, text_column, names)
    kind = file.schema_arrow.field(text_column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BadInput(f"{path.name}: column '{text_column}' holds {kind}, not text.", "Choose another column.")
    wanted = [text_column] + [id_column] * (id_column in names and id_column != text_column)
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        columns = (group.column(at) for at in range(group.num_columns))
        size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema in wanted)
        if size > _ROW_GROUP_BYTES:
            raise BadInput(
                f"{path.name}: row group {number + 1} unpacks to {size >> 20:,} MB.",
                f"Write it with row groups of at most {_ROW_GROUP_BYTES >> 20} MB.",
            )
    return wanted


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Turns what Arrow raises on a broken file into a BadInput."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"{path.name} is a broken Parquet file: {reason}.", "Write it again.") from error


# ---- what all share ----------------------------------------------------------------------------

RowReader = Callable[[Path, str, str], Iterator[Row]]
READERS: dict[str, RowReader] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
COLUMNS: dict[str, Callable[[Path], list[str]]] = {
    ".txt": lambda _path: [],
    ".jsonl": json_columns,
    ".json": json_columns,
    ".csv": csv_columns,
    ".tsv": csv_columns,
    ".parquet": parquet_columns,
}


def _row(number: int, line: int, text: str, id_: str | None) -> Row:
    return Row(id=id_ or str(number), text="" if text.isspace() else text, line=line)


def _no_column(where: str, wanted: str, there: Sequence[str]) -> BadInput:
    names = ", ".join(there) or "none"
    return BadInput(f"{where}: there is no column '{wanted}'.", f"There are: {names}. Choose the one with the texts.")
