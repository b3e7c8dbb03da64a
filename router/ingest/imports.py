"""Vectors that were paid for elsewhere, brought into the cache, so that they are never paid for again.

A vector that is wrong would answer for its text for ever; so every row is checked: the model is known, the vector has
its full size, every number is finite, and the length is one, as the model's vectors have it. Whether it is truly that
model's vector of that text nobody can check; the file's owner vouches for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router import tokens
from router.domain.errors import BadInput
from router.domain.values import Model, Role
from router.engine import Router
from router.ingest.files import unusable
from router.ingest.readers_text import lines
from router.pipeline.validate import digest
from router.providers.base import Floats
from router.store.vectors import kind_of

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    text: str
    model: Model
    role: Role
    vector: Floats


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
    stored = refused = number = 0
    models: dict[str, int] = {}
    reasons: dict[int, str] = {}
    while block := await asyncio.to_thread(_some, rows):
        groups: dict[tuple[str, Role], list[_Row]] = {}
        for raw in block:
            number += 1
            try:
                if isinstance(raw, BadInput):
                    raise raw
                row = _checked(router, raw, model)
            except BadInput as error:
                refused += 1
                if len(reasons) < _MOST_NAMED:
                    reasons[number] = str(error)
                continue
            groups.setdefault((row.model.id, row.role), []).append(row)
        for (name, role), found in groups.items():
            late = await _store(router, found[0].model, role, found)
            stored += len(found) - late
            refused += late
            models[name] = models.get(name, 0) + len(found) - late
    return Imported(stored=stored, refused=refused, models=models, reasons=reasons)


async def _store(router: Router, model: Model, role: Role, rows: list[_Row]) -> int:
    """Store rows of one kind; returns how many were too long for the model."""
    counts = await asyncio.to_thread(tokens.count_for, model, role, [row.text for row in rows])
    limit = model.limits.tokens_per_text
    good = [(row, n) for row, n in zip(rows, counts, strict=True) if limit is None or n <= limit]
    if good:
        await router.cache.store(
            kind_of(model, role, "whole"),
            [digest(row.text) for row, _ in good],
            [n for _, n in good],
            np.stack([row.vector for row, _ in good]),
        )
    return len(rows) - len(good)


def _checked(router: Router, raw: Mapping[str, Any], named: str | None) -> _Row:
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
    return _Row(text=text, model=model, role="query" if role == "query" else "document", vector=vector / norm)


def _some(rows: Iterator[_Raw]) -> list[_Raw]:
    return [row for _, row in zip(range(BLOCK), rows, strict=False)]


def _jsonl(path: Path) -> Iterator[_Raw]:
    for number, line in enumerate(lines(path), 1):
        if line.isspace():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            yield BadInput(f"Line {number} is not valid JSON.")
            continue
        yield found if isinstance(found, dict) else {}


def _parquet(path: Path) -> Iterator[_Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
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
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path.name} cannot be read: {str(error).splitlines()[0][:200]}.", "Write it again.") from error
