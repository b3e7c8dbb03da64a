"""Runs jobs, on the router's event loop: block by block through `Router.embed`, or step by step through batches.

No state of a job is here alone. What is embedded is in the cache, what is spent in the ledger, the job's progress in
its row; so after a crash the next worker continues where the cache ends, and nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from router.batches.states import BatchTier
from router.batches.texts import Misses
from router.domain.errors import RouterError, StoreBusy, StoreError
from router.engine import Router
from router.jobs.errors import Stop, check_model, check_price, judge, stop_for
from router.pipeline.validate import digest as digest_of
from router.search.vectors import Embedded, coverage, missing
from router.store.collections import Corpora
from router.store.jobs import Job, JobStore

BLOCK = 1_000
"""Distinct texts embedded by one request."""
POLL_S = 1.0
"""How often jobs are looked for, and the state of a running one is read."""
MOST_AT_ONCE = 3
"""Jobs that embed now at the same time; those that wait for batches do not count."""
_RATE_SAMPLES = 30
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Live:
    """The progress of a job."""

    total: int = 0
    done: int = 0
    failed: int = 0
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_SAMPLES))

    def rate(self) -> float:
        """Texts a second over the last samples."""
        self.samples.append((time.monotonic(), self.done))
        (since, before), (now, done) = self.samples[0], self.samples[-1]
        return max(0.0, (done - before) / (now - since)) if now > since else 0.0


class Worker:
    """Claims jobs and runs them; with `only`, that one alone. `block` and `poll_s` are for tests."""

    def __init__(
        self, router: Router, corpora: Corpora, jobs: JobStore, *, block: int = BLOCK, poll_s: float = POLL_S,
        tier: BatchTier | None = None, only: int | None = None,
    ) -> None:  # fmt: skip
        self._router = router
        self._corpora = corpora
        self._jobs = jobs
        self._block = block
        self._poll_s = poll_s
        self._tier = tier or BatchTier.of(router)
        self._only = only
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._embedding: set[int] = set()
        self._pauses: dict[int, int] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for jobs from now on, until `stop`."""
        self._loop = asyncio.get_running_loop().create_task(self._look())

    async def stop(self) -> None:
        """Leave every job as it is, for the next runner. Calls under way are still answered and charged."""
        tasks = [*self._runs.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None
        await self._tier.aclose()

    async def run_all(self) -> None:
        """Run jobs until none is ready: those left are paused, or wait for a later time."""
        while True:
            await self._take()
            if not self._runs:
                return
            await asyncio.wait(self._runs.values(), timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)

    async def _look(self) -> None:
        while True:
            try:
                await self._take()
            except Exception:  # a busy or full disk, or a fault of ours: jobs are looked for again in a moment
                _log.exception("jobs cannot be looked for")
            await asyncio.sleep(self._poll_s)

    async def _take(self) -> None:
        """Start the jobs that are ready, up to `MOST_AT_ONCE`."""
        while True:
            full = len(self._embedding) >= MOST_AT_ONCE
            job = await self._jobs.claim(list(self._runs), batch_only=full, only=self._only)
            if job is None:
                return
            if job.route != "batch":
                self._embedding.add(job.id)
            task = asyncio.get_running_loop().create_task(self._run(job), name=f"job {job.id}")
            self._runs[job.id] = task
            task.add_done_callback(partial(self._forget, job.id))

    def _forget(self, number: int, _: asyncio.Task[None]) -> None:
        self._runs.pop(number, None)
        self._embedding.discard(number)

    # ---- one job ----

    async def _run(self, job: Job) -> None:
        """Run a job until it ends, stops or is stopped."""
        live = Live(total=job.total, done=job.done, failed=job.failed)
        work = asyncio.ensure_future(self._work(job, live) if job.state == "running" else self._follow(job, live))
        stop: Stop | None = None
        try:
            await self._watch(job, live, work)
        except Stop as said:
            stop = said
        except RouterError as error:
            stop = await self._stop(job, error)
        except Exception as error:
            _log.exception("job %d", job.id)
            stop = Stop("failed", f"Internal error: {type(error).__name__}: {error}")
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)  # until it has ended
            with contextlib.suppress(StoreError):  # the lease runs out by itself
                if stop is not None:
                    await self._renew(job, live)
                    await self._jobs.end(job.id, stop.state, stop.reason, wake=stop.wake)
                await self._jobs.let_go(job.id)

    async def _watch(self, job: Job, live: Live, work: asyncio.Future[None]) -> None:
        """Renew the lease and the figures while the work goes on; return when the job is no longer this worker's."""
        while True:
            await asyncio.wait([work], timeout=self._poll_s)
            if work.done():
                return work.result()
            try:
                now = await self._renew(job, live)
            except StoreBusy:
                continue
            if now is None or now.state != job.state:
                return None
            if now.state == "waiting" and now.wake is not None and now.wake <= self._router.clock():
                return None

    async def _renew(self, job: Job, live: Live) -> Job | None:
        return await self._jobs.renew(job.id, total=live.total, done=live.done, failed=live.failed, rate=live.rate())

    async def _work(self, job: Job, live: Live) -> None:
        generation = await asyncio.to_thread(check_model, self._router, self._corpora, job)
        policy = await asyncio.to_thread(self._router.policies.get, job.policy)
        cache = Embedded(self._router.cache, self._router.catalog, generation, policy)
        live.total, live.done = await asyncio.to_thread(coverage, self._corpora, job.collection_id, cache)
        if job.route == "batch":
            revision = await self._by_batch(job, live, cache)
        else:
            revision = await self._embed(job, live, cache)
        if not live.failed:
            await self._corpora.switch(job.generation)
        failed = "" if not live.failed else f"{live.failed:,} of {live.total:,} texts could not be embedded."
        await self._renew(job, live)
        # False: it was stopped, or texts were added; then the next runner finds it.
        await self._jobs.end(job.id, "done", failed, revision=revision)

    # ---- now ----

    async def _embed(self, job: Job, live: Live, cache: Embedded) -> int:
        """Embed what is missing until a whole pass finds nothing. Returns the revision of which this is true."""
        while True:
            revision = await self._revision(job)
            failed = await asyncio.to_thread(self._jobs.failed, job.id)
            live.failed = len(failed)
            before = live.total - live.done - live.failed
            left = missing(self._corpora, job.collection_id, cache, but=failed)
            blocks = 0
            while block := await asyncio.to_thread(_take, left, self._block):
                blocks += 1
                check_price(self._router, job)
                await self._one(job, live, block)
            if not blocks:
                return revision
            live.total, live.done = await asyncio.to_thread(coverage, self._corpora, job.collection_id, cache)
            failed = await asyncio.to_thread(self._jobs.failed, job.id)
            if live.total - live.done - len(failed) >= before and await self._revision(job) == revision:
                raise Stop(
                    "paused", "A whole pass embedded nothing. Was the policy changed meanwhile? Resume to go on."
                )

    async def _revision(self, job: Job) -> int:
        return (await asyncio.to_thread(self._jobs.get, job.id)).revision

    async def _one(self, job: Job, live: Live, digests: Sequence[bytes]) -> None:
        """Embed one block."""
        found = await asyncio.to_thread(self._corpora.chunks.texts, job.collection_id, digests)
        if not found:
            return  # deleted in the meantime
        texts = [chunk.text for chunk in found.values()]
        before = live.done

        def progress(done: int, total: int) -> None:
            live.done = before + done

        result = await self._router.embed(
            texts, policy=job.policy, model=job.model, partial=True, collection=job.collection, progress=progress
        )
        live.done = before + len(texts) - len(result.problems)
        if not result.problems:
            self._pauses.pop(job.id, None)
            return
        verdict = judge(result.problems)
        await self._jobs.note_failures(job.id, {digest_of(texts[at]): why for at, why in verdict.failed.items()})
        stop = verdict.stop or (verdict.passing if len(result.problems) == len(texts) else None)
        if stop is not None:
            raise await self._stop(job, stop)
        self._pauses.pop(job.id, None)

    async def _stop(self, job: Job, error: RouterError) -> Stop:
        stop = await asyncio.to_thread(stop_for, self._router, job, error, self._pauses.get(job.id, 0))
        if stop.state == "waiting":
            self._pauses[job.id] = self._pauses.get(job.id, 0) + 1
        return stop

    # ---- by batch ----

    async def _by_batch(self, job: Job, live: Live, cache: Embedded) -> int:
        """Step until every text is embedded or has failed for good. Returns the revision of which this is true."""
        done = -1
        while True:
            revision = await self._revision(job)
            check_price(self._router, job)
            step = await self._tier.step(job, self._misses(job, cache))
            live.failed = step.failed
            if step.done != done:
                done = step.done
                live.total, live.done = await asyncio.to_thread(coverage, self._corpora, job.collection_id, cache)
            if step.error is not None:
                raise await self._stop(job, step.error)
            if not step.open and not step.moved and not step.waiting:
                live.total, live.done = await asyncio.to_thread(coverage, self._corpora, job.collection_id, cache)
                reasons = await asyncio.to_thread(self._tier.store.failures, job.id)
                rest = missing(self._corpora, job.collection_id, cache, but=set(reasons))
                if not await asyncio.to_thread(_take, rest, 1):
                    await self._jobs.note_failures(job.id, {d: (why, True) for d, why in reasons.items()})
                    return revision
            await asyncio.sleep(step.next_poll_s)

    def _misses(self, job: Job, cache: Embedded) -> Misses:
        left = missing(self._corpora, job.collection_id, cache)

        def more(n: int) -> dict[bytes, str]:
            while digests := _take(left, n):
                if found := self._corpora.chunks.texts(job.collection_id, digests):
                    return {digest: chunk.text for digest, chunk in found.items()}
            return {}

        return more

    async def _follow(self, job: Job, live: Live) -> None:
        """Fetch the results of batches of a job that no longer runs, and send nothing more."""
        cancel = job.state == "cancelled"
        while True:
            step = await (self._tier.cancel(job) if cancel else self._tier.step(job, lambda n: {}))
            cancel = False
            if not step.open:
                return
            await asyncio.sleep(step.next_poll_s or self._poll_s)


def _take(left: Iterator[bytes], n: int) -> list[bytes]:
    return list(islice(left, n))
