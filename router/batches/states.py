"""The batch tier: what a job misses, sent at half the price, and answered within a day.

A job is taken on step by step, by whoever runs it, and everything between two steps is in `router.db`: a program that
dies anywhere is followed by one that finds the batch again by the key in its metadata, and never submits it twice.
Money is held at the batch price, and the texts are claimed, before anything leaves; vectors are stored before a
charge is booked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from router.batches.gone import GRACE_S as GONE_GRACE_S
from router.batches.gone import KEPT_S, give_up, look, over, unknown
from router.batches.results import Results
from router.batches.texts import WHOLE, BatchLimits, Misses, gather, write_file
from router.config import Settings
from router.domain.errors import (
    BadReply,
    BudgetExceeded,
    CallRejected,
    KeyRejected,
    NotConfigured,
    ProviderError,
    RateLimited,
    Refused,
    RouterError,
)
from router.domain.values import Model
from router.engine import Router
from router.pipeline.coverage import Coverage
from router.pipeline.estimates import Estimates
from router.providers.base import key_of
from router.providers.batch import WINDOWS, BatchClient, RemoteBatch, results_limit, shared_params
from router.store.batches import UNDER_WAY, Batch, BatchStore, line_price
from router.store.jobs import Job
from router.store.policies import Policies
from router.store.vectors import Cache, vector_key

FIRST_POLL_S = 2.0
LONGEST_POLL_S = 60.0
GRACE_S = 30.0
"""How long a submission whose answer was lost may take to show in the provider's list."""
MOST_UNDER_WAY = 20
"""Batches of one job at a time: a million texts, the most that OpenAI queues."""
LOOKS = 3
"""Downloads of results that leave finished requests out, before they are taken as they are."""
_QUEUE_FULL = "token_limit_exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """How a job's batches stand after a step.

    Attributes:
        open: batches under way.
        done, failed: texts embedded by batches, and failed for good (`BatchStore.failures` says why).
        spent: nanodollars charged, unconfirmed ones included.
        next_poll_s: seconds to the next step; 0 where there is more to do at once.
        reason: what stands in the way, or what became of the last batch.
        moved: False where the step changed nothing: with no batch open and no error, the job is through.
        waiting: texts that somebody else is paying for just now.
        error: why nothing more can be sent until somebody acts (budget, key, quota, kill switch), or None. Batches
            under way are followed all the same.
    """

    open: int
    done: int
    failed: int
    spent: int
    next_poll_s: float
    reason: str
    moved: bool
    waiting: int = 0
    error: RouterError | None = None


class BatchTier:
    """Sends jobs through the batch APIs. Belongs to the router's loop; one step of a job at a time."""

    def __init__(
        self,
        settings: Settings,
        store: BatchStore,
        cache: Cache,
        policies: Policies,
        estimates: Estimates,
        *,
        first_poll_s: float = FIRST_POLL_S,
        grace_s: float = GRACE_S,
        limits: BatchLimits = WHOLE,
    ) -> None:
        self.store = store
        self._catalog = settings.catalog
        self._endpoints = settings.endpoints
        self._folder = settings.data / "batches"
        self._ledger = store.ledger
        self._clock = store.clock
        self._cache = cache
        self._policies = policies
        self._estimates = estimates
        self._first_poll_s = first_poll_s
        self._grace_s = grace_s
        self._limits = limits
        self._clients: dict[str, BatchClient] = {}
        self._looks: dict[int, int] = {}
        self._troubles: dict[int, int] = {}

    @classmethod
    def of(cls, router: Router, **options: Any) -> BatchTier:
        """A tier that works with a router's stores; `options` as of `BatchTier`."""
        store = BatchStore(router.database, router.ledger, router.clock)
        return cls(router.settings, store, router.cache, router.policies, router.estimates, **options)

    async def aclose(self) -> None:
        """Close connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    def serves(self, model: Model) -> bool:
        """True where the model can be sent by batch."""
        try:
            line_price(model, self._clock())
        except LookupError:
            return False
        return self._endpoints[model.provider].wire in WINDOWS

    # ---- a step ----

    async def step(self, job: Job, misses: Misses) -> BatchProgress:
        """Bring a job's batches up to date: recover, poll, collect what has ended, submit one more.

        Providers' troubles do not raise: those that pass are in `reason`, the others in `error`.
        """
        moved, waiting = False, 0
        trouble: RouterError | None = None
        for batch in await self._under_way(job.id):
            try:
                moved |= await self._advance(batch)
            except RouterError as error:
                trouble = error
        if trouble is None:
            try:
                sent, waiting = await self._submit(job, misses)
                moved |= sent
            except BudgetExceeded as error:  # a batch holds more than it is billed, and gives it back when it ends
                trouble = None if await self._under_way(job.id) else error
            except RouterError as error:
                trouble = error
        return await self._progress(job, moved, waiting, trouble)

    async def cancel(self, job: Job) -> BatchProgress:
        """Ask the provider to stop a job's batches. What is finished is kept and charged.

        To be followed by steps without misses until no batch is open: cancelling takes the provider a while.
        """
        trouble: RouterError | None = None
        for batch in await self._under_way(job.id):
            try:
                await self._stop(batch)
            except RouterError as error:
                trouble = error
        progress = await self.step(job, lambda n: {})
        return progress if trouble is None else await self._progress(job, progress.moved, 0, trouble)

    async def _progress(self, job: Job, moved: bool, waiting: int, trouble: RouterError | None) -> BatchProgress:
        batches, (done, failed), spent = await asyncio.to_thread(
            lambda: (self.store.of_job(job.id), self.store.counts(job.id), self.store.spent(job.id))
        )
        under_way = [batch for batch in batches if batch.state in UNDER_WAY]
        ended = [batch.reason for batch in batches if batch.reason]
        passing = trouble is not None and trouble.passes
        self._troubles[job.id] = self._troubles.get(job.id, 0) + 1 if passing else 0
        return BatchProgress(
            open=len(under_way),
            done=done,
            failed=failed,
            spent=spent,
            next_poll_s=0.0 if moved and trouble is None else self._pause(job, under_way),
            reason=str(trouble) if trouble is not None else ended[-1] if ended else "",
            moved=moved,
            waiting=waiting,
            error=None if passing else trouble,
        )

    def _pause(self, job: Job, under_way: Sequence[Batch]) -> float:
        """Short at first and longer as the youngest batch grows older, to a minute; longer with every trouble too."""
        now = self._clock()
        age = min((now - (batch.submitted or batch.created) for batch in under_way), default=0.0)
        pause = max(self._first_poll_s, age / 10) * 2 ** min(self._troubles[job.id], 10)
        return float(min(LONGEST_POLL_S, pause))

    # ---- a batch under way ----

    async def _advance(self, batch: Batch) -> bool:
        """Take a batch as far as it goes just now. True: something changed."""
        if batch.state == "intended":  # whoever intended it died before it could submit it
            return await self._withdraw(batch, "not sent: the program ended while its file was being made")
        client = self._client(batch.provider)
        ends = over(batch, self._endpoints[batch.provider].wire)
        why: ProviderError
        try:
            if batch.state == "uploaded":
                return await self._recover(batch, client)
            remote = await look(batch, client)
        except (KeyRejected, NotConfigured) as error:
            until, why = ends + KEPT_S, error
        else:
            if remote is not None:
                return await self._collect(batch, remote, client) if remote.ended else False
            until = ends + GONE_GRACE_S
            why = unknown(batch, until)
        if self._clock() < until:
            raise why
        raise await give_up(self.store, batch, self._catalog.get(batch.model), why)

    async def _recover(self, batch: Batch, client: BatchClient) -> bool:
        """A batch that may have been submitted: find it by its key; submit it only if it is surely not there."""
        remote = await client.find(batch.key, since=batch.created - 3_600)
        if remote is not None:
            if not batch.remote:  # it was cancelled before it showed
                await self._ask_to_stop(client, remote.id)
            return await self.store.move(batch, "submitted", remote.id) is not None
        if self._clock() < (batch.submitted or batch.created) + self._grace_s:
            return False
        if not batch.remote:
            return await self._withdraw(batch, "cancelled before it was sent")
        again = await self.store.move(batch, "uploaded", batch.remote)
        if again is None:
            return False
        try:
            return await self._create(again, client)
        except (CallRejected, NotConfigured) as error:  # no such file: another project may have it, and the batch
            raise await give_up(self.store, again, self._catalog.get(batch.model), error) from error
        except ProviderError as error:
            if error.passes:
                raise
            # the next batch meets what stands in every one's way
            return await self._withdraw(again, f"not sent: {error.message}")
        except Refused as error:
            await self._withdraw(again, f"not sent: {error.message}")
            raise

    async def _create(self, batch: Batch, client: BatchClient) -> bool:
        """Submit an uploaded file. It is noted already that this may happen.

        Raises:
            Refused: the kill switch, or the policy as it is by now, says no; nothing was submitted.
        """
        await asyncio.to_thread(self._ledger.require_permission, batch.hold)
        model = self._catalog.get(batch.model)
        endpoint = self._endpoints[batch.provider]
        remote = await client.create(batch.remote, batch.key, shared_params(endpoint, model, "document"))
        return await self.store.move(batch, "submitted", remote.id) is not None

    async def _collect(self, batch: Batch, remote: RemoteBatch, client: BatchClient) -> bool:
        """Store what an ended batch made, then charge it."""
        model = self._catalog.get(batch.model)
        full = any(flaw.code == _QUEUE_FULL for flaw in remote.flaws)
        if full and len(await self._under_way(batch.job)) > 1:
            await self._withdraw(batch, "not taken: the provider's queue for this account is full")
            raise RateLimited(
                f"The batch queue of this account at {batch.provider} is full.", "It is sent again later."
            )
        texts = await asyncio.to_thread(self.store.texts, batch)
        results = await asyncio.to_thread(Results, batch.provider, model, texts, batch.created)
        for number, file in enumerate(remote.files):
            await self._read(batch, file, self._path(batch, f"result{number}"), results, client)
        if results.broken or results.lost(remote):
            self._looks[batch.id] = self._looks.get(batch.id, 0) + 1
            if self._looks[batch.id] < LOOKS:
                raise BadReply(f"Results of a batch at {batch.provider} are incomplete.", "They are downloaded again.")
        tries = await asyncio.to_thread(self.store.tries, batch.job)
        settled = await self.store.settle(batch, model, await asyncio.to_thread(results.settle, remote, tries))
        await self._tidy(client, remote)
        return settled

    async def _read(self, batch: Batch, file: str, path: Path, results: Results, client: BatchClient) -> None:
        """Download one result file, and store its vectors group by group."""
        model = self._catalog.get(batch.model)
        kind = vector_key(model, "document", "whole")
        try:
            try:
                await client.download(file, path, results_limit(model, batch.texts))
            except (BadReply, CallRejected, NotConfigured):  # endless, or gone; what it would have said is missing
                results.broken += 1
                return
            with path.open("rb") as lines:
                while (found := await asyncio.to_thread(results.read, lines)) is not None:
                    await self._cache.store(kind, *found)
        finally:
            path.unlink(missing_ok=True)

    async def _tidy(self, client: BatchClient, remote: RemoteBatch) -> None:
        """Delete the batch's files at the provider: they hold people's texts. Kept for a month if this fails."""
        for file in (remote.input_file, *remote.files):
            if file:
                with contextlib.suppress(ProviderError):
                    await client.delete(file)

    async def _stop(self, batch: Batch) -> None:
        if batch.state == "intended":
            await self._withdraw(batch, "cancelled before it was sent")
            return
        client = self._client(batch.provider)
        if batch.state == "submitted":
            await self._ask_to_stop(client, batch.remote)
            return
        file = batch.remote
        noted = await self.store.move(batch, "uploaded", "")  # from here on it is never submitted again
        if noted is not None and file:
            with contextlib.suppress(ProviderError):
                await client.delete(file)
        if noted is not None:
            await self._recover(noted, client)

    async def _ask_to_stop(self, client: BatchClient, batch: str) -> None:
        with contextlib.suppress(CallRejected):  # it has ended already
            await client.cancel(batch)

    async def _withdraw(self, batch: Batch, reason: str) -> bool:
        self._path(batch, "jsonl").unlink(missing_ok=True)
        if batch.state == "uploaded" and batch.remote:
            with contextlib.suppress(ProviderError):
                await self._client(batch.provider).delete(batch.remote)
        return await self.store.withdraw(batch, reason)

    # ---- a new batch ----

    async def _submit(self, job: Job, misses: Misses) -> tuple[bool, int]:
        """Send one more batch, if there is anything to send. (something was sent, texts others are paying for)"""
        await self._cache.require_room()
        if len(await self._under_way(job.id)) >= MOST_UNDER_WAY:
            return False, 0
        model = self._catalog.get(job.model)
        endpoint = self._endpoints[model.provider]
        policy = await asyncio.to_thread(self._policies.get, job.policy)
        if not self.serves(model):
            raise Refused(f"{model.id} has no batch tier.", "Choose another model, or the deadline `now`.")
        units, waiting = await asyncio.to_thread(
            lambda: gather(
                self._ledger, self._estimates, endpoint, model, misses, policy=policy.name,
                tried=self.store.tries(job.id), limits=self._limits,
            )
        )  # fmt: skip
        if not units:
            return False, waiting
        key_of(endpoint)
        there = partial(Coverage(self._cache, self._catalog).stored, model)
        intended = await self.store.intend(job.id, units, model, policy, job.collection, there)
        if intended is None:
            return False, waiting
        batch, hold = intended
        client = self._client(batch.provider)
        path = self._path(batch, "jsonl")
        try:
            try:
                await asyncio.to_thread(write_file, path, endpoint, model, hold.units)
                file = await client.upload(path)
            finally:
                path.unlink(missing_ok=True)
        except (RouterError, OSError) as error:
            await self._withdraw(batch, f"not sent: {error}")
            if isinstance(error, OSError):
                raise Refused(f"The file of a batch cannot be written: {error}.", "Make room on the disk.") from error
            raise
        uploaded = await self.store.move(batch, "uploaded", file)
        if uploaded is None:
            return False, waiting
        try:
            return await self._create(uploaded, client), waiting
        except (ProviderError, Refused) as error:
            if not error.passes:
                await self._withdraw(uploaded, f"not sent: {error.message}")
            raise

    # ---- small things ----

    async def _under_way(self, job: int) -> list[Batch]:
        return await asyncio.to_thread(self.store.of_job, job, *UNDER_WAY)

    def _client(self, provider: str) -> BatchClient:
        if provider not in self._clients:
            self._clients[provider] = BatchClient(self._endpoints[provider])
        return self._clients[provider]

    def _path(self, batch: Batch, kind: str) -> Path:
        self._folder.mkdir(exist_ok=True)
        return self._folder / f"{batch.key}.{kind}"
