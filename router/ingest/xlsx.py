"""XLSX: every sheet with its name, a line a row; dates as dates, of formulas the values that were stored last."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any

from router.ingest.office import Walker
from router.ingest.package import Package
from router.ingest.reader import plural

_WIDE_GAP = re.compile(r"\t{9,}")
"""So many empty cells are no table any more."""


def read(path: str, _codec: str, notes: list[str]) -> Iterator[str]:
    """Sheets in their order, cells apart by tabs, hidden ones too; then the words of text boxes and charts."""
    package = Package(path, notes)  # first: its bounds
    name, _ = package.main_part("workbook")
    import openpyxl  # type: ignore[import-untyped]  # it ships no types

    with open(path, "rb") as file:  # by its name it would ask for an ending
        yield from _sheets(openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False), notes)
    without = 0
    for kind in ("worksheet", "chartsheet"):
        for part in package.related(name, kind):
            without += _without_value(package, part) if kind == "worksheet" else 0
            for drawing in package.related(part, "drawing"):
                yield Walker(package, drawing, paragraph="\n").text(package.xml(drawing))
    if without:
        notes.append(
            f"{plural(without, 'formula')} of it {'has' if without == 1 else 'have'} no stored value: open it in a"
            " spreadsheet program and save it."
        )


def _sheets(book: Any, notes: list[str]) -> Iterator[str]:
    for sheet in book.worksheets:
        heading = f"{sheet.title}\n"
        sheet.reset_dimensions()  # a file may claim a million columns
        for row in sheet.iter_rows(values_only=True):
            cells = [_shown(value) for value in row]
            if any(cells):
                yield heading + _WIDE_GAP.sub("\t", "\t".join(cells).rstrip("\t")) + "\n"
                heading = ""
        if heading:
            notes.append(f"The sheet {sheet.title} has no cells.")
        else:
            yield "\n"


def _shown(value: Any) -> str:
    """A cell as a person reads it: dates and times as in ISO 8601, whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _without_value(package: Package, part: str) -> int:
    """How many formulas have no value: those of files that no spreadsheet program has calculated."""
    data = package.read(part)
    if b"<f" not in data and b":f" not in data:
        return 0
    import io

    import lxml.etree as etree  # type: ignore[import-untyped]  # lxml ships no types

    count = 0
    cells = etree.iterparse(io.BytesIO(data), tag="{*}row", resolve_entities=False, no_network=True, load_dtd=False)
    for _, row in cells:
        for cell in row:
            count += cell.find("{*}f") is not None and not (cell.findtext("{*}v") or cell.find("{*}is") is not None)
        row.clear()
        while row.getprevious() is not None:
            del row.getparent()[0]
    return count
