"""The local route against sentence-transformers as it comes: speed and likeness on real abstracts.

Runs over a JSON Lines corpus with a `text` a line (default: this project's sample articles): default
`SentenceTransformer.encode` and this project's local provider in turn, five times each, every text short enough
not to be split. The figure is the ratio of medians; it must be at least 1, and 2 on a processor with AMX or
AVX512-BF16. The vectors must have cosine >= 0.999. With `--static`, the distilled model's speed is printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from router import tokens
from router.config import load_settings
from router.providers.base import EmbedCall, Floats, check
from router.providers.local import LocalProvider, weights_of

RUNS = 5
MODEL = "local/all-MiniLM-L6-v2"
SAMPLES = Path(__file__).parent.parent / "samples" / "help-centre"


def read_texts(corpus: str | None) -> list[str]:
    """The corpus' texts that need no splitting."""
    if corpus is None:
        texts = [path.read_text(encoding="utf-8") for path in sorted(SAMPLES.glob("*.md"))]
    else:
        texts = [json.loads(line)["text"] for line in Path(corpus).read_text(encoding="utf-8").splitlines()]
    texts = [t for t in texts if t.strip()]
    return [t for t, n in zip(texts, tokens.count("wordpiece", texts), strict=True) if n <= 256]


def has_fast_bfloat16() -> bool:
    """True on a processor with AMX or AVX512-BF16."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(flag in flags.read_text() for flag in ("amx_bf16", "avx512_bf16"))


async def ours(provider: LocalProvider, name: str, texts: list[str]) -> Floats:
    """The vectors as the engine makes them: shortest first, in groups."""
    model = load_settings(tempfile.mkdtemp(), {}).catalog.get(name)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.empty((len(texts), model.dimensions), dtype=np.float32)
    for start in range(0, len(order), 256):
        part = order[start : start + 256]
        call = EmbedCall(model=model, texts=tuple(texts[i] for i in part), role="document")
        out[part] = check(call, await provider.embed(call))
    return out


async def main() -> int:
    """Print the medians, the ratio and the lowest cosine; 1 where a bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--static", action="store_true")
    arguments = parser.parse_args()
    texts = read_texts(arguments.corpus)
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(weights_of("all-MiniLM-L6-v2")), device="cpu", local_files_only=True)
    provider = LocalProvider(Path(tempfile.mkdtemp()))
    await ours(provider, MODEL, texts[:8])
    plain.encode(texts[:8], show_progress_bar=False)
    theirs_s, ours_s = [], []
    for _ in range(RUNS):
        start = time.perf_counter()
        reference = plain.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        theirs_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        vectors = await ours(provider, MODEL, texts)
        ours_s.append(time.perf_counter() - start)
    cosine = float(np.sum(reference * vectors, axis=1).min())
    ratio = statistics.median(theirs_s) / statistics.median(ours_s)
    least = 2.0 if has_fast_bfloat16() else 1.0
    print(f"default SentenceTransformer.encode  {len(texts) / statistics.median(theirs_s):8.1f} texts/s")
    print(f"local route                         {len(texts) / statistics.median(ours_s):8.1f} texts/s")
    print(f"ratio {ratio:.2f} (at least {least:g}), lowest cosine {cosine:.6f} (at least 0.999), {len(texts)} texts")
    if arguments.static:
        await ours(provider, "local/static-MiniLM", texts[:8])
        start = time.perf_counter()
        await ours(provider, "local/static-MiniLM", texts)
        print(f"local/static-MiniLM                 {len(texts) / (time.perf_counter() - start):8.1f} texts/s")
    await provider.aclose()
    return 0 if ratio >= least and cosine >= 0.999 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
