"""The zip archives that Office files and EPUBs are: their parts, and how one refers to another, within bounds."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from typing import Any
from urllib.parse import unquote

from router.ingest.reader import Unreadable

MOST_ENTRIES = 5_000
MOST_BYTES = 128 << 20
"""Unpacked, of the parts that hold text; pictures and films are never unpacked."""
_OFFICE = {
    "document": ("a Word file", ".docx"),
    "presentation": ("a PowerPoint file", ".pptx"),
    "workbook": ("an Excel file", ".xlsx"),
}
_OUT_OF_MEMORY = (1, 2)  # libxml2's codes for errors of its own and for memory that it does not get
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Package:
    """An open archive. Nothing outside of it is ever fetched: no link, no external entity.

    Attributes:
        names: its parts by their lower-case names, as programs do not agree on the case.
        notes: sentences on what is not in the text, for the report.
        open_parts: those that are just being read, for whoever follows references.
    """

    def __init__(self, path: str, notes: list[str]) -> None:
        """Raises Unreadable where it is no archive, or unpacks to too much."""
        self.notes = notes
        self.open_parts: set[str] = set()
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise Unreadable(
                what_it_is(path) or "it is broken, or another kind of file: it is no archive, as such files are"
            ) from None
        entries = self._zip.infolist()
        size = sum(entry.file_size for entry in entries if not entry.filename.lower().endswith(_PICTURES))
        if len(entries) > MOST_ENTRIES or size > MOST_BYTES:
            raise Unreadable(f"it unpacks to more than {MOST_BYTES >> 20} MB or {MOST_ENTRIES:,} parts")
        self.names = {entry.filename.lower().lstrip("/"): entry for entry in entries}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.names

    def read(self, name: str) -> bytes:
        """The bytes of a part; Unreadable where it is missing, damaged or locked."""
        entry = self.names.get(name.lower())
        if entry is None:
            raise Unreadable(f"its part {name} is missing")
        if entry.flag_bits & 1:
            raise Unreadable("it is protected by a password")
        try:
            return self._zip.read(entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise Unreadable(f"its part {name} is damaged ({error})") from None

    def xml(self, name: str) -> Any:
        """The root element of a part. A part with a DTD is refused: no program writes one, bombs are made of them."""
        import lxml.etree as etree  # type: ignore[import-untyped]  # lxml ships no types

        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            root = etree.fromstring(self.read(name), parser)
        except etree.XMLSyntaxError as error:
            if error.code in _OUT_OF_MEMORY:
                raise MemoryError from None
            raise Unreadable(f"it is broken: its part {name} is no XML ({error.msg})") from None
        if root.getroottree().docinfo.internalDTD is not None:
            raise Unreadable(f"its part {name} declares entities of its own, as bombs do")
        return root

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """What a part refers to, by the id that it uses: (kind, name of the other part)."""
        folder, base = posixpath.split(name)
        file = posixpath.join(folder, "_rels", f"{base}.rels")
        if file not in self:
            return {}
        found = {}
        for one in self.xml(file):
            if isinstance(one.tag, str) and one.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, unquote(one.get("Target", "")))).lstrip("/")
                found[one.get("Id", "")] = (one.get("Type", "").rsplit("/", 1)[-1], target)
        return found

    def related(self, name: str, kind: str) -> list[str]:
        """The parts of a kind that a part refers to, and that are there."""
        return [target for found, target in self.relations(name).values() if found == kind and target in self]

    def main_part(self, wanted: str) -> tuple[str, Any]:
        """(name, root) of an Office file's main part, whose root is called `wanted`, as in `document`."""
        names = self.related("", "officeDocument")
        if not names:
            raise Unreadable("it is broken: it has no main part; it may be another kind of file")
        root = self.xml(names[0])
        kind = local(root)
        if kind != wanted:
            program, ending = _OFFICE.get(kind, ("another kind of file", "of what it is"))
            raise Unreadable(f"it is {program}; give its name the ending {ending}")
        return names[0], root


def local(element: Any) -> str:
    """An element's name without its namespace, of which every Office format has two; "" for a comment."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str:
    """An attribute of any namespace; "" where it is missing."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def relation_id(element: Any, name: str = "id") -> str:
    """An attribute that refers to another part; "" where it is missing."""
    return next((v for key, v in element.attrib.items() if key.endswith(f"/relationships}}{name}")), "")


def what_it_is(path: str) -> str:
    """What a file of another kind than its name says is, and what to do; "" where that cannot be told."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if head.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in head:
            return "it is protected by a password; save it without one"
        return "it is in the format of before 2007; save it in today's format"
    if head.startswith(b"%PDF-"):
        return "it is a PDF; give its name the ending .pdf"
    if head.startswith(b"{\\rtf"):
        return "it is an RTF file; save it in the format that its name says"
    if head.lstrip()[:200].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page; give its name the ending .html"
    if head.startswith(b"PK\x03\x04"):
        if zipfile.is_zipfile(path):
            return "it is an Office file, an EPUB or another archive; give its name the ending of what it is"
        return "it is broken: the end of it is missing, or damaged; fetch it again"
    return ""


_PICTURES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".emf", ".wmf", ".svg", ".webp", ".ico", ".wdp"),
    *(".mp4", ".mov", ".avi", ".wmv", ".m4v", ".mp3", ".m4a", ".wav", ".ogg", ".ttf", ".otf", ".woff", ".woff2"),
    *(".odttf", ".fntdata", ".bin", ".vml"),
)
