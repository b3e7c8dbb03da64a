"""Opening a text file in whatever encoding it is, as lines of bounded length, and refusing what is no text at all."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from router.domain.errors import BadInput
from router.ingest.encodings import BOMS, without_mark

MAX_TEXT = 16 * 1024 * 1024  # characters of one row, or of one line of a file
_BLOCK = 1 << 20
_SAMPLE = 1 << 16
_MIN_VALID = 3
_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive or an Office file"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a program"),
    (b"SQLite format 3\x00", "a database"),
)
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\v\f\r\x1b")
_LEADING = bytes(range(0xC0, 0x100))  # first bytes of what UTF-8 writes in several
_SMALL, _LARGE = "àáâãäåæçèéêëìíîïñòóôöøùúûüœõßÿ", "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖØÙÚÛÜŒÕ"
_BEYOND = _SMALL + _LARGE
_LETTER = f"[A-Za-z{_BEYOND}]"
_NOT_WESTERN = re.compile(
    "|".join((
        f"[^\\x00-\\x7f\\xa0{_BEYOND}‘’“”„–—…•·«»€£§©®™°ªº½¿¡]",  # what Western languages hardly use
        f"(?<!{_LETTER})[{_BEYOND}]{{2,}}(?!{_LETTER})",  # a word without a plain letter
        f"[{_BEYOND}]{{3}}",
        f"[a-z{_SMALL}][{_LARGE}]",
        f"{_LETTER}[‘“”„•«»€£§©®™°ªº½¿¡]{_LETTER}|{_LETTER}[€£¿¡]|[€£]{_LETTER}",
        "[œŒ](?![uU]|il|IL)|[õÕ](?![eE])",
    ))
)  # fmt: skip
"""A sign that bytes read as Windows-1252 are of another alphabet: its letters come where the West has none."""
_CODECS = [*(f"cp{number}" for number in range(1250, 1258)), "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "euc_kr"]


def encoding_of(path: Path, *, lenient: bool = False) -> str:
    """The codec of a text file: by its byte order mark, UTF-8 if all of it is valid UTF-8, else guessed once.

    Args:
        path: the file.
        lenient: UTF-8 with a broken character, UTF-16 without a mark, and what is hard to tell, are not refused.

    Raises:
        BadInput: it is no text, or UTF-8 with a broken character in it.
    """
    with path.open("rb") as file:
        head = file.read(16)
        for mark, codec in BOMS:
            if head.startswith(mark):
                return codec
        for magic, what in _MAGIC:
            if head.startswith(magic):
                raise BadInput(f"{path.name} is not text but {what}.", "Give it the ending of what it is.")
        file.seek(0)
        if lenient and (wide := without_mark(file.read(4096))):
            return wide
        file.seek(0)
        broken_at, is_utf8 = _first_broken_byte(path.name, file)
        if broken_at is None or (is_utf8 and lenient):
            return "utf-8"
        if is_utf8:
            raise BadInput(
                f"{path.name} is UTF-8, but the character at byte {broken_at:,} is broken.", "Save it again as UTF-8."
            )
        file.seek(max(0, broken_at - _SAMPLE // 2))
        sample = file.read(_SAMPLE)
    try:
        return _guess(path.name, sample)
    except BadInput:
        if not lenient or b"\0" in sample:
            raise
        return "cp1252"


def _first_broken_byte(name: str, file: BinaryIO) -> tuple[int | None, bool]:
    """Where the file stops being UTF-8, or None; and whether it is some up to there. One pass over all of it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen = controls = beyond_ascii = 0
    while True:
        block = file.read(_BLOCK)
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            beyond_ascii += _count(error.object[: error.start], _LEADING)
            return seen - pending + error.start, beyond_ascii >= _MIN_VALID
        seen += len(block)
        beyond_ascii += _count(block, _LEADING)
        controls += _count(block, _CONTROLS)
        if not block:
            break
    if controls > 0.3 * seen:
        raise _binary(name)
    return None, True


def _count(block: bytes, wanted: bytes) -> int:
    return len(block) - len(block.translate(None, wanted))


def _guess(name: str, sample: bytes) -> str:
    """A codec that reads the sample well; Western European where nothing speaks against it.

    A line or two is too little for a guess by how often letters follow each other.
    """
    from charset_normalizer import from_bytes

    if b"\0" in sample:
        raise _binary(name)
    if _plain_western(sample):
        return "cp1252"
    begin, end = sample.find(b"\n") + 1, sample.rfind(b"\n")
    matches = from_bytes(sample[begin:end] if 0 < begin < end else sample, cp_isolation=_CODECS)
    best = matches.best()
    if best is None:
        raise _binary(name)
    for match in matches:
        western = "cp1252" in match.could_be_from_charset
        if western and match.chaos <= best.chaos and match.coherence >= best.coherence:
            return "cp1252"
    return best.encoding


def _plain_western(sample: bytes) -> bool:
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    controls = _count(sample, _CONTROLS)
    return controls <= len(sample) // 1_000 and not _NOT_WESTERN.search(text)


def _binary(name: str) -> BadInput:
    return BadInput(f"{name} is not text, or in an encoding that cannot be told.", "Save it as UTF-8.")


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """The file opened in its own encoding; a character that this encoding does not have is a BadInput."""
    encoding = encoding_of(path)
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} cannot be read as {encoding}: {error.reason}.", "Save it as UTF-8.") from error


def lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """The lines of a text file with their ends, none longer than 16 Mi characters."""
    with open_text(path, newline) as file:
        number = 0
        while line := file.readline(MAX_TEXT + 1):
            number += 1
            if len(line) > MAX_TEXT:
                raise BadInput(
                    f"{path.name}, line {number}: longer than {MAX_TEXT:,} characters.", "Break it into several lines."
                )
            yield line
