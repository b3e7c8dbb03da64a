"""Vectors that were paid for elsewhere, brought into the cache, so that they are never paid for again.

A vector that is wrong would answer for its text for ever; so every row is checked: the model is known, the vector has
its full size, every number is finite, and the length is one, as the model's vectors have it. Whether it is truly that
model's vector of that text nobody can check; the file's owner vouches for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from router import tokens
from router.domain.errors import BadInput
from router.domain.values import Model, Role
from router.engine import Router
from router.ingest.files import unusable
from router.ingest.readers_rows import jsonl_items, parquet_errors
from router.pipeline.validate import digest
from router.providers.base import Floats
from router.store.vectors import vector_key

BLOCK = 1_000
TOLERANCE = 1e-2
"""How far a vector's length may be from one: float16 and rounded decimals are mended, other vectors are not."""
_MOST_NAMED = 100
_Raw = Mapping[str, Any] | BadInput
"""A row as it was read, or why it could not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file of vectors. `refused` rows were left out; `reasons` names the first of them by row."""

    stored: int
    refused: int
    models: Mapping[str, int]
    reasons: Mapping[int, str]


async def import_file(router: Router, path: Path, model: str | None) -> Imported:
    """Store the vectors of a .parquet or .jsonl file with `text`, `vector` and (unless given here) `model`.

    A `role` column is used by models that tell roles apart; without one the vectors are of documents. Text that is
    longer than the model takes cannot have a vector of its own and is refused. What is cached already stays.

    Raises:
        BadInput: the file cannot be read at all.
        StoreError: the cache cannot be written.
    """
    reader = {".parquet": _parquet, ".jsonl": _jsonl}.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path.name}: vectors are read from .parquet and .jsonl files.", "Convert it.")
    rows = reader(path)
    refused = number = 0
    models: Counter[str] = Counter()
    reasons: dict[int, str] = {}
    while block := await asyncio.to_thread(lambda: list(islice(rows, BLOCK))):
        groups: dict[tuple[str, Role], list[tuple[str, Floats]]] = {}
        for raw in block:
            number += 1
            try:
                if isinstance(raw, BadInput):
                    raise raw
                name, role, text, vector = _checked(router, raw, model)
            except BadInput as error:
                refused += 1
                if len(reasons) < _MOST_NAMED:
                    reasons[number] = str(error)
                continue
            groups.setdefault((name, role), []).append((text, vector))
        for (name, role), found in groups.items():
            stored = await _store(router, router.catalog.get(name), role, found)
            models[name] += stored
            refused += len(found) - stored
    return Imported(stored=models.total(), refused=refused, models=models, reasons=reasons)


async def _store(router: Router, model: Model, role: Role, rows: list[tuple[str, Floats]]) -> int:
    """Store texts and vectors of one kind; returns how many, as some may be too long for the model."""
    counts = await asyncio.to_thread(tokens.count_for, model, role, [text for text, _ in rows])
    limit = model.limits.tokens_per_text
    good = [(text, vector, n) for (text, vector), n in zip(rows, counts, strict=True) if limit is None or n <= limit]
    if good:
        await router.cache.store(
            vector_key(model, role, "whole"),
            [digest(text) for text, _, _ in good],
            [n for _, _, n in good],
            np.stack([vector for _, vector, _ in good]),
        )
    return len(good)


def _checked(router: Router, raw: Mapping[str, Any], named: str | None) -> tuple[str, Role, str, Floats]:
    """(model, role, text, vector) of a row. Raises BadInput where it cannot be kept."""
    text, role = raw.get("text"), raw.get("role") or "document"
    if not isinstance(text, str):
        raise BadInput("It has no `text`.")
    if reason := unusable(text):
        raise BadInput(f"Its text {reason}.")
    if role not in ("document", "query"):
        raise BadInput(f"Its role is {str(role)[:40]!r}, not `document` or `query`.")
    model_id = named or raw.get("model")
    if not isinstance(model_id, str):
        raise BadInput("It has no `model`.", "Name the model for the whole file.")
    model = router.catalog.get(model_id)
    try:
        with np.errstate(over="ignore"):  # it becomes infinite, and is refused as that
            vector = np.asarray(raw.get("vector"), dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise BadInput("Its `vector` is not a list of numbers.") from None
    if vector.shape != (model.dimensions,):
        raise BadInput(
            f"Its vector is of shape {vector.shape}; {model.id} makes ({model.dimensions},).",
            "Only full vectors can be kept: smaller ones cannot serve every size.",
        )
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm):
        raise BadInput("Its vector has a number that is not finite.")
    if abs(norm - 1.0) > TOLERANCE:
        raise BadInput(f"Its vector has the length {norm:.4g}, and not 1 as those of {model.id}.")
    return model.id, "query" if role == "query" else "document", text, vector / norm


def _jsonl(path: Path) -> Iterator[_Raw]:
    for line, item in jsonl_items(path):
        if isinstance(item, Exception):
            yield BadInput(f"Line {line} is not valid JSON.")
        else:
            yield item if isinstance(item, dict) else {}


def _parquet(path: Path) -> Iterator[_Raw]:
    import pyarrow.parquet as pq

    with parquet_errors(path), pq.ParquetFile(path, pre_buffer=False) as file:
        there = [name for name in ("text", "model", "role", "vector") if name in file.schema_arrow.names]
        about = {k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items() if k == b"model"}
        for batch in file.iter_batches(batch_size=BLOCK, columns=there, use_threads=False):
            columns = {name: batch.column(name) for name in there}
            for at in range(batch.num_rows):
                row = {name: column[at].as_py() for name, column in columns.items() if name != "vector"}
                if "vector" in columns:
                    value = columns["vector"][at]
                    row["vector"] = value.values.to_numpy(zero_copy_only=False) if value.is_valid else None
                yield {**about, **row}
