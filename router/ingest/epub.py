"""EPUB: the title and the authors, then the chapters in the order of reading."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

from router.ingest import encodings, html
from router.ingest.package import Package
from router.ingest.reader import Unreadable, plural

_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"})


def read(path: str, _codec: str, notes: list[str]) -> Iterator[str]:
    """The words of every page of the spine. A book that its seller has locked is refused."""
    package = Package(path, notes)
    if "META-INF/container.xml" not in package:
        raise Unreadable("it is broken: it has no META-INF/container.xml; it may be another kind of file")
    roots = [one.get("full-path", "") for one in package.xml("META-INF/container.xml").iter("{*}rootfile")]
    if not roots:
        raise Unreadable("it is broken: it does not say where its contents are")
    book = package.xml(roots[0])
    titles = (one for one in book.iter("{*}title", "{*}creator") if "purl.org/dc/" in one.tag.lower())  # Dublin Core
    yield "\n".join(filter(None, (" ".join(one.itertext()).strip() for one in titles))) + "\n\n"
    folder = posixpath.dirname(roots[0])
    items = {one.get("id"): one for one in book.iter("{*}item")}
    locked = _locked(package)
    missing = pictures = 0
    for reference in book.iter("{*}itemref"):
        item = items.get(reference.get("idref"), {})
        name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        if name.lower() in locked:
            raise Unreadable("it is locked by its seller (DRM)")
        if name not in package:
            missing += 1
        elif item.get("media-type") not in _PAGES:
            pictures += 1
        else:
            text, doubts = encodings.decode(package.read(name))
            package.notes += doubts
            yield from html.words([text], package.notes)
            yield "\n\n"
    if missing:
        notes.append(f"{plural(missing, 'chapter')} of it {'is' if missing == 1 else 'are'} missing in the file.")
    if pictures:
        notes.append(f"{plural(pictures, 'page')} of it {'is a picture' if pictures == 1 else 'are pictures'}.")


def _locked(package: Package) -> set[str]:
    """The parts that are encrypted; fonts may be, to hinder their copying, and are of no interest."""
    if "META-INF/encryption.xml" not in package:
        return set()
    root = package.xml("META-INF/encryption.xml")
    return {unquote(one.get("URI", "")).lower() for one in root.iter("{*}CipherReference")}
