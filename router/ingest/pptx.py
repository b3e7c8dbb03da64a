"""PPTX: the slides in the order in which they are shown, each with its notes behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.ingest.office import Walker
from router.ingest.package import Package, local, relation_id

_ON_NOTES = frozenset({"sldNum", "sldImg", "hdr", "ftr", "dt"})


def read(path: str, _codec: str, notes: list[str]) -> Iterator[str]:
    """A line a paragraph: titles, text boxes, groups, tables, diagrams and charts of each slide, then `Notes:`.

    What stands on a layout or a master itself, such as a firm's name, comes once at the end. Comments are left out.
    """
    package = Package(path, notes)
    name, root = package.main_part("presentation")
    relations = package.relations(name)
    masters: dict[str, None] = {}
    for reference in root.iter("{*}sldId"):
        _, slide = relations.get(relation_id(reference), ("", ""))
        if slide in package:
            yield _shapes(package, slide, frozenset({"sldNum"})) + "\n"
            for part in package.related(slide, "notesSlide"):
                if spoken := _shapes(package, part, _ON_NOTES).strip():
                    yield f"Notes: {spoken}\n\n"
            for layout in package.related(slide, "slideLayout"):
                masters |= dict.fromkeys([layout, *package.related(layout, "slideMaster")])
        else:
            notes.append("A slide of it is missing in the file.")
    for part in masters:
        yield _shapes(package, part, None)


def _shapes(package: Package, part: str, hidden: frozenset[str] | None) -> str:
    """The words of a part's shapes; of a layout (`hidden` None) of those that are no places for a slide's own."""
    walker = Walker(package, part, paragraph="\n", hidden_places=hidden)
    trees: list[Any] = [element for element in package.xml(part).iter() if local(element) == "spTree"]
    return "".join(text for tree in trees[:1] for text in walker.blocks(tree))
