"""What becomes of a file that someone hands in: kept safely, unpacked, and read as rows or as one document.

Row files are streamed. Documents that need a parser (PDF, DOCX, HTML) are read in a process of its own under limits
(`guarded`). Whatever is wrong with a file is a BadInput with its name and the reason; the caller reports it and
goes on with the next file.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal

from router.domain.errors import BadInput, StoreFull
from router.ingest import readers_rows
from router.ingest.clean import without_data, without_front_matter
from router.ingest.columns import AS_USUAL, Columns, choose
from router.ingest.guarded import MEMORY, Guarded
from router.ingest.kinds import DOCUMENTS, DocumentKind
from router.ingest.readers_rows import Row
from router.ingest.readers_text import encoding_of, open_text

logger = logging.getLogger("router.reading")
__all__ = [
    "DOCUMENTS", "ROWS", "UPLOADS", "Document", "FileVerdict", "Row", "SavedFile", "check_file", "columns",
    "disk_errors", "kind_of", "read_document", "read_rows", "safe_name", "save_stream", "why_not",
]  # fmt: skip

ROWS = tuple(readers_rows.READERS)
UPLOADS = (*ROWS, *DOCUMENTS, ".zip")
"""Every ending that can be handed in."""
_SAVED_AS = {
    ".docx": (".doc", ".odt", ".rtf", ".pages", ".docm", ".dotx"),
    ".xlsx": (".xls", ".ods", ".numbers", ".xlsm", ".xlsb"),
    ".pptx": (".ppt", ".odp", ".key", ".pptm", ".ppsx"),
    ".eml": (".msg",),
    ".epub": (".mobi", ".azw3"),
}

MAX_FILE_BYTES = 2 << 30
MAX_DOCUMENT = 32 * 1024 * 1024  # characters
_WORKER_SECONDS = 25
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """A file on our disk in a folder named after its bytes. `name` is for showing, with the folders that it was in."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """Whether a file can be taken, and if not, why. `path` is where it is now; None where it was not taken.

    `source` is the folder, or the zip, that it was found in; "" for a file that was handed in by itself.
    """

    path: Path | None
    name: str
    reason: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The words of one document. `kind` "markdown" is to be chunked as Markdown, all others as plain text.

    `notes` are sentences on what of the file is not in the text, such as pages without text.
    """

    name: str
    text: str = field(repr=False)
    kind: DocumentKind
    notes: tuple[str, ...] = ()


# ---- reading -----------------------------------------------------------------------------------


def kind_of(path: Path) -> Literal["rows", "document"]:
    """Whether a file holds a text a row or is one document, by the ending of its name (`.txt` is rows).

    Raises:
        BadInput: an ending that is not supported.
    """
    ending = path.suffix.lower()
    if ending in ROWS:
        return "rows"
    if ending in DOCUMENTS:
        return "document"
    saved = next((to for to, endings in _SAVED_AS.items() if ending in endings), "")
    raise BadInput(
        f"{safe_name(path.name)}: files ending in '{ending}' are not supported.",
        f"Save it as {saved}." if saved else f"Supported are {', '.join(UPLOADS[:-1])}, and .zip of these.",
    )


def read_rows(path: Path, asked: Columns = AS_USUAL) -> Iterator[Row]:
    """The rows of a .txt, .jsonl, .json, .csv, .tsv or .parquet file, one at a time. Empty rows come with text "",
    broken ones (of .jsonl, .json, .csv and .tsv) with their problem.

    Args:
        path: the file.
        asked: where the texts and ids of a table are, if not under the usual names (`columns.choose`).

    Raises:
        BadInput: a file that cannot be read, or not beyond some line: what follows a broken piece cannot be told.
    """
    ending = path.suffix.lower()
    chosen = choose(path.name, columns(path), asked, complete=ending not in readers_rows.JSON)
    yield from readers_rows.READERS[ending](path, chosen)


def columns(path: Path) -> list[str]:
    """The columns of a table, or the keys of the first object; empty for .txt and for lists of strings.

    Raises:
        BadInput: the file cannot be read or is a document.
    """
    check_file(path)
    if kind_of(path) != "rows":
        raise BadInput(f"{path.name} is a document and has no rows.", "Read it as a document.")
    return readers_rows.COLUMNS[path.suffix.lower()](path)


def read_document(path: Path) -> Document:
    """The words of a file whose ending is in `DOCUMENTS`, or of a .txt as one document; at most 32 Mi characters.

    Raises:
        BadInput: the file cannot be read, holds no text, or asks for too much memory or time.
    """
    check_file(path)
    kind: DocumentKind | None = "text" if path.suffix.lower() == ".txt" else DOCUMENTS.get(path.suffix.lower())
    if kind is None:
        kind_of(path)
        raise BadInput(f"{path.name} is a table or a list.", "Read it as rows.")
    notes: list[str] = []
    if kind in {"text", "markdown"}:
        with open_text(path) as file:
            text = file.read(MAX_DOCUMENT + 1)
        if len(text) > MAX_DOCUMENT:
            raise _unreadable(path, "it holds more text than one document may; split it")
    else:
        text, notes = _read_in_worker(path, kind)
    if kind == "markdown":
        text, more = without_front_matter(text)
        notes += more
    text, more = without_data(text)
    notes += more
    if not text or text.isspace():
        raise _unreadable(path, "it holds no text" + "".join(f"; {note.rstrip('.')}" for note in notes))
    return Document(name=safe_name(path.name), text=text, kind=kind, notes=tuple(notes))


def why_not(name: str, error: Exception) -> str:
    """Why a file was not read, whatever was raised; what nobody foresaw is logged with its traceback."""
    if isinstance(error, BadInput):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{name} cannot be read: {error.strerror}."
    logger.error("%s cannot be read", name, exc_info=error)
    kind = type(error).__name__
    return (
        f"{name} cannot be read: nobody foresaw this {kind}: {str(error)[:200]}. The log has where (in the shell,"
        " ROUTER_TRACEBACK=1 shows it). The other files are not touched by this."
    )


def check_file(path: Path) -> None:
    """Raise BadInput where there is no file, or an empty one."""
    if not path.is_file():
        raise BadInput(f"There is no file {path}.", "Check the name.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path.name} is empty.", "Leave it out, or fill it.")


_WORKING = threading.Lock()
"""One reader's process at a time: what it may take of the machine's memory is what all of them may take."""


def _read_in_worker(path: Path, kind: DocumentKind) -> tuple[str, list[str]]:
    codec = encoding_of(path, lenient=True) if kind == "html" else "-"
    # A small file must not work for long; a PDF of a thousand pages, or a million cells, may, and is a few megabytes.
    seconds = min(300, _WORKER_SECONDS + (10 * (path.stat().st_size >> 20) if kind in {"pdf", "xlsx"} else 0))
    with _WORKING, tempfile.TemporaryDirectory(prefix="router-extract-") as folder, Guarded(seconds) as reader:
        out = Path(folder) / "text"
        job = {"kind": kind, "path": str(path.absolute()), "out": str(out), "codec": codec, "characters": MAX_DOCUMENT}
        try:
            answer = reader.ask(job, seconds)
        except TimeoutError:
            raise _unreadable(path, f"reading it takes more than {seconds} seconds") from None
        except EOFError:
            why = f"its reader broke down or used more than {MEMORY} MB or {seconds} seconds"
            raise _unreadable(path, why) from None
        if "refused" in answer:
            raise _unreadable(path, answer["refused"][0])
        text = re.sub(r"(?<![ \t])[ \t]+(?=\n)", "", out.read_text(encoding="utf-8"))
        return re.sub(r"\n{3,}", "\n\n", text).strip(), answer["done"]


def _unreadable(path: Path, reason: str) -> BadInput:
    return BadInput(f"{safe_name(path.name)} cannot be read: {reason}.", "The other files are not touched by this.")


# ---- keeping -----------------------------------------------------------------------------------


def safe_name(name: str) -> str:
    """A file name fit for showing and for a disk, from any: no folders, no control or direction marks, not long."""
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in base if unicodedata.category(c)[0] != "C" and c not in '<>:"|?*').strip(". ")
    stem, dot, ending = kept.rpartition(".")
    return f"{stem[:100]}.{ending[:10]}" if dot and stem else kept[:100] or "file"


def inner_name(name: str) -> str:
    """A path inside a folder or a zip, every part of it made safe."""
    parts = [part for part in name.replace("\\", "/").split("/") if part.strip(". ")]
    return "/".join(map(safe_name, parts[-8:])) or "file"


def save_stream(stream: BinaryIO, into: Path, *, name: str = "", limit: int = MAX_FILE_BYTES) -> SavedFile:
    """Write a stream to `into/HASH/NAME`, hashing on the way; the name is made safe, and names the file in messages.

    Raises:
        BadInput: more bytes than `limit`; nothing is left behind.
        StoreFull: the disk is full.
    """
    shown = safe_name(name or str(getattr(stream, "name", "")))
    digest, size = blake2b(digest_size=32), 0
    with disk_errors(into):
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=into, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                while block := stream.read(_BLOCK):
                    size += len(block)
                    if size > limit:
                        raise BadInput(f"{shown} has more than {limit:,} bytes.", "Split it.")
                    digest.update(block)
                    file.write(block)
            path = into / digest.hexdigest()[:40] / shown
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return SavedFile(path=path, name=inner_name(name) if name else shown)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns a full disk into StoreFull and any other trouble with writing there into BadInput."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFull(f"The disk of {where} is full.", "Make room, then try again.") from error
        raise BadInput(f"{where} cannot be written: {error.strerror or error}.", "Choose another place.") from error
