"""The local route against sentence-transformers as it comes: speed and likeness on real abstracts.

Runs over a JSON Lines corpus with a `text` a line (default: this project's sample articles): default
`SentenceTransformer.encode`, which cuts a text at the model's 256 tokens, and this project's engine with
`long_texts="cut"` and an empty cache, in turn, five times each: the same work, and the engine's hashing, counting
and storing on top. The figure is the ratio of medians; it must be at least 1, and 2 on a processor with AMX or
AVX512-BF16. Every text that needs no splitting must have cosine >= 0.999 to the plain vectors. With `--static`, the
distilled model's speed is printed too.
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
from router.engine import Router
from router.providers.base import Floats
from router.providers.local import weights_of

RUNS = 5
MODEL = "local/all-MiniLM-L6-v2"
MEMORY: dict[str, object] = {}
"""What the first run measured of this machine, for the runs after it."""
SAMPLES = Path(__file__).parent.parent / "samples" / "help-centre"


def read_texts(corpus: str | None) -> list[str]:
    """The corpus' texts that are not blank."""
    if corpus is None:
        texts = [path.read_text(encoding="utf-8") for path in sorted(SAMPLES.glob("*.md"))]
    else:
        texts = [json.loads(line)["text"] for line in Path(corpus).read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(t for t in texts if t.strip()))


def has_fast_bfloat16() -> bool:
    """True on a processor with AMX or AVX512-BF16."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(flag in flags.read_text() for flag in ("amx_bf16", "avx512_bf16"))


async def ours(texts: list[str], model: str = MODEL) -> tuple[Floats, float]:
    """The engine's vectors `(n, d)` and its seconds, with an empty cache and the model loaded."""
    with tempfile.TemporaryDirectory() as data:
        Path(data, "precision.json").write_text(json.dumps(MEMORY), encoding="utf-8")
        async with Router.open(data, env={}) as router:
            await router.embed(["a text to load the model"], policy="local", model=model)
            start = time.perf_counter()
            result = await router.embed(texts, policy="local", model=model, long_texts="cut")
            seconds = time.perf_counter() - start
            MEMORY.update(json.loads(Path(data, "precision.json").read_text(encoding="utf-8")))
            return np.asarray(result.vectors), seconds


def lowest_cosine(reference: Floats, vectors: Floats, which: list[bool]) -> float:
    """Over the rows of `which`."""
    return float(np.sum(reference[which] * vectors[which], axis=1).min())


async def main() -> int:
    """Print the medians, the ratio and the lowest cosine; 1 where a bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--static", action="store_true")
    arguments = parser.parse_args()
    texts = read_texts(arguments.corpus)
    short = [n <= 256 for n in tokens.count("wordpiece", texts)]
    import torch
    from sentence_transformers import SentenceTransformer

    threads = torch.get_num_threads()
    plain = SentenceTransformer(str(weights_of("all-MiniLM-L6-v2")), device="cpu", local_files_only=True)
    await ours(texts[:8])
    plain.encode(texts[:8], show_progress_bar=False)
    theirs_s, ours_s = [], []
    for _ in range(RUNS):
        torch.set_num_threads(threads)  # the engine's threads set theirs, and MKL has one setting for all
        start = time.perf_counter()
        reference = plain.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        theirs_s.append(time.perf_counter() - start)
        vectors, seconds = await ours(texts)
        ours_s.append(seconds)
    cosine = lowest_cosine(reference, vectors, short)
    ratio = statistics.median(theirs_s) / statistics.median(ours_s)
    least = 2.0 if has_fast_bfloat16() else 1.0
    print(f"default SentenceTransformer.encode  {len(texts) / statistics.median(theirs_s):8.1f} texts/s")
    print(f"local route                         {len(texts) / statistics.median(ours_s):8.1f} texts/s")
    print(f"ratio {ratio:.2f} (at least {least:g}) over {len(texts)} texts")
    print(f"lowest cosine {cosine:.6f} (at least 0.999) over the {sum(short)} that need no splitting")
    if arguments.static:
        _, seconds = await ours(texts, "local/static-MiniLM")
        print(f"local/static-MiniLM                 {len(texts) / seconds:8.1f} texts/s")
    return 0 if ratio >= least and cosine >= 0.999 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
