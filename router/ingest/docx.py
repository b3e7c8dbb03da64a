"""DOCX: the text as it is when all tracked changes are accepted; headers before it and footers behind it, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.ingest.office import Walker
from router.ingest.package import Package, attribute, local, relation_id


def read(path: str, _codec: str, notes: list[str]) -> Iterator[str]:
    """Paragraphs apart by blank lines, rows of tables by lines and their cells by tabs.

    Text boxes, diagrams, charts, footnotes and endnotes stand behind the paragraph that they belong to. Comments and
    what was deleted or moved away are left out.
    """
    package = Package(path, notes)
    name, root = package.main_part("document")
    walker = Walker(package, name)
    for kind in ("footnote", "endnote"):
        for part in package.related(name, f"{kind}s"):
            of_part = Walker(package, part)
            for note in package.xml(part):
                walker.footnotes[kind, attribute(note, "id")] = (of_part, note)
    yield from _around(package, name, root, "headerReference")
    for body in root:
        if local(body) == "body":
            yield from walker.blocks(body)
    yield from _around(package, name, root, "footerReference")


def _around(package: Package, name: str, root: Any, kind: str) -> Iterator[str]:
    """The headers or footers of all sections, each text once."""
    relations = package.relations(name)
    said: set[str] = set()
    for reference in root.iter("{*}" + kind):
        _, part = relations.get(relation_id(reference), ("", ""))
        if part in package:
            text = "".join(Walker(package, part).blocks(package.xml(part)))
            if text.strip() and text not in said:
                said.add(text)
                yield text
