"""Fault 26: kill a job of 50,000 texts 50 times.

Figures: the vectors are the provider's own (0 wrong); texts that were on disk at a kill and billed again (0).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from router.engine import Router
from router.library import Library
from router.pipeline.validate import digest
from router.sandbox import Fault, Sandbox
from router.store.ledger import LEASE_S
from router.store.vectors import Cache
from tests.faults.paid_helpers import SMALL, assert_books, limits, right, some_texts, wrong
from tests.faults.racers import ROOT
from tests.libraries import jsonl

LANES, A_CALL = 4, 50


def killed(folder: Path, sandbox: Sandbox, ahead: float, block: int, calls: int | None, moment: float = 0) -> bool:
    """Run the program, and kill it a moment (s) after so many more calls. True: it was still at work."""
    until = sandbox.bill().calls + (calls or 0)
    if calls is not None:  # later ones are not answered, however late the signal
        sandbox.faults.add(Fault("hang", times=None, skip=calls))
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.job_program", str(folder), str(ahead), str(block)],
        cwd=ROOT, env={**os.environ, **sandbox.environment}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        if calls is not None:
            while sandbox.bill().calls <= until and program.poll() is None:
                time.sleep(0.005)
            time.sleep(moment)
            program.send_signal(signal.SIGKILL)
        ended = program.wait(600)
    finally:
        program.kill()
        program.communicate()
        sandbox.faults.clear()
        sandbox.release()
    assert ended in (0, -signal.SIGKILL)
    return ended == -signal.SIGKILL


def on_disk(folder: Path, keys: list[bytes]) -> set[bytes]:
    """Which of the texts have a vector on disk."""
    cache = Cache(folder / "vectors.db")
    try:
        return {key for rows in cache.lookup(keys).values() for key in rows}
    finally:
        cache.close()


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_job_that_is_killed_again_and_again_ends_the_same(
    sandbox: Sandbox,
    fresh: Callable[[str], Path],
    count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
    tmp_path: Path,
) -> None:
    """Nothing on disk is billed again, at most the calls in flight are, and the job ends by itself."""
    texts, kills, block = some_texts(count(2_000, 50_000), "letter"), count(3, 50), count(200, 1_000)
    keys = [digest(text) for text in texts]
    folder = fresh("data")
    (folder / "router.toml").write_text(limits(max_texts_per_call=A_CALL, max_in_flight=LANES), "utf-8")
    file = jsonl(tmp_path / "letters.jsonl", texts)

    async def begin() -> int:
        async with Router.open(folder, env=sandbox.environment) as router:
            library = Library(router)
            await library.create("letters", model=SMALL, policy="quality")
            await library.add_files("letters", [file])
            job = await library.confirm("letters")
            await library.aclose()
            return job.id

    number = asyncio.run(begin())
    sandbox.configure(latency_ms=20)
    rng = random.Random(26)
    billed_when_seen: dict[str, int] = {}
    done: list[int] = []
    for trial in range(kills):
        calls, moment = rng.randint(2, 12), rng.uniform(0, 0.03)
        assert killed(folder, sandbox, trial * 2 * LEASE_S, block, calls, moment), "it ended before the kill"
        bill = sandbox.bill().digests
        there = on_disk(folder, keys)
        done.append(len(there))
        for key in there:
            billed_when_seen.setdefault(key.hex(), bill[key.hex()])
    assert 0 < done[-1] < len(texts), "the kills did not come while the job was at work"
    sandbox.configure(latency_ms=0)
    assert not killed(folder, sandbox, kills * 2 * LEASE_S, block, None)

    async def end() -> int:
        async with Router.open(folder, env=sandbox.environment, clock=lambda: time.time() + 9_999) as router:
            library = Library(router)
            job = library.job(number)
            assert (job.state, job.done, job.failed, job.total) == ("done", len(texts), 0, len(texts))
            bad = 0
            for start in range(0, len(texts), 2_000):
                part = texts[start : start + 2_000]
                result = await router.embed(part, policy="quality", model=SMALL)
                assert result.counts.cache == len(part)
                bad += wrong(result.vectors, right(SMALL, part))
            assert_books(router, sandbox)
            assert job.spent >= sandbox.bill().nanodollars
            await library.aclose()
            return bad

    assert asyncio.run(end()) == 0
    bill = sandbox.bill()
    again = {key: n for key, n in bill.digests.items() if n > 1}
    committed = [key for key, n in billed_when_seen.items() if bill.digests[key] != n]
    assert committed == [], "a text that was on disk was billed again"
    assert sum(n - 1 for n in again.values()) <= kills * 2 * LANES * A_CALL
    figure(
        26, f"{len(texts):,} texts, {kills} kills: 0 vectors wrong, 0 of {len(billed_when_seen):,} texts on disk billed"
        f" again; {sum(n - 1 for n in again.values()):,} billed again, all in flight at a kill",
    )  # fmt: skip
