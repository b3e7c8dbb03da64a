"""The file of a command as texts with their ids; empty rows are set aside, to be reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from router.domain.errors import BadInput

if TYPE_CHECKING:
    from router.corpora.extract import Row

CHUNK_TOKENS = 256
"""Of the local model's tokens: a chunk of a document fits every model in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts of a file in its order.

    Attributes:
        ids, lines, texts: of the rows that have a text; `lines` as in `corpora.extract.Row`, for a chunk its number.
        skipped: ids of the rows that have none.
    """

    ids: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list, repr=False)
    skipped: list[str] = field(default_factory=list)


def read_file(path: Path) -> Texts:
    """All rows of a file, or all chunks of a document.

    Raises:
        BadInput: the file cannot be read, is of a kind that is not supported, or holds no text at all.
    """
    found = Texts()
    try:
        for row in _rows(path):
            if not row.text:
                found.skipped.append(row.id)
                continue
            found.ids.append(row.id)
            found.lines.append(row.line)
            found.texts.append(row.text)
    except OSError as exc:
        raise BadInput(f"{path} cannot be read: {exc.strerror or exc}.", "Check the file and its permissions.") from exc
    if not found.texts:
        what = f"all of its {len(found.skipped):,} rows are empty" if found.skipped else "it has no rows"
        raise BadInput(f"{path.name} holds no text: {what}.", "Give a file with at least one text.")
    return found


def _rows(path: Path) -> Iterator[Row]:
    from router.corpora.extract import kind_of, read_rows

    if path.suffix.lower() == ".zip":
        raise BadInput(f"{path.name} is an archive.", "Unpack it and give its files one by one.")
    if kind_of(path) == "rows":
        yield from read_rows(path)
    else:
        yield from _chunks(path)


def _chunks(path: Path) -> Iterator[Row]:
    """A document's chunks as rows `NAME#1`, `NAME#2`, ...; a chunk of nothing but marks counts as empty."""
    from router.corpora.chunk import chunk_text
    from router.corpora.extract import Row, read_document

    document = read_document(path)
    chunks = chunk_text(document.text, tokenizer="wordpiece", limit=CHUNK_TOKENS, markdown=document.kind == "markdown")
    for number, chunk in enumerate(chunks, 1):
        yield Row(id=f"{document.name}#{number}", text="" if chunk.near_empty else chunk.text, line=number)
