"""What becomes of a file that someone hands in: kept safely, unpacked, and read as rows or as one document.

Row files are streamed. Documents that need a parser (PDF, DOCX, HTML) are read by `extract_worker` in a process of its
own under limits. Whatever is wrong with a file is a BadInput with its name and the reason; the caller reports it and
goes on with the next file.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal

from router.corpora import extract_worker, readers_rows
from router.corpora.readers_rows import Row
from router.corpora.readers_text import encoding_of, open_text
from router.domain.errors import BadInput, StoreFull

__all__ = [
    "DOCUMENTS", "ROWS", "Document", "FileVerdict", "Row", "SavedFile", "columns", "disk_errors", "expand", "kind_of",
    "read_document", "read_rows", "safe_name", "save_stream",
]  # fmt: skip

DocumentKind = Literal["text", "markdown", "pdf", "docx", "html"]

ROWS = tuple(readers_rows.READERS)
DOCUMENTS: dict[str, DocumentKind] = {".md": "markdown", ".pdf": "pdf", ".docx": "docx", ".html": "html"}

MAX_FILE_BYTES = 2 << 30
MAX_ENTRIES = 10_000
MAX_DOCUMENT = 32 * 1024 * 1024  # characters
_RATIO = 200
_RATIO_FLOOR = 10 << 20
_DIRECTORY_BYTES = 8 << 20  # of a zip's own list of entries, which is read at once
_WORKER_MEMORY = 448  # MB of address space
_WORKER_SECONDS = 25
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """A file on our disk in a folder named after its bytes. `digest` is BLAKE2b-256 in hex; `name` is for showing."""

    path: Path
    name: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """Whether a file can be taken, and if not, why. `path` is where it is now; None where it was not taken."""

    path: Path | None
    name: str
    ok: bool
    reason: str = ""


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
    raise BadInput(
        f"{safe_name(path.name)}: files ending in '{ending}' are not supported.",
        f"Supported are {', '.join([*ROWS, *DOCUMENTS])}, and .zip of these.",
    )


def read_rows(path: Path, *, text_column: str = "text", id_column: str = "id") -> Iterator[Row]:
    """The rows of a .txt, .jsonl, .json, .csv, .tsv or .parquet file, one at a time. Empty rows come with text "",
    broken ones (of .jsonl, .json, .csv and .tsv) with their problem.

    Raises:
        BadInput: a file that cannot be read, or not beyond some line: what follows a broken piece cannot be told.
    """
    _check_file(path)
    if kind_of(path) != "rows":
        raise BadInput(f"{path.name} is a document and has no rows.", "Read it as a document.")
    yield from readers_rows.READERS[path.suffix.lower()](path, text_column, id_column)


def columns(path: Path) -> list[str]:
    """The columns of a table, or the keys of the first object; empty for .txt and for lists of strings.

    Raises:
        BadInput: the file cannot be read or is a document.
    """
    _check_file(path)
    if kind_of(path) != "rows":
        raise BadInput(f"{path.name} is a document and has no columns.", "Read it as a document.")
    return readers_rows.COLUMNS[path.suffix.lower()](path)


def read_document(path: Path) -> Document:
    """The words of a .md, .pdf, .docx or .html file, or of a .txt as one document; at most 32 Mi characters.

    Raises:
        BadInput: the file cannot be read, holds no text, or asks for too much memory or time.
    """
    _check_file(path)
    kind: DocumentKind | None = "text" if path.suffix.lower() == ".txt" else DOCUMENTS.get(path.suffix.lower())
    if kind is None:
        kind_of(path)
        raise BadInput(f"{path.name} is a table or a list.", "Read it as rows.")
    if kind in {"text", "markdown"}:
        with open_text(path) as file:
            text = file.read(MAX_DOCUMENT + 1)
        if len(text) > MAX_DOCUMENT:
            raise _unreadable(path, "it holds more text than one document may; split it")
    else:
        text = _read_in_worker(path, kind)
    if not text or text.isspace():
        raise _unreadable(path, "it holds no text" + (" (a scan has only pictures)" if kind == "pdf" else ""))
    return Document(name=safe_name(path.name), text=text, kind=kind)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise BadInput(f"There is no file {path}.", "Check the name.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path.name} is empty.", "Leave it out, or fill it.")


def _read_in_worker(path: Path, kind: DocumentKind) -> str:
    encoding = _html_encoding(path) if kind == "html" else "-"
    # A small file must not work for long; a PDF of a thousand pages may, and is a few megabytes.
    seconds = min(300, _WORKER_SECONDS + (10 * (path.stat().st_size >> 20) if kind == "pdf" else 0))
    with tempfile.TemporaryDirectory(prefix="router-extract-") as folder:
        out = Path(folder) / "text"
        limits = [str(_WORKER_MEMORY), str(seconds), str(MAX_DOCUMENT)]
        try:
            done = subprocess.run(
                [sys.executable, "-P", extract_worker.__file__, kind, path.absolute(), out, encoding, *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ},
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _unreadable(path, f"reading it takes more than {seconds} seconds") from None
        if done.returncode == extract_worker.EXIT_REASON:
            raise _unreadable(path, out.read_text(encoding="utf-8"))
        if done.returncode != 0:
            raise _unreadable(path, f"its reader broke down or used more than {_WORKER_MEMORY} MB or {seconds} seconds")
        with out.open(encoding="utf-8", newline="") as file:
            return _tidy(file.read())


def _html_encoding(path: Path) -> str:
    """The encoding that can be told for sure, else the one that the page declares, else a guess."""
    told = encoding_of(path)
    if not told.startswith("utf"):
        with path.open("rb") as file:
            declared = re.search(rb"""charset\s*=\s*["']?([\w-]+)""", file.read(4096))
        with suppress(LookupError):
            return codecs.lookup(declared[1].decode("ascii", "replace")).name if declared else told
    return told


def _tidy(text: str) -> str:
    text = re.sub(r"[ \t]+(?=\n)", "", text.replace("\r\n", "\n").replace("\r", "\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _unreadable(path: Path, reason: str) -> BadInput:
    return BadInput(f"{safe_name(path.name)} cannot be read: {reason}.", "The other files are not touched by this.")


# ---- keeping -----------------------------------------------------------------------------------


def safe_name(name: str) -> str:
    """A file name fit for showing and for a disk, from any: no folders, no control or direction marks, not long."""
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in base if unicodedata.category(c)[0] != "C" and c not in '<>:"|?*').strip(". ")
    stem, dot, ending = kept.rpartition(".")
    return f"{stem[:100]}.{ending[:10]}" if dot and stem else kept[:100] or "file"


def save_stream(stream: BinaryIO, into: Path, *, name: str = "", limit: int = MAX_FILE_BYTES) -> SavedFile:
    """Write a stream to `into/HASH/NAME`, hashing on the way; the name is made safe, and names the file in messages.

    Raises:
        BadInput: more bytes than `limit`; nothing is left behind.
        StoreFull: the disk is full.
    """
    shown = safe_name(name or str(getattr(stream, "name", "")))
    digest, size = blake2b(digest_size=32), 0
    with disk_errors(into):
        into.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=into, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                while block := stream.read(_BLOCK):
                    size += len(block)
                    if size > limit:
                        raise BadInput(f"{shown} has more than {limit:,} bytes.", "Split it.")
                    digest.update(block)
                    file.write(block)
            key = digest.hexdigest()
            path = into / key[:40] / shown
            path.parent.mkdir(exist_ok=True)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return SavedFile(path=path, name=shown, bytes=size, digest=key)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns a full disk into StoreFull and any other trouble with writing there into BadInput."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFull(f"The disk of {where} is full.", "Make room, then try again.") from error
        raise BadInput(f"{where} cannot be written: {error.strerror or error}.", "Choose another place.") from error


# ---- unpacking ---------------------------------------------------------------------------------


def expand(paths: Sequence[Path], into: Path) -> list[FileVerdict]:
    """A verdict on every file: those given, those in folders, and those in zips, which are unpacked into `into`.

    Nothing is written outside of `into`. Names with `..` or an absolute path, links, zips in zips, encrypted entries,
    and entries that unpack to over 200 times their size (above 10 MB) are refused one by one; a zip of more than 10,000
    entries or 2 GiB as a whole. A file in a folder or a zip keeps its inner path as its `name`.
    """
    verdicts: list[FileVerdict] = []
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for item in sorted(item for item in path.rglob("*") if item.is_symlink() or not item.is_dir()):
                verdicts += _one(item, str(item.relative_to(path)), into)
        else:
            verdicts += _one(path, path.name, into)
    return verdicts


def _one(path: Path, name: str, into: Path) -> list[FileVerdict]:
    if path.suffix.lower() == ".zip" and path.is_file() and not path.is_symlink():
        return _unpack(path, into)
    return [_judge(path, _inner_name(name))]


def _inner_name(name: str) -> str:
    """A path inside a folder or a zip, every part of it made safe."""
    parts = [part for part in name.replace("\\", "/").split("/") if part.strip(". ")]
    return "/".join(map(safe_name, parts[-8:])) or "file"


def _judge(path: Path, name: str) -> FileVerdict:
    try:
        if path.is_symlink():
            raise BadInput(f"{name} is a link.", "Hand in the file itself.")
        _check_file(path)
        kind_of(path)
    except BadInput as error:
        return FileVerdict(path=None, name=name, ok=False, reason=str(error))
    return FileVerdict(path=path, name=name, ok=True)


def _unpack(path: Path, into: Path) -> list[FileVerdict]:
    archive_name = safe_name(path.name)
    try:
        if _directory_bytes(path) > _DIRECTORY_BYTES:
            raise BadInput(f"{archive_name} has too many entries.", f"Pack at most {MAX_ENTRIES:,} into one zip.")
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ENTRIES:
                raise BadInput(
                    f"{archive_name} has {len(entries):,} entries.", f"Pack at most {MAX_ENTRIES:,} into one zip."
                )
            total = sum(entry.file_size for entry in entries)
            if total > MAX_FILE_BYTES:
                raise BadInput(f"{archive_name} unpacks to {total >> 20:,} MB.", "Pack at most 2 GiB into one zip.")
            return [_take(archive, entry, into) for entry in entries]
    except BadInput as error:
        reason = str(error)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # the last: a packing unknown to it
        reason = f"{archive_name} is a broken zip archive: {error}."
    return [FileVerdict(path=None, name=archive_name, ok=False, reason=reason)]


def _take(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path) -> FileVerdict:
    """Unpack one entry. zipfile gives no more bytes than the entry says that it has, so the checks can be trusted."""
    name = _inner_name(entry.filename)
    reason = _against(entry)
    if not reason:
        try:
            kind_of(Path(name))
            with archive.open(entry) as stream:
                saved = save_stream(stream, into, name=name)  # type: ignore[arg-type]  # an IO[bytes] that only reads
            return _judge(saved.path, name)
        except BadInput as error:
            reason = str(error)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            reason = f"{name} is broken inside its zip archive: {error}."
    return FileVerdict(path=None, name=name, ok=False, reason=reason)


def _against(entry: zipfile.ZipInfo) -> str:
    """Why this entry is not unpacked, or ""."""
    original = (entry.orig_filename or entry.filename).replace("\\", "/")
    name = _inner_name(original)
    if ".." in original.split("/") or original.startswith("/") or re.match(r"[A-Za-z]:", original) or "\0" in original:
        return f"{name} points outside of its zip archive."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return f"{name} is a link, not a file."
    if name.lower().endswith(".zip"):
        return f"{name} is a zip in a zip; unpack it first."
    if original.startswith("__MACOSX/") or original.rsplit("/", 1)[-1].startswith("."):
        return f"{name} is a hidden file of an operating system."
    if entry.flag_bits & 1:
        return f"{name} is protected by a password."
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"{name} is packed with a method that is not supported."
    if entry.file_size > _RATIO_FLOOR and entry.file_size > _RATIO * entry.compress_size:
        return f"{name} unpacks to {entry.file_size >> 20:,} MB, more than {_RATIO} times its packed size."
    return ""


def _directory_bytes(path: Path) -> int:
    """The size of a zip's list of entries, as its end record says; 0 where there is none (zipfile will say so)."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 66_000))
        tail = file.read()
    at = len(tail) - 22
    if tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return 0
    big = tail[at - 76 : at - 20] if at >= 76 else b""  # the record for large archives stands just before
    if tail[max(0, at - 20) : at - 16] == b"PK\x06\x07" and big[:4] == b"PK\x06\x06":
        return int(struct.unpack("<Q", big[40:48])[0])
    return int(struct.unpack("<I", tail[at + 12 : at + 16])[0])
