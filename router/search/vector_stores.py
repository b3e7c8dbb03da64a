"""Writing a collection straight into a LanceDB or Chroma folder. Both packages are optional extras.

The folder says, like every export, which space its vectors are of.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import BadInput
from router.search.export import Writer

TABLE = "vectors"
"""The table, or collection, in the folder."""
_CHROMA_ROWS = 5_000


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise BadInput(
            f"{package} is not installed.", f"Run `pip install {package}`, or write Parquet, which it reads."
        )


class Lance(Writer):
    """A LanceDB folder with one table: `id`, `text`, `vector`, and the space as the schema's metadata."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        _need("lancedb")
        import lancedb
        import pyarrow as pa

        fields = [pa.field("id", pa.string()), *([pa.field("text", pa.string())] if with_text else [])]
        fields.append(pa.field("vector", pa.list_(pa.float32(), self.dimensions)))
        self._schema = pa.schema(fields, metadata={name: str(value) for name, value in about.items()})
        self._table = lancedb.connect(str(part)).create_table(TABLE, schema=self._schema)

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self.dimensions)
        columns = [pa.array(ids, pa.string()), *([] if texts is None else [pa.array(texts, pa.string())]), flat]
        self._table.add(pa.table(columns, schema=self._schema))


class Chroma(Writer):
    """A Chroma folder with one collection, by cosine, and the space as its metadata."""

    def __init__(self, part: Path, about: dict[str, Any], with_text: bool) -> None:
        super().__init__(part, about, with_text)
        _need("chromadb")
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(part), settings=settings)
        self._collection = client.create_collection(
            TABLE, metadata=about, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )

    def _append(self, ids: list[str], texts: list[str] | None, vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(ids), _CHROMA_ROWS):
            end = start + _CHROMA_ROWS
            documents = None if texts is None else texts[start:end]
            self._collection.add(ids=ids[start:end], embeddings=vectors[start:end], documents=documents)
