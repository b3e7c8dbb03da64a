"""The files of a command as texts with their ids; empty rows, and what cannot be read, are set aside to be reported."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from router.cli.output import named, warn
from router.domain.errors import BadInput, RouterError
from router.ingest.columns import AS_USUAL, Columns, Ids

if TYPE_CHECKING:
    from router.ingest.extract import Row
    from router.ingest.splitter import Splitter

CHUNK_TOKENS = 256
"""Of the local model's tokens: a chunk of a document fits every model in one piece."""
MOST_BROKEN = 1_000
"""Rows whose reason is kept; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A row that cannot be read, or with `line` 0 a whole file, and why."""

    id: str
    line: int
    reason: str


@dataclass(slots=True, kw_only=True)
class Texts:
    """The texts of files in their order.

    Attributes:
        ids, lines, texts: of the rows that have a text; `lines` as in `corpora.extract.Row`, for a chunk its number.
        skipped: ids of the rows that have none.
        broken: the first rows and files that cannot be read; `refused` counts them all.
        notes: sentences on files that were read: what of them is not among the texts, or was changed.
    """

    ids: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list, repr=False)
    skipped: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    refused: int = 0
    notes: list[str] = field(default_factory=list)
    given: Ids = field(default_factory=Ids, repr=False)

    def add(self, row: Row, file: str) -> None:
        """A row of a file, whose name goes before the id where there are several."""
        name = row.id or f"row {row.number}"
        key = f"{file}#{name}" if file else name
        if row.problem:
            self.refuse(key, row.line, f"It {row.problem}.")
        elif not row.text:
            self.skipped.append(key)
        else:
            self.ids.append(self.given.take(key, row.number, row.line))
            self.lines.append(row.line)
            self.texts.append(row.text)

    def refuse(self, key: str, line: int, reason: str) -> None:
        """Set a row or a file aside."""
        self.refused += 1
        if len(self.broken) < MOST_BROKEN:
            self.broken.append(Broken(id=key, line=line, reason=reason))


def read_files(paths: Sequence[Path], columns: Columns = AS_USUAL) -> Texts:
    """All rows of files, and all chunks of documents; folders and zips are looked into.

    A file that is given alone must be readable; of several, those that are not are set aside. No two texts have one id.

    Raises:
        BadInput: none is given, it cannot be read or is of a kind that is not supported, or there is no text at all.
    """
    if not paths:
        raise BadInput("There is no FILE.", "Give one or several, or --collection NAME.")
    from router.ingest.archives import expand
    from router.ingest.extract import kind_of, why_not
    from router.ingest.splitter import Splitter

    found = Texts()
    with Splitter() as splitter:
        if len(paths) == 1 and not paths[0].is_dir() and paths[0].suffix.lower() != ".zip":
            path = paths[0]
            try:
                _read(path, "" if kind_of(path) == "rows" else path.name, found, columns, splitter)
            except BadInput:
                raise
            except Exception as error:
                raise BadInput(why_not(str(path), error), "Check the file and its permissions.") from error
        else:
            with tempfile.TemporaryDirectory() as folder:
                for verdict in expand(paths, Path(folder)):
                    try:
                        if verdict.path is None:
                            raise BadInput(verdict.reason)
                        _read(verdict.path, verdict.name, found, columns, splitter)
                    except Exception as error:  # whatever it is, the others go on
                        why = error.message if isinstance(error, BadInput) else why_not(verdict.name, error)
                        found.refuse(verdict.name, 0, why)
    if not found.texts:
        names = ", ".join(path.name for path in paths[:3])
        raise BadInput(f"{names} holds no text: {_why_none(found)}", "Give a file with at least one text.")
    found.notes += filter(None, [found.given.note()])  # which ids stood twice
    return found


def _read(path: Path, name: str, into: Texts, columns: Columns, splitter: Splitter) -> None:
    """A file's rows, or a document's chunks as rows 1, 2, ...; a chunk of nothing but marks counts as empty."""
    from router.ingest.chunking import is_near_empty
    from router.ingest.extract import Row, kind_of, read_document, read_rows

    if kind_of(path) == "rows":
        for row in read_rows(path, columns):
            into.add(row, name)
        return
    document = read_document(path)
    into.notes += [f"{name or path.name}: {note}" for note in document.notes]
    markdown = document.kind == "markdown"
    pieces = splitter.pieces(document.text, tokenizer="wordpiece", limit=CHUNK_TOKENS, markdown=markdown)
    for number, piece in enumerate(pieces, 1):
        text = document.text[piece.start : piece.end]
        into.add(Row(id=str(number), number=number, text="" if is_near_empty(text) else text, line=number), name)


def _why_none(found: Texts) -> str:
    rows = len(found.skipped) + found.refused
    if not found.broken:
        return f"all of its {rows:,} rows are empty." if rows else "it has no rows."
    first = found.broken[0]
    where = f"line {first.line}: " if first.line else ""
    return f"all of its {rows:,} rows are empty or broken. {where}{first.reason}"


def problems_of(rows: Texts, problems: Mapping[int, RouterError]) -> list[dict[str, object]]:
    """Each refused row with its id, the line that it begins on (0 for a file as a whole), and the reason."""
    return [{"id": one.id, "row": one.line, "reason": one.reason} for one in rows.broken] + [
        {"id": rows.ids[at], "row": rows.lines[at], "reason": reason_of(at, error)} for at, error in problems.items()
    ]


def tell_rows(rows: Texts, problems: Mapping[int, RouterError]) -> None:
    """The same for people, on stderr, with the empty rows."""
    if rows.skipped:
        one = len(rows.skipped) == 1
        warn(f"{len(rows.skipped):,} row{' is' if one else 's are'} empty and skipped: {named(rows.skipped)}")
    for note in rows.notes:
        warn(note)
    for broken in rows.broken:
        warn(f"line {broken.line} (id {broken.id}): {broken.reason}" if broken.line else broken.reason)
    if rows.refused > len(rows.broken):
        warn(f"... and {rows.refused - len(rows.broken):,} more.")
    for at, error in problems.items():
        warn(f"line {rows.lines[at]} (id {rows.ids[at]}): {reason_of(at, error)}")


def reason_of(position: int, error: RouterError) -> str:
    """Why a text was refused; the engine counts texts, and a file has rows, so its number is left out."""
    number = f"Text {position + 1} "
    return f"It {text.removeprefix(number)}" if (text := str(error)).startswith(number) else text
