"""The words of WordprocessingML and DrawingML, in the order in which a person reads them.

Elements go by their local names: the formats have two namespaces each, and a text, a paragraph or a table is called the
same in Word, in PowerPoint, in a chart and in a diagram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from router.ingest.package import Package, attribute, local, relation_id
from router.ingest.reader import plural

_NOT_SEEN = frozenset(
    {"del", "moveFrom", "delText", "instrText", "delInstrText", "posOffset", "commentReference", "binData"}
)
_WRITTEN = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_PRIVATE = range(0xE000, 0xF900)  # of Unicode: what a symbol font makes of these, nobody can tell


class Walker:
    """Reads the elements of one part."""

    def __init__(
        self,
        package: Package,
        part: str,
        *,
        paragraph: str = "\n\n",
        hidden_places: frozenset[str] | None = frozenset(),
    ) -> None:
        """`paragraph` is what stands behind one; `hidden_places` are types of placeholders that are left out, such as
        a slide's number, or None for all.
        """
        self._package = package
        self._relations = package.relations(part)
        self._paragraph = paragraph
        self.footnotes: dict[tuple[str, str], tuple[Walker, Any]] = {}
        self._hidden = hidden_places
        self._not_read = 0

    def text(self, element: Any) -> str:
        """All of an element, with what is anchored in it behind it."""
        out: list[str] = []
        after: list[str] = []
        self._walk(element, out, after)
        return "".join(out + after)

    def blocks(self, element: Any) -> Iterator[str]:
        """The same, an element's child at a time."""
        for child in element:
            yield self.text(child)
        if self._not_read:
            self._package.notes.append(f"{plural(self._not_read, 'embedded object')} of it cannot be read.")
            self._not_read = 0

    def _walk(self, element: Any, out: list[str], after: list[str]) -> None:
        name = local(element)
        if not name or name in _NOT_SEEN or name.endswith("Pr"):
            return
        special = _SPECIAL.get(name)
        if special is not None:
            special(self, element, out, after)
        elif name in _WRITTEN:
            out.append(_WRITTEN[name])
        elif name == "t" and not len(element):
            out.append(element.text or "")
        else:
            self._children(element, out, after)

    def _children(self, element: Any, out: list[str], after: list[str]) -> None:
        for child in element:
            self._walk(child, out, after)

    def _p(self, element: Any, out: list[str], _after: list[str]) -> None:
        words: list[str] = []
        anchored: list[str] = []
        self._children(element, words, anchored)
        for text in ("".join(words), *anchored):
            if text.strip():
                out.append(text.strip("\n") + self._paragraph)

    def _tr(self, element: Any, out: list[str], _after: list[str]) -> None:
        if any(local(mark) == "del" for own in element if local(own) == "trPr" for mark in own):
            return
        out.append("\t".join(self._cells(element)) + "\n")

    def _cells(self, row: Any) -> Iterator[str]:
        """The cells of a row, those inside content controls and marks of changes too."""
        for child in row:
            name = local(child)
            if name == "tc":
                if "1" not in (child.get("hMerge"), child.get("vMerge")):  # what another cell covers
                    out: list[str] = []
                    after: list[str] = []
                    self._children(child, out, after)
                    yield "".join(out + after).replace(self._paragraph, "\n").strip("\n")
            elif name and name not in _NOT_SEEN and not name.endswith("Pr"):
                yield from self._cells(child)

    def _tbl(self, element: Any, out: list[str], after: list[str]) -> None:
        self._children(element, out, after)
        out.append("\n")

    def _alternate(self, element: Any, out: list[str], after: list[str]) -> None:
        """The first of the alternatives that has words: all of them show the same."""
        for choice in element:
            words: list[str] = []
            anchored: list[str] = []
            self._children(choice, words, anchored)
            if "".join(words + anchored).strip():
                out += words
                after += anchored
                return

    def _apart(self, element: Any, _out: list[str], after: list[str]) -> None:
        words: list[str] = []
        self._children(element, words, words)
        after.append("".join(words))

    def _footnote(self, element: Any, _out: list[str], after: list[str]) -> None:
        found = self.footnotes.pop((local(element).removesuffix("Reference"), attribute(element, "id")), None)
        if found is not None:
            walker, note = found
            after.append(walker.text(note))

    def _related(self, element: Any, out: list[str], after: list[str]) -> None:
        """A diagram or a chart: its words are in a part of its own, and there it is called a chart as well."""
        reference = relation_id(element, "dm") or relation_id(element)
        _, part = self._relations.get(reference, ("", ""))
        if not reference:
            self._children(element, out, after)
        elif part in self._package and part not in self._package.open_parts:
            self._package.open_parts.add(part)
            after.append(Walker(self._package, part, paragraph="\n").text(self._package.xml(part)))
            self._package.open_parts.discard(part)

    def _cached(self, element: Any, out: list[str], _after: list[str]) -> None:
        """The names of a chart's categories and series."""
        out.append("\t".join(value.text or "" for value in element.iter() if local(value) == "v") + "\n")

    def _point(self, element: Any, out: list[str], after: list[str]) -> None:
        if element.text and element.text.strip():  # of the charts of since 2016
            out.append(element.text + "\n")
        self._children(element, out, after)

    def _symbol(self, element: Any, out: list[str], _after: list[str]) -> None:
        try:
            code = int(attribute(element, "char"), 16)
        except ValueError:
            return
        out.append("" if code in _PRIVATE else chr(code))

    def _ruby(self, element: Any, out: list[str], after: list[str]) -> None:
        """The word, and how it is spoken in brackets."""
        for child in element:
            if local(child) == "rubyBase":
                self._children(child, out, after)
        for child in element:
            if local(child) == "rt":
                out.append("(")
                self._children(child, out, after)
                out.append(")")

    def _dropdown(self, element: Any, out: list[str], _after: list[str]) -> None:
        """What a form's list shows, which stands nowhere else."""
        entries = [attribute(e, "val") for e in element if local(e) == "listEntry"]
        chosen = next((attribute(e, "val") for e in element if local(e) == "result"), "0")
        if chosen.isdecimal() and int(chosen) < len(entries):
            out.append(entries[int(chosen)])

    def _word_art(self, element: Any, _out: list[str], after: list[str]) -> None:
        after.append(attribute(element, "string") + "\n")

    def _shape(self, element: Any, out: list[str], after: list[str]) -> None:
        place = next((attribute(one, "type") or "body" for one in element.iter() if local(one) == "ph"), "")
        if not place or (self._hidden is not None and place not in self._hidden):
            self._children(element, out, after)

    def _field(self, element: Any, out: list[str], after: list[str]) -> None:
        if attribute(element, "type") != "slidenum":
            self._children(element, out, after)

    def _embedded(self, _element: Any, _out: list[str], _after: list[str]) -> None:
        self._not_read += 1


_SPECIAL: dict[str, Callable[[Walker, Any, list[str], list[str]], None]] = {
    "p": Walker._p,
    "tr": Walker._tr,
    "tbl": Walker._tbl,
    "AlternateContent": Walker._alternate,
    "txbxContent": Walker._apart,
    "footnoteReference": Walker._footnote,
    "endnoteReference": Walker._footnote,
    "relIds": Walker._related,
    "chart": Walker._related,
    "strCache": Walker._cached,
    "pt": Walker._point,
    "sym": Walker._symbol,
    "ruby": Walker._ruby,
    "ddList": Walker._dropdown,
    "textpath": Walker._word_art,
    "sp": Walker._shape,
    "fld": Walker._field,
    "altChunk": Walker._embedded,
    "OLEObject": Walker._embedded,
    "oleObj": Walker._embedded,
}
