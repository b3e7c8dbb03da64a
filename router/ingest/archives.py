"""Files out of folders and zip archives, each under the name that it has below what was handed in.

Nothing is written outside of the folder that is given. What operating systems leave in folders and zips is passed over.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from router.domain.errors import BadInput, RouterError
from router.ingest.extract import (
    MAX_FILE_BYTES,
    FileVerdict,
    SavedFile,
    check_file,
    inner_name,
    kind_of,
    safe_name,
    save_stream,
    why_not,
)
from router.ingest.zip_names import names_of

MAX_ENTRIES = 10_000
_RATIO = 200
_RATIO_FLOOR = 10 << 20
_DIRECTORY_BYTES = 8 << 20  # of a zip's own list of entries, which is read at once
JUNK = re.compile(
    r"(^|[/\\])(__MACOSX|\.DS_Store|\._[^/\\]*|\.Spotlight-V100|\.Trashes|\.fseventsd|\.AppleDouble|Icon\r|Thumbs\.db"
    r"|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information|~\$[^/\\]*|\.~lock\.[^/\\]*#"
    r"|\.git|\.hg|\.svn)([/\\]|$)",
    re.IGNORECASE,
)
"""Files and folders that nobody means to hand in."""


def expand(given: Sequence[Path | SavedFile], into: Path) -> list[FileVerdict]:
    """A verdict on every file: those given, those in folders, and those in zips, which are unpacked into `into`.

    A file in a folder or a zip has its path there as its `name`; where two have one name, the folders that they came
    from go before it. Names with `..` or an absolute path, links, zips in zips, encrypted entries, and entries that
    unpack to over 200 times their size (above 10 MB) are refused one by one; a zip of more than 10,000 entries or 2 GiB
    as a whole. What operating systems and version control leave (`JUNK`) is passed over.
    """
    verdicts: list[FileVerdict] = []
    for one in given:
        path = one if isinstance(one, Path) else one.path
        if path.is_dir() and not path.is_symlink():
            for item in sorted(path.rglob("*")):
                name = item.relative_to(path).as_posix()
                if (item.is_symlink() or not item.is_dir()) and not JUNK.search(name):
                    verdicts += _one(item, name, into, source=str(path.resolve()))
        else:
            verdicts += _one(path, one.name, into, source="")
    return _apart(verdicts)


def _one(path: Path, name: str, into: Path, source: str) -> list[FileVerdict]:
    try:
        if path.suffix.lower() == ".zip" and path.is_file() and not path.is_symlink():
            return _unpack(path, into, source or safe_name(name))
        return [_judge(path, inner_name(name), source)]
    except Exception as error:
        return [_refused(inner_name(name), source, error)]


def _refused(name: str, source: str, error: Exception) -> FileVerdict:
    """Whatever it is, the others go on, but where it is the disk's trouble and no file's."""
    if isinstance(error, RouterError) and not isinstance(error, BadInput):
        raise error
    return FileVerdict(path=None, name=name, reason=why_not(name, error), source=source)


def _apart(verdicts: list[FileVerdict]) -> list[FileVerdict]:
    """The same, every name once: those that occur twice get the folder or zip that they came from before them."""
    counts = Counter(verdict.name for verdict in verdicts)
    named: list[FileVerdict] = []
    taken: set[str] = set()
    for verdict in verdicts:
        name = verdict.name
        if counts[name] > 1:
            before = Path(verdict.source) if verdict.source else verdict.path.parent if verdict.path else Path()
            name = inner_name(f"{before.name}/{name}")
        wanted, n = name, 1
        while name in taken or (n > 1 and name in counts):
            n += 1
            name = f"{wanted} ({n})"
        taken.add(name)
        named.append(replace(verdict, name=name))
    return named


def _judge(path: Path, name: str, source: str) -> FileVerdict:
    if path.is_symlink():
        raise BadInput(f"{name} is a link.", "Hand in the file itself.")
    check_file(path)
    kind_of(path)
    return FileVerdict(path=path, name=name, source=source)


def _unpack(path: Path, into: Path, source: str) -> list[FileVerdict]:
    shown, hint = safe_name(path.name), f"Pack at most {MAX_ENTRIES:,} into one zip."
    try:
        if _directory_bytes(path) > _DIRECTORY_BYTES:
            raise BadInput(f"{shown} has too many entries.", hint)
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ENTRIES:
                raise BadInput(f"{shown} has {len(entries):,} entries.", hint)
            total = sum(entry.file_size for entry in entries)
            if total > MAX_FILE_BYTES:
                raise BadInput(f"{shown} unpacks to {total >> 20:,} MB.", "Pack at most 2 GiB into one zip.")
            members = zip(entries, names_of(entries), strict=True)
            return [_take(archive, entry, name, into, source) for entry, name in members if not JUNK.search(name)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # the last: a packing unknown to it
        raise BadInput(f"{shown} is a broken zip archive: {error}.") from None


def _take(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, original: str, into: Path, source: str) -> FileVerdict:
    """Unpack one entry. zipfile gives no more bytes than the entry says that it has, so the checks can be trusted."""
    name = inner_name(original)
    try:
        if reason := _against(entry, original.replace("\\", "/")):
            raise BadInput(f"{name} {reason}.")
        kind_of(Path(name))
        try:
            with archive.open(entry) as stream:
                saved = save_stream(stream, into, name=name)  # type: ignore[arg-type]  # an IO[bytes] that only reads
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadInput(f"{name} is broken inside its zip archive: {error}.") from None
        return _judge(saved.path, name, source)
    except Exception as error:
        return _refused(name, source, error)


def _against(entry: zipfile.ZipInfo, original: str) -> str:
    """Why this entry is not unpacked, or ""."""
    if ".." in original.split("/") or original.startswith("/") or re.match(r"[A-Za-z]:", original) or "\0" in original:
        return "points outside of its zip archive"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link, not a file"
    if inner_name(original).lower().endswith(".zip"):
        return "is a zip in a zip; unpack it first"
    if original.rsplit("/", 1)[-1].startswith("."):
        return "is a hidden file"
    if entry.flag_bits & 1:
        return "is protected by a password"
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "is packed with a method that is not supported"
    if entry.file_size > _RATIO_FLOOR and entry.file_size > _RATIO * entry.compress_size:
        return f"unpacks to {entry.file_size >> 20:,} MB, more than {_RATIO} times its packed size"
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
