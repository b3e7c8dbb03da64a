"""HTML: the words that a reader sees, menus left out, as a stream: no tree of the page is ever built."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from router.ingest import encodings
from router.ingest.reader import NO_CONTROLS, plural

_PIECE = 1 << 18
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr"}
    | {"html", "legend", "li", "main", "ol", "option", "p", "pre", "section", "select", "summary", "table", "tbody"}
    | {"text", "textarea", "tfoot", "thead", "title", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})
_UNSEEN = frozenset({"script", "style", "template", "noscript", "metadata", "desc"})
_WITHOUT_VALUE = frozenset({"hidden", "checkbox", "radio", "password", "file", "image", "color", "range"})
_CLOSED_AT_ONCE = re.compile(
    r"<(script|style|title|textarea|template|noscript|nav|iframe)\b([^<>]{0,1000})/>", re.IGNORECASE
)
"""In XHTML these are empty; to a parser of HTML all that follows is inside of them."""


def read(path: str, codec: str, notes: list[str]) -> Iterator[str]:
    """The text of a page; `codec` is what its bytes seem to be, to be weighed against what it declares."""

    def blocks() -> Iterator[bytes]:
        with open(path, "rb") as file:
            while block := file.read(_PIECE):
                yield block

    chosen, doubts = encodings.choose(blocks, codec)
    notes += doubts
    yield from words(encodings.decoded(blocks(), chosen), notes)


def words(pieces: Iterable[str], notes: list[str]) -> Iterator[str]:
    """The words of a page that comes in pieces."""
    import lxml.etree  # type: ignore[import-untyped]  # lxml ships no types

    target = _Words()
    parser = lxml.etree.HTMLParser(target=target, huge_tree=False, no_network=True)
    for piece in _cut_between_tags(pieces):
        # XML 1.0 has no control characters; libxml2 would stop at the first NUL without a word.
        parser.feed(_CLOSED_AT_ONCE.sub(r"<\1\2></\1>", piece.translate(NO_CONTROLS)))
        yield from target.take()
    with contextlib.suppress(lxml.etree.XMLSyntaxError):  # a page without any element
        parser.close()
    yield from target.take()
    if target.in_menus:
        notes.append(f"Its menus ({plural(target.in_menus, 'word')}) are left out.")


def _cut_between_tags(pieces: Iterable[str]) -> Iterator[str]:
    """The same in pieces that end before a `<`, if there is one not far away."""
    rest = ""
    for piece in pieces:
        at = piece.rfind("<")
        if at < 0 or len(piece) - at > 2_000:
            at = len(piece)
        if whole := rest + piece[:at]:
            yield whole
        rest = piece[at:]
    if rest:
        yield rest


class _Words:
    """Collects what is between the tags. lxml calls `start`, `end`, `data` and `close`."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.unseen = self.menus = self.verbatim = self.drawings = 0
        self.in_menus = 0

    def start(self, tag: str, attributes: Any) -> None:
        """A tag opens."""
        self._count(tag, 1)
        self._space(tag)
        if tag == "input" and attributes.get("type", "").lower() not in _WITHOUT_VALUE:
            self.data(f" {attributes.get('value') or attributes.get('placeholder') or ''} ")

    def end(self, tag: str) -> None:
        """A tag closes."""
        self._space(tag)
        self._count(tag, -1)

    def data(self, words: str) -> None:
        """Words between tags; white space means no more than one blank, except in `pre`."""
        if self.unseen:
            return
        if self.menus:
            self.in_menus += len(words.split())
        else:
            self.parts.append(words if self.verbatim else _one_blank(words))

    def close(self) -> None:
        """The page ends."""

    def take(self) -> Iterator[str]:
        """What was collected since the last call."""
        parts, self.parts = self.parts, []
        return iter(parts)

    def _count(self, tag: str, step: int) -> None:
        self.unseen = max(0, self.unseen + step * (tag in _UNSEEN or (tag == "title" and self.drawings > 0)))
        self.menus = max(0, self.menus + step * (tag == "nav"))
        self.verbatim = max(0, self.verbatim + step * (tag in {"pre", "textarea"}))
        self.drawings = max(0, self.drawings + step * (tag == "svg"))

    def _space(self, tag: str) -> None:
        if not self.unseen and not self.menus:
            self.parts.append("\n\n" if tag in _BLOCKS else "\t" if tag in _CELLS else "")


def _one_blank(words: str) -> str:
    squeezed = " ".join(words.split())
    if not squeezed:
        return " " if words else ""
    return (" " if words[0].isspace() else "") + squeezed + (" " if words[-1].isspace() else "")
