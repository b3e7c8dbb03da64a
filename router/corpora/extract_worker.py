"""Reads one PDF, DOCX or HTML file in a process of its own, under limits of memory and processor time.

Such files come from strangers, and a few kilobytes of them can ask for gigabytes or for hours. Here they meet limits
that the operating system enforces, and nothing else: no keys in the environment, no database, no part of the router.

    extract_worker.py KIND IN OUT ENCODING MEGABYTES SECONDS CHARACTERS

Exit 0: OUT is the text in UTF-8. Exit 3: OUT is the reason why the file cannot be read. Anything else: it broke down.
"""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

EXIT_REASON = 3
_MIB = 1 << 20
_DOCX_ENTRIES = 5_000
_DOCX_BYTES = 128 * _MIB
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr"}
    | {"html", "legend", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead"}
    | {"title", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})
_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "nav"})


class Unreadable(Exception):
    """The file cannot be read; the message is the reason."""


def pdf_blocks(path: str, _encoding: str) -> Iterator[str]:
    """The text of each page."""
    import pypdf

    reader = pypdf.PdfReader(path, strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("it is protected by a password")
    for page in reader.pages:
        yield page.extract_text() + "\n\n"


def docx_blocks(path: str, _encoding: str) -> Iterator[str]:
    """Each paragraph, and each row of a table with its cells apart by tabs, in the order of the document."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > _DOCX_ENTRIES or sum(entry.file_size for entry in entries) > _DOCX_BYTES:
            raise Unreadable(f"it unpacks to more than {_DOCX_BYTES // _MIB} MB or {_DOCX_ENTRIES} parts")
    import docx
    from docx.table import Table

    for item in docx.Document(path).iter_inner_content():
        if isinstance(item, Table):
            for row in item.rows:
                # A merged cell is listed once for every column that it spans.
                cells = {id(cell._tc): cell.text for cell in row.cells}
                yield "\t".join(cells.values()) + "\n"
            yield "\n"
        else:
            yield item.text + "\n\n"


def html_blocks(path: str, encoding: str) -> Iterator[str]:
    """The words that a reader sees, menus left out, as a stream: no tree of the page is ever built."""
    import lxml.etree  # type: ignore[import-untyped]  # lxml ships no types

    target = _Words()
    parser = lxml.etree.HTMLParser(target=target, huge_tree=False, no_network=True)
    with open(path, encoding=encoding, errors="replace") as file:
        # XML 1.0 has no control characters; libxml2 would stop at the first NUL without a word.
        while piece := file.read(_MIB // 4):
            parser.feed(piece.translate(_NO_CONTROLS))
            yield from target.take()
    with contextlib.suppress(lxml.etree.XMLSyntaxError):  # a page without any element
        parser.close()
    yield from target.take()


_NO_CONTROLS = {code: " " for code in range(32) if code not in (9, 10, 13)}


class _Words:
    """Collects what is between the tags. lxml calls `start`, `end`, `data` and `close`."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.unseen = 0
        self.verbatim = 0

    def start(self, tag: str, _attributes: Any) -> None:
        """A tag opens."""
        self.unseen += tag in _UNSEEN
        self.verbatim += tag == "pre"
        self._space(tag)

    def end(self, tag: str) -> None:
        """A tag closes."""
        self.unseen = max(0, self.unseen - (tag in _UNSEEN))
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        self._space(tag)

    def data(self, words: str) -> None:
        """Words between tags; white space means no more than one blank, except in `pre`."""
        if not self.unseen:
            self.parts.append(words if self.verbatim else _one_blank(words))

    def close(self) -> None:
        """The page ends."""

    def take(self) -> Iterator[str]:
        """What was collected since the last call."""
        parts, self.parts = self.parts, []
        return iter(parts)

    def _space(self, tag: str) -> None:
        if not self.unseen:
            self.parts.append("\n\n" if tag in _BLOCKS else "\t" if tag in _CELLS else "")


def _one_blank(words: str) -> str:
    squeezed = " ".join(words.split())
    if not squeezed:
        return " " if words else ""
    return (" " if words[0].isspace() else "") + squeezed + (" " if words[-1].isspace() else "")


def _limit(megabytes: int, seconds: int) -> None:
    if sys.platform == "win32":
        return  # no such limits there: the time limit of the caller is all
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (megabytes * _MIB, megabytes * _MIB))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(blocks: Iterator[str], out: str, characters: int) -> None:
    with open(out, "w", encoding="utf-8", errors="replace", newline="") as file:
        for block in blocks:
            characters -= len(block)
            if characters < 0:
                raise Unreadable("it holds more text than one document may; split it")
            file.write(block)


READERS: dict[str, Callable[[str, str], Iterator[str]]] = {
    "pdf": pdf_blocks,
    "docx": docx_blocks,
    "html": html_blocks,
}


def main(arguments: list[str]) -> int:
    """Read one file; see the module's docstring for the arguments and the exit code."""
    kind, path, out, encoding, megabytes, seconds, characters = arguments
    _limit(int(megabytes), int(seconds))
    try:
        _write(READERS[kind](path, encoding), out, int(characters))
    except MemoryError:
        reason = f"reading it takes more than {megabytes} MB of memory"
    except Unreadable as error:
        reason = str(error)
    except Exception as error:  # a parser may raise anything on a broken file; whatever it is becomes the reason
        reason = f"it is broken ({type(error).__name__}: {str(error)[:200]})"
    else:
        return 0
    with open(out, "w", encoding="utf-8", errors="replace") as file:
        file.write(reason)
    return EXIT_REASON


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
