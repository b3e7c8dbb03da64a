"""Warm cache: 10,000 texts x 1,536 dimensions through `Router.embed`, against a bare SELECT of the same BLOBs by key.

The bare SELECT asks the same file for the same rows, 500 keys a query, and does nothing with them but join them
into one array. The two run in turn; the figure is the ratio of medians, and must be at least one half.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import sys
import tempfile
import time

import numpy as np

from router import Router
from router.sandbox import Sandbox
from router.store.database import connect
from router.store.vectors import PAGE_SIZE

TEXTS = 10_000
RUNS = 25
"""Enough that a machine that first has to find memory for the arrays, in some of them, is not what is measured."""
LEAST = 0.5
MODEL = "openai/text-embedding-3-small"


def bare_select(router: Router, digests: list[bytes]) -> float:
    """Seconds for a SELECT of the vectors by digest, and the array."""
    conn = connect(router.cache.database.path, page_size=PAGE_SIZE, readonly=True)
    (kind,) = conn.execute("SELECT id FROM kinds WHERE model = ?", (MODEL,)).fetchone()
    start = time.perf_counter()
    blobs: list[bytes] = []
    for i in range(0, len(digests), 500):
        part = digests[i : i + 500]
        marks = ",".join("?" * len(part))
        blobs += [
            row[0]
            for row in conn.execute(f"SELECT vector FROM vectors WHERE digest IN ({marks}) AND kind = ?", (*part, kind))
        ]
    array = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(digests), 1536)
    seconds = time.perf_counter() - start
    assert array.shape == (TEXTS, 1536)
    conn.close()
    return seconds


async def main() -> int:
    """Print the two medians and their ratio; 1 where the ratio is below `LEAST`."""
    texts = [f"Sentence {i} of a corpus about gears, ledgers and the weather." for i in range(TEXTS)]
    digests = [hashlib.blake2b(t.encode(), digest_size=32).digest() for t in texts]
    with Sandbox() as sandbox, tempfile.TemporaryDirectory() as folder:
        env = {"OPENAI_API_KEY": "benchmark", "OPENAI_BASE_URL": f"{sandbox.url}/openai/v1"}
        async with Router.open(folder, env=env) as router:
            await router.embed(texts, policy="quality", model=MODEL)
            calls = sandbox.bill().requests
            bare, ours = [], []
            for _ in range(RUNS):
                bare.append(bare_select(router, digests))
                start = time.perf_counter()
                result = await router.embed(texts, policy="quality", model=MODEL)
                ours.append(time.perf_counter() - start)
                assert result.counts.cache == TEXTS
            assert sandbox.bill().requests == calls, "a warm request called the provider"
    ratio = statistics.median(bare) / statistics.median(ours)
    print(f"bare SELECT   {TEXTS / statistics.median(bare):>10,.0f} texts/s")
    print(f"Router.embed  {TEXTS / statistics.median(ours):>10,.0f} texts/s")
    print(f"ratio         {ratio:>10.2f}   (at least {LEAST})")
    return 0 if ratio >= LEAST else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
