"""Writing vectors to files and folders that other programs read, streamed, whole or not at all.

Every file says which space its vectors are of, by which model and of how many dimensions, because vectors of different
spaces cannot be compared and a file outlives the memory of who made it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import BadInput
from router.ingest.extract import disk_errors

_GROUP_BYTES = 16 << 20  # of vectors in a Parquet row group
_NPZ_TEXT_BYTES = 1 << 30
_BLOCK = 4_096  # rows
_FOLDERS = (".lance", ".chroma")
_TABLE = "vectors"  # the table, or collection, in such a folder
_CHROMA_ROWS = 5_000
_ACTIVE = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # the last four are their full-width twins


@contextmanager
def open_writer(path: Path, *, space: str, model: str, dimensions: int, with_text: bool) -> Iterator[VectorWriter]:
    """Write a .parquet, .npz or .jsonl file in a `with`: it appears whole when the block ends well, else not at all.

    Parquet: columns `id`, `text`, `vector` (fixed-size list of float32); `space`, `model`, `dimensions` as metadata.
    NPZ: arrays `id`, `text`, `vector` (n, dimensions) float32, `space`, `model`, `dimensions`; loads without pickle.
    JSON lines: one object a row with all of these names. `.lance` and `.chroma`: folders of LanceDB and Chroma, which
    are optional packages.

    Raises:
        BadInput: another ending, a folder that cannot be written, or rows that do not fit.
        StoreFull: the disk is full.
    """
    make = _WRITERS.get(path.suffix.lower())
    if make is None:
        hint = "End its name in .parquet, .npz or .jsonl, or in .lance or .chroma for a folder."
        raise BadInput(f"Vectors cannot be written as '{path.name}'.", hint)
    if path.suffix.lower() in _FOLDERS and path.exists():
        raise BadInput(f"{path.name} is there already.", "Give a folder that is not there yet.")
    if not path.parent.is_dir():
        raise BadInput(f"There is no folder {path.parent}.", "Create it first.")
    # The errors of the caller's own block must not be taken for ours, so the disk is watched around it, not over it.
    with disk_errors(path.parent):
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=".writing-")) / "part"
    try:
        with disk_errors(path.parent):
            writer = make(part, {"space": space, "model": model, "dimensions": dimensions}, with_text)
        try:
            yield writer
            with disk_errors(path.parent):
                writer.finish()
        finally:
            with suppress(OSError):  # `finish` has closed, and reported, what matters
                writer.close()
        with disk_errors(path.parent):
            if part.is_file():
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        shutil.rmtree(part.parent, ignore_errors=True)


def safe_cell(value: str) -> str:
    """A cell of a CSV file that no spreadsheet reads as a formula: an apostrophe goes before =, +, -, @, tab or CR."""
    return f"'{value}" if value.startswith(_ACTIVE) else value


class VectorWriter(ABC):
    """An open vector file: what all formats share."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        self.part, self.about, self.with_text = part, about, with_text
        self.dimensions: int = about["dimensions"]

    def write(self, ids: Sequence[str], texts: Sequence[str] | None, vectors: NDArray[np.float32]) -> None:
        """Append n rows. `vectors` is (n, dimensions) float32; `texts` is ignored where the file has none.

        Raises:
            BadInput: the lengths, the shape or the dtype do not fit.
        """
        if vectors.shape != (len(ids), self.dimensions) or vectors.dtype != np.float32:
            raise BadInput(
                f"Vectors of shape {vectors.shape} and type {vectors.dtype} do not fit {len(ids)} ids.",
                f"They must be ({len(ids)}, {self.dimensions}) float32.",
            )
        if self.with_text and (texts is None or len(texts) != len(ids)):
            raise BadInput(f"There are {len(texts or ())} texts for {len(ids)} ids.", "Give each vector its text.")
        if not ids:
            return
        with disk_errors(self.part.parent.parent):
            self._append(list(ids), list(texts or ()) if self.with_text else None, np.ascontiguousarray(vectors))

    @abstractmethod
    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        """Write n checked rows."""

    def finish(self) -> None:
        """Write what is still to be written and close the target. Called once, when all went well."""
        self.close()

    def close(self) -> None:  # noqa: B027  # the kinds that are folders have nothing open
        """Close the files. Called at the end in any case."""


class _Arrow(VectorWriter):
    """Columns `id`, `text`, `vector`, and the space as the schema's metadata."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        import pyarrow as pa

        self.pa = pa
        fields = [pa.field(name, pa.string()) for name in ("id", "text")[: 1 + with_text]]
        fields.append(pa.field("vector", pa.list_(pa.float32(), self.dimensions)))
        self.schema = pa.schema(fields, metadata={name: str(value) for name, value in about.items()})

    def _to_arrow(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> Any:
        pa = self.pa
        strings = [ids] if texts is None else [ids, texts]
        # Arrow holds UTF-8 only: half a surrogate pair becomes "?".
        arrays = [pa.array([v.encode("utf-8", "replace").decode() for v in column], pa.string()) for column in strings]
        flat = pa.array(vectors.reshape(-1).copy())  # a copy: it may wait while the caller reuses the array
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, self.dimensions))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _Parquet(_Arrow):
    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        import pyarrow.parquet as pq

        # Vectors have no repeated values and hardly pack: no dictionary, and a plain encoding for them.
        self.file = pq.ParquetWriter(part, self.schema, compression="zstd", use_dictionary=False)
        self.waiting: list[Any] = []
        self.bytes = 0

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        self.waiting.append(self._to_arrow(ids, texts, vectors))
        self.bytes += self.waiting[-1].nbytes
        if self.bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            self.file.write_table(self.pa.Table.from_batches(self.waiting, schema=self.schema))
        self.waiting, self.bytes = [], 0

    def finish(self) -> None:
        self._flush()
        self.close()

    def close(self) -> None:
        self.file.close()


class _Npz(VectorWriter):
    """An .npy file states its shape at its beginning, so rows wait in files beside the target until all are known."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        self.rows = 0
        self.vectors = part.with_name("vectors").open("w+b")
        self.strings = {name: _Strings(part.with_name(name)) for name in ("id", *(["text"] if with_text else []))}

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        self.rows += len(ids)
        self.vectors.write(np.ascontiguousarray(vectors, "<f4").data)
        self.strings["id"].add(ids)
        if texts is not None:
            self.strings["text"].add(texts)
        for name, column in self.strings.items():
            if 4 * self.rows * column.longest > _NPZ_TEXT_BYTES:
                raise BadInput(
                    f"The {name}s are too long for .npz, where each takes as much room as the longest.",
                    "Write .parquet or .jsonl.",
                )

    def finish(self) -> None:
        with zipfile.ZipFile(self.part, "w", zipfile.ZIP_STORED) as archive:
            with _member(archive, "vector", "<f4", (self.rows, self.dimensions)) as out:
                self.vectors.seek(0)
                shutil.copyfileobj(self.vectors, out, 1 << 20)
            for name, column in self.strings.items():
                dtype = f"<U{max(1, column.longest)}"
                with _member(archive, name, dtype, (self.rows,), zipfile.ZIP_DEFLATED) as out:
                    for block in column.blocks():
                        out.write(np.array(block, dtype).tobytes())
            for name, value in self.about.items():
                array = np.array(value)
                with _member(archive, name, array.dtype.str, ()) as out:
                    out.write(array.tobytes())

    def close(self) -> None:
        self.vectors.close()
        for column in self.strings.values():
            column.file.close()


@contextmanager
def _member(
    archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...], packing: int = zipfile.ZIP_STORED
) -> Iterator[IO[bytes]]:
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = packing
    with archive.open(entry, "w", force_zip64=True) as out:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(out, header)
        yield out


class _Strings:
    """A column of strings on disk, with the length of its longest."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+", encoding="ascii")
        self.longest = 0

    def add(self, values: list[str]) -> None:
        self.longest = max(self.longest, *map(len, values))
        self.file.writelines(json.dumps(value) + "\n" for value in values)

    def blocks(self) -> Iterator[list[str]]:
        self.file.seek(0)
        block: list[str] = []
        for line in self.file:
            block.append(json.loads(line))
            if len(block) == _BLOCK:
                yield block
                block = []
        yield block


class _JsonLines(VectorWriter):
    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        self.file = part.open("wb")
        self.tail = json.dumps(about)[1:].encode()

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        import orjson

        for row, vector in enumerate(vectors):
            head = {"id": ids[row]} if texts is None else {"id": ids[row], "text": texts[row]}
            # The standard library writes any string; orjson writes float32 in the fewest digits that give it back.
            numbers = orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
            self.file.write(json.dumps(head)[:-1].encode() + b', "vector": ' + numbers + b", " + self.tail + b"\n")

    def close(self) -> None:
        self.file.close()


class _Lance(_Arrow):
    """A LanceDB folder with one table."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        _need("lancedb")
        import lancedb

        self._table = lancedb.connect(str(part)).create_table(_TABLE, schema=self.schema)

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        self._table.add(self.pa.Table.from_batches([self._to_arrow(ids, texts, vectors)]))


class _Chroma(VectorWriter):
    """A Chroma folder with one collection, by cosine, and the space as its metadata."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        _need("chromadb")
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(part), settings=settings)
        self._collection = client.create_collection(
            _TABLE, metadata=about, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(ids), _CHROMA_ROWS):
            end = start + _CHROMA_ROWS
            documents = None if texts is None else texts[start:end]
            self._collection.add(ids=ids[start:end], embeddings=vectors[start:end], documents=documents)


_WRITERS: dict[str, type[VectorWriter]] = {
    ".parquet": _Parquet,
    ".npz": _Npz,
    ".jsonl": _JsonLines,
    ".lance": _Lance,
    ".chroma": _Chroma,
}


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise BadInput(
            f"{package} is not installed.", f"Run `pip install {package}`, or write Parquet, which it reads."
        )
