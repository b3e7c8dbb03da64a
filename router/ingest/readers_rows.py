"""Rows of tables and lists, one at a time: .txt, .jsonl, .json, .csv, .tsv and .parquet.

A file may be larger than memory, and may be hostile, so nothing here holds more than a row, a block or a Parquet page.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from router.domain.errors import BadInput
from router.ingest import delimiters
from router.ingest.columns import Columns, joined, nested
from router.ingest.readers_text import MAX_TEXT, lines, open_text

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_BLOCK = 1 << 16
_ROW_GROUP_BYTES = 256 << 20
_RATIO = 200  # text to file: no honest table packs better, above
_RATIO_FLOOR = 10 << 20  # so many bytes of text
_PARQUET_ROWS = 1024
_LOOKED_AT = 100  # objects whose keys are taken for the columns
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a file. `text` is "" where the row is empty or only white space: to be skipped and reported.

    Attributes:
        id: of the id column, "" where this row has none; without such a column, the row's number.
        number: the row's number from 1.
        line: the line of the file where the row begins, from 1; in Parquet the row's number.
        problem: why the row cannot be read, as `is not valid JSON: ...`; then it has no text, and the next ones go on.
    """

    id: str
    number: int
    text: str = field(repr=False)
    line: int
    problem: str = ""


def read_txt(path: Path, _columns: Columns) -> Iterator[Row]:
    """A text a line."""
    for number, line in enumerate(lines(path), 1):
        yield _row(number, number, line.removesuffix("\n"), str(number))


# ---- JSON --------------------------------------------------------------------------------------


def read_json(path: Path, columns: Columns) -> Iterator[Row]:
    """Objects or strings: of .json those of one list, of .jsonl one a line, where blank lines are not rows."""
    for number, (line, item) in enumerate(_items(path), 1):
        yield _json_row(number, line, item, columns)


def json_columns(path: Path) -> list[str]:
    """The keys of the first objects, each once, in their order."""
    keys: dict[str, None] = {}
    with suppress(BadInput):  # said where the rows are read
        for _, item in islice(_items(path), _LOOKED_AT):
            keys.update(dict.fromkeys(item if isinstance(item, dict) else ()))
    return list(keys)


def _items(path: Path) -> Iterator[tuple[int, Any]]:
    return _JsonList(path).items() if path.suffix.lower() == ".json" else jsonl_items(path)


def jsonl_items(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, item); the item of a line that is no JSON is the error."""
    for line, source in enumerate(lines(path), 1):
        if not source.isspace():
            try:
                item = json.loads(source.rstrip("\r\n"))
            except (ValueError, RecursionError) as error:
                item = error
            yield line, item


def _json_row(number: int, line: int, item: Any, columns: Columns) -> Row:
    bad = partial(_bad_row, number, line)
    if isinstance(item, str):
        return _row(number, line, item, _id(number, columns, None))
    if isinstance(item, Exception):
        return bad(f"is not valid JSON: {_why(item)}")
    if not isinstance(item, dict):
        return bad("is neither an object nor a string")
    parts = []
    for column in columns.texts:
        try:
            text = nested(item, column)
        except KeyError:
            if len(columns.texts) > 1:
                continue  # of several columns a row may lack some
            return bad(f"has no '{column}', only: {', '.join(list(item)[:20])[:200] or 'nothing'}")
        if text is None or text != text:  # null, or the NaN that pandas writes for a missing cell
            text = ""
        if len(columns.texts) > 1 and isinstance(text, int | float):
            text = str(text)
        if not isinstance(text, str):
            return bad(f"has a '{column}' that is not text")
        parts.append((column, text))
    id_ = None
    if columns.id is not None:
        with suppress(KeyError):
            id_ = nested(item, columns.id)
    if id_ is not None and not isinstance(id_, str | int | float):
        return bad(f"has an '{columns.id}' that is neither text nor a number")
    return _row(number, line, joined(parts) if parts else "", _id(number, columns, id_))


class _JsonList:
    """The items of one JSON list with their lines, read a block at a time.

    By hand: ijson turns half a surrogate pair into "?" without a word, refuses NaN, says no lines, and takes a
    gigabyte of memory for 20 KB of opening brackets.
    """

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
                item, end = _DECODER.raw_decode(buffer, start)
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


def read_csv(path: Path, columns: Columns) -> Iterator[Row]:
    """Rows under a header, parted as `delimiters.find` says."""
    reader, header = _csv_reader(path)
    texts_at = [header.index(column) for column in columns.texts]
    id_at = header.index(columns.id) if columns.id is not None else None
    number = 0
    for line, cells, problem in _csv_rows(path, reader):
        if not (cells or problem) and len(header) > 1:
            continue  # a blank line; in a table of one column it is an empty row
        number += 1
        if problem or len(cells) > len(header):
            many = f"has {len(cells)} cells under a header of {len(header)}; quote texts that hold the delimiter"
            yield _bad_row(number, line, problem or many)
            continue
        parts = [(header[at], cells[at] if at < len(cells) else "") for at in texts_at]
        id_ = cells[id_at] if id_at is not None and id_at < len(cells) else None
        yield _row(number, line, joined(parts), _id(number, columns, id_))


def csv_columns(path: Path) -> list[str]:
    """The header."""
    return _csv_reader(path)[1]


def _csv_reader(path: Path) -> tuple[Any, list[str]]:
    csv.field_size_limit(MAX_TEXT)
    mark, named = delimiters.find(path)
    reader = csv.reader(lines(path, ""), delimiter=mark, strict=True)
    rows = _csv_rows(path, reader)
    if named:
        next(rows, None)
    line, header, problem = next(rows, (0, [], ""))
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


def read_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    """Rows of a Parquet table, a few at a time. Repeated texts stay shared, so that they cannot fill the memory.

    Raises:
        BadInput: besides what is wrong with any table, a row group over 256 MB or text over 200 times the file's size.
    """
    import pyarrow.parquet as pq

    with parquet_errors(path), pq.ParquetFile(path) as file:
        wanted = _check_parquet(path, file, columns)
    with parquet_errors(path), pq.ParquetFile(path, read_dictionary=list(columns.texts), pre_buffer=False) as file:
        left = max(_RATIO_FLOOR, _RATIO * path.stat().st_size)
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted, use_threads=False):
            texts = [batch.column(column) for column in columns.texts]
            ids = batch.column(columns.id) if columns.id is not None else None
            for at in range(batch.num_rows):
                number += 1
                cells = [column[at].as_py() for column in texts]
                left -= sum(len(cell) for cell in cells if isinstance(cell, str))
                if left < 0:
                    raise BadInput(
                        f"{path.name} unpacks to more than {_RATIO} times its size.",
                        "Write it without the repetitions.",
                    )
                parts = [(c, "" if cell is None else str(cell)) for c, cell in zip(columns.texts, cells, strict=True)]
                id_ = None if ids is None else ids[at].as_py()
                yield _row(number, number, joined(parts), _id(number, columns, id_))


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns."""
    import pyarrow.parquet as pq

    with parquet_errors(path), pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def _check_parquet(path: Path, file: pyarrow.parquet.ParquetFile, columns: Columns) -> list[str]:
    """The columns to read, after a look at their types and sizes in the file's footer."""
    import pyarrow as pa

    wanted = list(dict.fromkeys([*columns.texts, *([] if columns.id is None else [columns.id])]))
    for column in columns.texts:
        kind = file.schema_arrow.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not _joinable(kind, alone=len(columns.texts) == 1):
            raise BadInput(f"{path.name}: column '{column}' holds {kind}, not text.", "Choose another column.")
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(at) for at in range(group.num_columns))
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in wanted)
        if size > _ROW_GROUP_BYTES:
            raise BadInput(
                f"{path.name}: row group {number + 1} unpacks to {size >> 20:,} MB.",
                f"Write it with row groups of at most {_ROW_GROUP_BYTES >> 20} MB.",
            )
    return wanted


def _joinable(kind: pyarrow.DataType, *, alone: bool) -> bool:
    """True for text, and for numbers, dates and the like, which may stand beside texts that are joined."""
    import pyarrow as pa

    is_ = pa.types
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return True
    return not (alone or is_.is_nested(kind) or is_.is_binary(kind) or is_.is_large_binary(kind))


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turns what Arrow raises on a broken file into a BadInput."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"{path.name} is a broken Parquet file: {reason}.", "Write it again.") from error


# ---- what all share ----------------------------------------------------------------------------

RowReader = Callable[[Path, Columns], Iterator[Row]]
READERS: dict[str, RowReader] = {
    ".txt": read_txt,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
JSON = frozenset({".jsonl", ".ndjson", ".json"})
COLUMNS: dict[str, Callable[[Path], list[str]]] = {
    ".txt": lambda _path: [],
    **dict.fromkeys(JSON, json_columns),
    ".csv": csv_columns,
    ".tsv": csv_columns,
    ".parquet": parquet_columns,
}


def _row(number: int, line: int, text: str, id_: str) -> Row:
    return Row(id=id_, number=number, text="" if text.isspace() else text, line=line)


def _bad_row(number: int, line: int, problem: str) -> Row:
    return Row(id=str(number), number=number, text="", line=line, problem=problem)


def _id(number: int, columns: Columns, value: object) -> str:
    """The row's id; its number where the table has no ids at all."""
    if columns.id is None:
        return str(number)
    return "" if value is None or value != value else str(value).strip()
