"""A program that runs jobs, to be killed: `python -m tests.faults.job_program FOLDER SECONDS_AHEAD BLOCK`.

Its clock is ahead, so that the leases of those that were killed before it have run out.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from router.engine import Router
from router.jobs.worker import Worker
from router.library import Library


async def work(folder: Path, ahead: float, block: int) -> None:
    """Run jobs until there is nothing more to do."""
    async with Router.open(folder, clock=lambda: time.time() + ahead) as router:
        library = Library(router)
        worker = Worker(router, library.corpora, library.jobs, block=block, poll_s=0.05)
        print("running", flush=True)
        await worker.run_all()
        await worker.stop()
        await library.aclose()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
