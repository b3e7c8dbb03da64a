"""A sample of files that are to be read: a few places of each kind of file, in the same time whatever their size.

Each kind is a population of places of which some are drawn at random: blocks of files of lines, row groups of Parquet,
whole documents. A CSV, TSV or JSON list cannot be entered in its middle, where a quoted text may stand, so of these a
place is a file, and its first records are looked at. What is drawn goes as a small file of its own through the readers
of the whole ones. Nothing is written but that, in a temporary folder.
"""

from __future__ import annotations

import codecs
import random
import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from router.domain.errors import BadInput
from router.ingest import extract
from router.ingest.columns import Columns, choose
from router.ingest.extract import FileVerdict
from router.ingest.files import Ingest, Reading
from router.ingest.readers_rows import Row
from router.store.models import NewChunk

if TYPE_CHECKING:
    import pyarrow.parquet

PLACES = 64
"""Drawn of each kind of file at most."""
BLOCK = 32 << 10
"""Bytes: lines that begin in a block of these are a place."""
HEAD = 256 << 10
"""Bytes of a table or list that are looked at, from its beginning."""
ROWS = 4_096
"""Rows of Parquet that are looked at in all: as many at the beginning of each row group that is drawn."""
LONGEST = 1 << 20
"""Bytes that a line may reach beyond its block."""
DOCUMENT_BYTES = 4 << 20
"""No further document is drawn after so many bytes of one kind."""
_LINES = frozenset({".jsonl", ".ndjson", ".txt"})
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)

Way = Literal["lines", "groups", "heads", "documents"]


class NotSampled(Exception):
    """Why no estimate can be made, in a sentence."""


@dataclass(frozen=True, slots=True)
class Place:
    """What was found at one place. `size` is in units of its kind: bytes, or rows of Parquet; `share` was looked at."""

    path: Path
    size: float
    share: float
    chunks: list[NewChunk] = field(repr=False)


@dataclass(slots=True)
class Stratum:
    """The files of one kind: `size` of all its places, how many there are, those drawn and those looked at."""

    name: str
    way: Way
    size: float
    places: int
    drawn: deque[tuple[Path, int, float]] = field(repr=False)
    looked: list[Place] = field(default_factory=list, repr=False)
    bytes: int = 0


class Sampler:
    """Looks at places of some files, turn by turn of each kind. Runs in a worker thread."""

    def __init__(self, files: Sequence[FileVerdict], ingest: Ingest, reading: Reading) -> None:
        """Draws the places; reads no more than sizes, the first bytes of lists, and the footers of Parquet.

        The draw is the same for the same names and sizes, and another one for others: were it one for all files, its
        luck would be the same for all.

        Raises:
            NotSampled: a Parquet file has no footer.
        """
        self._ingest = ingest
        self._reading = reading
        self._names = {v.path: v.name for v in files if v.path is not None}
        self._columns: dict[Path, Columns] = {}
        sizes = [(name, path.stat().st_size) for path, name in self._names.items()]
        self._random = random.Random(repr(sizes))
        by_kind: dict[tuple[Way, str], list[Path]] = {}
        for path in self._names:
            by_kind.setdefault(self._way(path), []).append(path)
        self.total = sum(size for _, size in sizes)
        self.kinds = [self._kind(way, name, paths) for (way, name), paths in by_kind.items()]

    @property
    def bytes(self) -> int:
        """Bytes of the files that were looked at, about (of Parquet by its rows)."""
        return sum(kind.bytes for kind in self.kinds)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Look at places until all that were drawn have been, or `stopped` says so between two.

        Raises:
            NotSampled: a record is too long for this.
        """
        with tempfile.TemporaryDirectory(prefix="router-sample-") as folder:
            while left := [kind for kind in self.kinds if kind.drawn]:
                for kind in left:
                    if stopped():
                        return
                    self._look(kind, *kind.drawn.popleft(), Path(folder))
                    if kind.way == "documents" and kind.bytes >= DOCUMENT_BYTES:
                        kind.drawn.clear()

    # ---- what there is ----

    def _way(self, path: Path) -> tuple[Way, str]:
        ending = path.suffix.lower()
        if not self._reading.as_rows(path):
            return "documents", ending
        if ending == ".parquet":
            return "groups", ending
        return ("lines", "lines") if ending in _LINES and not _starts_wide(path) else ("heads", ending)

    def _kind(self, way: Way, name: str, paths: list[Path]) -> Stratum:
        sizes = [path.stat().st_size for path in paths]
        counts = [-(-size // BLOCK) if way == "lines" else 1 for size in sizes]
        groups: list[list[int]] = []
        if way == "groups" and len(paths) <= PLACES:  # of more the footers would take long
            groups = [_groups(path) for path in paths]
            counts, sizes = list(map(len, groups)), list(map(sum, groups))
        elif way == "groups":
            way = "heads"
        ends = list(accumulate(counts))
        drawn: deque[tuple[Path, int, float]] = deque()
        for number in self._random.sample(range(ends[-1]), min(PLACES, ends[-1])):
            at = bisect_right(ends, number)
            inside = number - ends[at] + counts[at]
            drawn.append((paths[at], inside, float(groups[at][inside] if groups else sizes[at])))
        return Stratum(name=name, way=way, size=float(sum(sizes)), places=ends[-1], drawn=drawn)

    # ---- looking ----

    def _look(self, kind: Stratum, path: Path, number: int, size: float, folder: Path) -> None:
        name = self._names[path]
        share = 1.0
        chunks: list[NewChunk] = []
        try:
            if kind.way == "documents":
                kind.bytes += int(size)
                chunks = self._ingest.chunks_of_document(path, name)
            elif kind.way == "lines":
                data = _lines_of_block(path, number, name)
                size = float(len(data))
                kind.bytes += len(data)
                if data:
                    columns = self._columns_of(path, name, folder)
                    chunks = self._ingest.chunks_of(list(extract.read_rows(_small(folder, path, data), columns)))
            else:
                rows, share = self._first_rows(kind, path, number, folder)
                chunks = self._ingest.chunks_of(rows)
        except NotSampled:
            raise
        except Exception:  # foreseen or not: the reading reports it, and goes on with the other files
            pass
        kind.looked.append(Place(path, size, share, chunks))

    def _columns_of(self, path: Path, name: str, folder: Path) -> Columns:
        """The columns of a file of lines, by its beginning, as when it is read from there."""
        if path not in self._columns:
            head = _small(folder, path, _head(path))
            there = extract.columns(head)
            self._columns[path] = choose(name, there, self._reading.columns_of(path, name), complete=False)
        return self._columns[path]

    def _first_rows(self, kind: Stratum, path: Path, number: int, folder: Path) -> tuple[list[Row], float]:
        """The first rows of a table, a list or a row group, and the share of it that they are."""
        columns = self._reading.columns_of(path, self._names[path])
        size = path.stat().st_size
        if path.suffix.lower() == ".parquet":
            small = folder / path.name
            here, all_ = _first_of_group(path, number, ROWS // min(PLACES, kind.places), small)
            share = here / (all_[number] if kind.way == "groups" else sum(all_)) if here else 1.0
            kind.bytes += int(size * here / max(1, sum(all_)))
            return list(extract.read_rows(small, columns)), share
        data = _head(path)
        kind.bytes += len(data)
        if len(data) == size:
            return list(extract.read_rows(_small(folder, path, data), columns)), 1.0
        rows: list[Row] = []
        why = "its first record is longer than that"
        try:
            rows += extract.read_rows(_small(folder, path, data), columns)
        except BadInput as error:  # where it was cut, most likely
            why = str(error)
        if len(rows) < 2:
            raise NotSampled(f"of {self._names[path]} the first {len(data) >> 10:,} kB tell nothing: {why}")
        # What it was cut in counts as half a record.
        return rows[:-1], len(data) * (1 - 0.5 / len(rows)) / size


def _starts_wide(path: Path) -> bool:
    """Whether its characters are of several bytes each, so that a byte 10 need not be the end of a line."""
    with path.open("rb") as file:
        return file.read(4).startswith(_WIDE)


def _lines_of_block(path: Path, block: int, name: str) -> bytes:
    """The lines that begin in a block, so that each line belongs to one block; b"" where none does."""
    begin, end = block * BLOCK, (block + 1) * BLOCK
    with path.open("rb") as file:
        if begin:
            file.seek(begin - 1)
            if not file.readline(BLOCK + 1).endswith(b"\n"):
                return b""
            begin = file.tell()
        data = file.read(end - begin) if begin < end else b""
        if data and not data.endswith(b"\n"):
            rest = file.readline(LONGEST)
            if len(rest) == LONGEST and not rest.endswith(b"\n"):
                raise NotSampled(f"{name} has lines of more than {LONGEST >> 20} MB")
            data += rest
    return data


def _head(path: Path) -> bytes:
    """The first bytes; where they are not all, up to the last character that begins there in UTF-8."""
    with path.open("rb") as file:
        data = file.read(HEAD)
        if not file.read(1) or data.startswith(_WIDE):
            return data
    while data and data[-1] & 0xC0 == 0x80:
        data = data[:-1]
    return data[:-1] if data and data[-1] >= 0xC0 else data


def _small(folder: Path, path: Path, data: bytes) -> Path:
    small = folder / f"sample{path.suffix.lower()}"
    small.write_bytes(data)
    return small


@contextmanager
def _parquet(path: Path, **how: Any) -> Iterator[pyarrow.parquet.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, **how) as file:
            yield file
    except (pa.ArrowException, OSError, IndexError) as error:
        raise NotSampled(f"{path.name} is a broken Parquet file") from error


def _groups(path: Path) -> list[int]:
    """The rows of each row group."""
    with _parquet(path) as file:
        return [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]


def _first_of_group(path: Path, number: int, rows: int, small: Path) -> tuple[int, list[int]]:
    """Write the first rows of a row group as a file: how many they are, and the rows of each group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # By small buffers and not ahead: a row group may be hundreds of megabytes.
    with _parquet(path, pre_buffer=False, buffer_size=1 << 16) as file:
        found = list(islice(file.iter_batches(batch_size=rows, row_groups=[number], use_threads=False), 1))
        pq.write_table(pa.Table.from_batches(found, file.schema_arrow), small)
    return sum(batch.num_rows for batch in found), _groups(path)
