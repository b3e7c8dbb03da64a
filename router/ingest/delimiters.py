"""By what the cells of a table in text are parted: found by reading its first records, quotation marks and all.

One line is not enough: a header may hold a comma in quotes under semicolons, and every answer of a survey a comma.
"""

from __future__ import annotations

import csv
import re
from itertools import islice
from pathlib import Path

from router.ingest.columns import TEXT_COLUMNS
from router.ingest.readers_text import lines

MARKS = ",;\t|"
_RECORDS = 100
_CHARACTERS = 1 << 18
_AGREE = 0.6
"""The share of records with as many cells as the header that makes a mark believable."""
_NAMED = re.compile(r"""["']?sep=(.)["']?\s*""", re.IGNORECASE)


def find(path: Path) -> tuple[str, bool]:
    """The delimiter of a file: what its first line names (`sep=;`, as Excel writes it), else tabs in `.tsv`, else what
    fits its first records; and whether that line names it, which then is no record.
    """
    sample = _sample(path)
    said = _NAMED.fullmatch(sample[0]) if sample else None
    if said:
        return said[1], True
    return "\t" if path.suffix.lower() == ".tsv" else max(MARKS, key=lambda mark: _fit(sample, mark)), False


def _sample(path: Path) -> list[str]:
    """The first lines, ends included."""
    taken, size = [], 0
    for line in islice(lines(path, ""), 10 * _RECORDS):
        taken.append(line)
        size += len(line)
        if size > _CHARACTERS:
            break
    return taken


def _fit(sample: list[str], mark: str) -> tuple[bool, float, float, int]:
    """How well a mark parts the sample: into several cells, as many as in the header or with a usual name in it; then
    without blanks after it (a comma and a blank is prose); then into many."""
    records = _records(sample, mark)
    header = [name.strip() for name in records[0]] if records else []
    rest = [record for record in records[1:] if record]
    agree = sum(len(record) == len(header) for record in rest) / len(rest) if rest else 1.0
    later = [cell for record in records for cell in record[1:]]
    prose = sum(cell[:1].isspace() for cell in later) / len(later) if later else 0.0
    believable = len(header) > 1 and (agree >= _AGREE or not set(header).isdisjoint(TEXT_COLUMNS))
    return believable, round(agree, 1), -round(prose, 1), len(header)


def _records(sample: list[str], mark: str) -> list[list[str]]:
    """The records of the sample; one whose quotation marks are broken counts as a single cell."""
    reader = csv.reader(sample, delimiter=mark, strict=True)
    records: list[list[str]] = []
    while len(records) < _RECORDS:
        try:
            records.append(next(reader))
        except StopIteration:
            break
        except csv.Error:
            records.append([""])
    return records
