"""Seconds from a corpus to its first price: an estimate from a sample, at 20 and at 200 MB of JSON lines.

Each in a process of its own with the tokenizers loaded, from `add_files` to the estimate; the reading that would follow
is left out. At most 3 s for either.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.ingest import paragraphs, words

MOST_S = 3.0
SIZES = (20_000_000, 200_000_000)
TURNS = 3
READ = """
import asyncio, sys, time
from pathlib import Path
from router.engine import Router
from router.library import Library
from router import tokens
tokens.count("wordpiece", ["a"]), tokens.count("cl100k_base", ["a"])
async def main():
    async with Router.open(sys.argv[2], env={}) as router:
        library = Library(router)
        await library.create("corpus")
        start = time.perf_counter()
        def estimated(found):
            print(time.perf_counter() - start, found if isinstance(found, str) else found.words, flush=True)
            asyncio.run_coroutine_threadsafe(stop(), loop)
        async def stop():
            reading.cancel()
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(library.add_files("corpus", [Path(sys.argv[1])], estimated=estimated))
        try:
            await reading
        except asyncio.CancelledError:
            pass
        await library.aclose()
asyncio.run(main())
"""


def main() -> int:
    """Print the seconds; 1 where an estimate was late."""
    worst = 0.0
    rng = random.Random(1)
    texts = paragraphs(rng, words())
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            corpus = Path(folder) / f"{size}.jsonl"
            number = 0
            with corpus.open("w", encoding="utf-8") as file:
                while file.tell() < size:
                    number += 1
                    file.write(json.dumps({"id": f"r{number}", "text": next(texts)}) + "\n")
            for turn in range(TURNS):
                data = Path(folder) / f"data-{size}-{turn}"
                command = [sys.executable, "-c", READ, str(corpus), str(data)]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                seconds, _, found = said.partition(" ")
                worst = max(worst, float(seconds))
                print(f"{size // 1_000_000:>4} MB  {float(seconds):.2f} s  {found.strip()}", flush=True)
    print(f"at most {worst:.2f} s of {MOST_S:.0f} s")
    return int(worst > MOST_S)


if __name__ == "__main__":
    sys.exit(main())
