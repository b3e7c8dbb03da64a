"""100, 500 and 1,000 texts: one call after the other, concurrent calls, and the router, side by side.

The first two send one text a call through AsyncOpenAI, as a first program does: in a loop, and ten at once. The router
packs texts into calls. All meet the same sandbox, in a process of its own, that takes 20 ms a call.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time

from openai import AsyncOpenAI

from benchmarks.paid import MODEL, Case, sandbox, texts_of
from router import Router

SIZES = (100, 500, 1_000)
LATENCY_S = 0.02
AT_ONCE = 10


async def one_text_a_call(url: str, texts: list[str], width: int) -> float:
    """Seconds for a call a text, `width` at once."""
    places = asyncio.Semaphore(width)
    async with AsyncOpenAI(api_key="benchmark", base_url=f"{url}/openai/v1") as client:

        async def one(text: str) -> None:
            async with places:
                await client.embeddings.create(input=text, model=MODEL)

        await one("warm up")
        start = time.perf_counter()
        await asyncio.gather(*(one(text) for text in texts))
        return time.perf_counter() - start


async def routed(url: str, texts: list[str]) -> float:
    """Seconds for the router, ledger and cache included."""
    env = {"OPENAI_API_KEY": "benchmark", "OPENAI_BASE_URL": f"{url}/openai/v1"}
    with tempfile.TemporaryDirectory() as folder:
        async with Router.open(folder, env=env) as router:
            await router.embed(["warm up"], policy="quality", model=f"openai/{MODEL}")
            start = time.perf_counter()
            await router.embed(texts, policy="quality", model=f"openai/{MODEL}")
            return time.perf_counter() - start


async def main() -> int:
    """Print a table; 1 where concurrency, or the router, is no faster than the loop."""
    slower = False
    heads = ("sequential", f"{AT_ONCE} at once", "router", "concurrent is", "router is")
    print(f"{'texts':>6} " + " ".join(f"{head:>13}" for head in heads))
    for size in SIZES:
        case = Case(name="none", texts=size, latency_s=LATENCY_S, in_flight=1_000)
        with sandbox(case) as url:
            loop = await one_text_a_call(url, texts_of(case), 1)
            concurrent = await one_text_a_call(url, texts_of(case), AT_ONCE)
            ours = await routed(url, texts_of(case))
        seconds = [f"{s:.2f} s" for s in (loop, concurrent, ours)]
        cells = [*seconds, f"{loop / concurrent:.1f} x", f"{loop / ours:.1f} x"]
        print(f"{size:>6,} " + " ".join(f"{cell:>13}" for cell in cells), flush=True)
        slower = slower or concurrent >= loop or ours >= loop
    return int(slower)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
