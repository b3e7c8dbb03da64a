"""A static model, distilled once from the packaged transformer: some seventy times faster, and clearly worse.

Every token of the vocabulary is embedded on its own by the transformer; the vectors are reduced by PCA and weighted
by how rare the token is, taking its rank in the vocabulary for its frequency (Zipf). A text is the mean of its
tokens' vectors. The recipe is that of Model2Vec (Tulkens and van Dongen, 2024), whose package is not used because it
pulls an older transformers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from router.providers.base import Floats

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DIMENSIONS = 256
SIF = 1e-4
"""The smoothing of smooth inverse frequency, a / (a + p(token)) (Arora, Liang and Ma, 2017)."""


def load(teacher: Path, memory: Path) -> SentenceTransformer:
    """The static model; distilled into `memory` (.npz) if it is not there yet."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    weights = _recall(memory)
    if weights is None:
        weights = distil(teacher)
        partial = memory.with_suffix(".partial.npz")
        np.savez(partial, weights=weights)
        os.replace(partial, memory)
    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")


def distil(teacher: Path) -> Floats:
    """A vector a token of the teacher's vocabulary, `(vocabulary, DIMENSIONS)` float32."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sklearn.decomposition import PCA
    from tokenizers import Tokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would be drawn over what the shell says
    model = SentenceTransformer(str(teacher), device="cpu", local_files_only=True)
    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    rows = []
    with torch.inference_mode():
        for first in range(0, size, 1024):
            ids = torch.arange(first, min(first + 1024, size)).unsqueeze(1)
            tokens = torch.cat([torch.full_like(ids, start), ids, torch.full_like(ids, end)], dim=1)
            out = model({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
            rows.append(out["sentence_embedding"].float().numpy())
    vectors = PCA(n_components=DIMENSIONS, svd_solver="full").fit_transform(np.concatenate(rows))
    rank = np.arange(1, size + 1)
    frequency = 1 / rank / np.sum(1 / rank)
    weighted: Floats = (vectors * (SIF / (SIF + frequency))[:, None]).astype(np.float32)
    return weighted


def _recall(memory: Path) -> Floats | None:
    if not memory.is_file():
        return None
    with np.load(memory, allow_pickle=False) as file:
        weights: Floats = file["weights"]
    return weights if weights.ndim == 2 and weights.shape[1] == DIMENSIONS else None
