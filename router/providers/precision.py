"""Which precision a local model runs in on this machine: measured once, at its first load, and remembered.

bfloat16 is about twice as fast as float32 on processors that have instructions for it (AMX, AVX512-BF16), and
slower on those that have not; so it is tried and not guessed. A BERT encoder in bfloat16 gets the attention of
`attention.py` too. Both are taken only if the vectors stay as good.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from router.providers import attention
from router.providers.base import Floats

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LEAST_COSINE = 0.999
"""To the float32 vectors, for every text of the trial."""
LEAST_GAIN = 1.15
"""Speed-up below which the exact float32 is kept."""
_TOPICS = ("invoices", "wind tunnels", "gardens", "ledgers", "storms", "bridges", "recipes", "satellites")
_TRIAL = [
    " ".join(f"Trial sentence {i} about {topic}, its causes, costs and remedies." for i in range(length))
    for length, topic in enumerate(_TOPICS, start=5)
]
"""Texts of 70 to 170 tokens: of several lengths, so that padding is tried as well."""


def load(folder: Path, memory: Path, device: str = "cpu") -> SentenceTransformer:
    """The model in the faster precision. `memory` is the JSON file that keeps the choice, by model and machine.

    On another device than the CPU it is float32, whatever might be faster there.
    """
    exact = _open(folder, "float32", device=device)
    if exact.device.type != "cpu":
        return exact
    import torch

    machine = f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    key = f"{folder.parent.name}/{folder.name} {machine}"
    choices = _recall(memory)
    if key not in choices:
        choices[key] = _measure(exact, folder)
        memory.write_text(json.dumps(choices, indent=1), encoding="utf-8")
    return _open(folder, "bfloat16", exact) if choices[key]["dtype"] == "bfloat16" else exact


def _measure(exact: SentenceTransformer, folder: Path) -> dict[str, Any]:
    fast = _open(folder, "bfloat16", exact)
    reference, slow_s = _time(exact)
    vectors, fast_s = _time(fast)
    cosine, gain = float(np.sum(reference * vectors, axis=1).min()), slow_s / fast_s
    dtype = "bfloat16" if cosine >= LEAST_COSINE and gain >= LEAST_GAIN else "float32"
    return {"dtype": dtype, "gain": round(gain, 2), "cosine": round(cosine, 6)}


def _time(model: SentenceTransformer) -> tuple[Floats, float]:
    """The trial's vectors `(n, d)` of unit length, and the shortest of three times in seconds."""
    model.encode(_TRIAL, show_progress_bar=False)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        raw = model.encode(_TRIAL, show_progress_bar=False, convert_to_numpy=True)
        times.append(time.perf_counter() - start)
    vectors = np.asarray(raw, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), min(times)


def _open(
    folder: Path, dtype: str, exact: SentenceTransformer | None = None, device: str = "cpu"
) -> SentenceTransformer:
    """The model in one precision; with `exact`, the same model untouched, in the faster attention if it fits."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    kwargs: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if exact is not None and getattr(exact[0], "config", None) and exact[0].config.model_type in attention.FAMILIES:
        attention.register()
        kwargs["attn_implementation"] = attention.NAME
    on_disk = folder.is_dir()  # else it is the model's name at the hub, fetched once into the hub's own cache
    return SentenceTransformer(str(folder), device=device, local_files_only=on_disk, model_kwargs=kwargs)


def _recall(memory: Path) -> dict[str, dict[str, Any]]:
    try:
        choices = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return choices if isinstance(choices, dict) else {}
