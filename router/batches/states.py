"""The batch tier: what a job misses, sent at half the price, and answered within a day.

A job is taken on step by step, by whoever runs it, and everything between two steps is in the books: a program that
dies anywhere is followed by one that finds the batch again by the key in its metadata, and never submits it twice.
Money is held at the batch price, and the texts are claimed, before anything leaves; vectors are stored before a
charge is booked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router.batches.gone import GRACE_S as GONE_GRACE_S
from router.batches.gone import KEPT_S, give_up, look, over, unknown
from router.batches.results import STORED, Results
from router.batches.rows import UNDER_WAY, BatchRow, BatchRows, line_price
from router.batches.texts import WHOLE, BatchJob, ChunkText, Limits, Misses, gather, write_file
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
from router.providers.base import key_of
from router.providers.batch import WINDOWS, BatchClient, RemoteBatch, results_limit, shared_params
from router.store.vectors import kind_of

FIRST_POLL_S = 2.0
LONGEST_POLL_S = 60.0
GRACE_S = 30.0
"""How long a submission whose answer was lost may take to show in the provider's list."""
MOST_UNDER_WAY = 20
"""Batches of one job at a time: a million texts, the most that OpenAI queues."""
LOOKS = 3
"""Downloads of results that leave finished requests out, before they are taken as they are."""
__all__ = ["BatchJob", "BatchProgress", "BatchTier", "ChunkText", "Misses"]
_QUEUE_FULL = "token_limit_exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """How a job's batches stand after a step.

    Attributes:
        open: batches under way.
        done, failed: texts embedded by batches, and failed for good (`BatchTier.failures` says why).
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
        router: Router,
        *,
        first_poll_s: float = FIRST_POLL_S,
        grace_s: float = GRACE_S,
        limits: Limits = WHOLE,
    ) -> None:
        self.rows = BatchRows(router)
        self._router = router
        self._folder = router.settings.data / "batches"
        self._first_poll_s = first_poll_s
        self._grace_s = grace_s
        self._limits = limits
        self._clients: dict[str, BatchClient] = {}
        self._looks: dict[int, int] = {}
        self._troubles: dict[int, int] = {}
        self._counts: dict[int, tuple[int, int]] = {}

    async def aclose(self) -> None:
        """Close connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    def serves(self, model: Model) -> bool:
        """True where the model can be sent by batch."""
        try:
            line_price(model, self._router.clock())
        except LookupError:
            return False
        return self._router.settings.endpoints[model.provider].wire in WINDOWS

    def failures(self, job: BatchJob) -> dict[bytes, str]:
        """Why texts of a job failed for good, by digest."""
        return self.rows.failures(job.id)

    async def forgive(self, job: BatchJob) -> None:
        """Let the texts of a job that failed for good be tried again."""
        await self.rows.forgive(job.id)

    # ---- a step ----

    async def step(self, job: BatchJob, misses: Misses) -> BatchProgress:
        """Bring a job's batches up to date: recover, poll, collect what has ended, submit one more.

        Providers' troubles do not raise: those that pass are in `reason`, the others in `error`.
        """
        moved, waiting = False, 0
        trouble: RouterError | None = None
        for row in self.rows.of_job(job.id, *UNDER_WAY):
            try:
                moved |= await self._advance(row)
            except RouterError as error:
                trouble = error
        if trouble is None:
            try:
                sent, waiting = await self._submit(job, misses)
                moved |= sent
            except BudgetExceeded as error:  # a batch holds more than it is billed, and gives it back when it ends
                trouble = None if self.rows.of_job(job.id, *UNDER_WAY) else error
            except RouterError as error:
                trouble = error
        return await self._progress(job, moved, waiting, trouble)

    async def cancel(self, job: BatchJob) -> BatchProgress:
        """Ask the provider to stop a job's batches. What is finished is kept and charged.

        To be followed by steps without misses until no batch is open: cancelling takes the provider a while.
        """
        trouble: RouterError | None = None
        for row in self.rows.of_job(job.id, *UNDER_WAY):
            try:
                await self._stop(row)
            except RouterError as error:
                trouble = error
        progress = await self.step(job, lambda n: ())
        return progress if trouble is None else await self._progress(job, progress.moved, 0, trouble)

    async def _progress(self, job: BatchJob, moved: bool, waiting: int, trouble: RouterError | None) -> BatchProgress:
        rows = await asyncio.to_thread(self.rows.of_job, job.id)
        counts = await asyncio.to_thread(self._count, rows)
        under_way = [row for row in rows if row.state in UNDER_WAY]
        ended = [row.reason.split("\n")[0] for row in rows if row.reason]
        if trouble is not None and trouble.passes:
            self._troubles[job.id] = self._troubles.get(job.id, 0) + 1
        else:
            self._troubles.pop(job.id, None)
        return BatchProgress(
            open=len(under_way),
            done=sum(stored for stored, _ in counts),
            failed=sum(failed for _, failed in counts),
            spent=self.rows.spent(job.id),
            next_poll_s=0.0 if moved and trouble is None else self._pause(job, under_way),
            reason=str(trouble) if trouble is not None else ended[-1] if ended else "",
            moved=moved,
            waiting=waiting,
            error=None if trouble is None or trouble.passes else trouble,
        )

    def _count(self, rows: Sequence[BatchRow]) -> list[tuple[int, int]]:
        """(stored, failed) of each batch that was settled, each read once."""
        for row in rows:
            if row.state in ("settled", "closed") and row.id not in self._counts:
                states = self.rows.records(row)["state"]
                self._counts[row.id] = (int((states == STORED).sum()), int((states > STORED).sum()))
        return [
            (self._counts[row.id][0], self._counts[row.id][1] if row.state == "settled" else 0)
            for row in rows
            if row.id in self._counts
        ]

    def _pause(self, job: BatchJob, under_way: Sequence[BatchRow]) -> float:
        """Short at first and longer as the youngest batch grows older, to a minute; longer with every trouble too."""
        now = self._router.clock()
        age = min((now - (row.submitted or row.created) for row in under_way), default=0.0)
        pause = max(self._first_poll_s, age / 10) * 2 ** min(self._troubles.get(job.id, 0), 10)
        return float(min(LONGEST_POLL_S, pause))

    # ---- a batch under way ----

    async def _advance(self, row: BatchRow) -> bool:
        """Take a batch as far as it goes just now. True: something changed."""
        if row.state == "intended":  # whoever intended it died before it could submit it
            return await self._withdraw(row, "not sent: the program ended while its file was being made")
        client = self._client(row.provider)
        ends = over(row, self._router.settings.endpoints[row.provider].wire)
        why: ProviderError
        try:
            if row.state == "uploaded":
                return await self._recover(row, client)
            remote = await look(row, client)
        except (KeyRejected, NotConfigured) as error:
            until, why = ends + KEPT_S, error
        else:
            if remote is not None:
                return await self._collect(row, remote, client) if remote.ended else False
            until = ends + GONE_GRACE_S
            why = unknown(row, until)
        if self._router.clock() < until:
            raise why
        raise await give_up(self.rows, row, self._router.catalog.get(row.model), why)

    async def _recover(self, row: BatchRow, client: BatchClient) -> bool:
        """A batch that may have been submitted: find it by its key; submit it only if it is surely not there."""
        remote = await client.find(row.key, since=row.created - 3_600)
        if remote is not None:
            if not row.remote:  # it was cancelled before it showed
                await self._ask_to_stop(client, remote.id)
            return await self.rows.move(row, "submitted", remote.id) is not None
        if self._router.clock() < (row.submitted or row.created) + self._grace_s:
            return False
        if not row.remote:
            return await self._withdraw(row, "cancelled before it was sent")
        again = await self.rows.move(row, "uploaded", row.remote)
        if again is None:
            return False
        try:
            return await self._create(again, client)
        except (CallRejected, NotConfigured) as error:  # no such file: another project may have it, and the batch
            raise await give_up(self.rows, again, self._router.catalog.get(row.model), error) from error
        except ProviderError as error:  # the next batch meets what stands in every one's way
            if error.passes:
                raise
            return await self._withdraw(again, f"not sent: {error.message}")
        except Refused as error:
            await self._withdraw(again, f"not sent: {error.message}")
            raise

    async def _create(self, row: BatchRow, client: BatchClient) -> bool:
        """Submit an uploaded file. It is in the books already that this may happen.

        Raises:
            Refused: the kill switch, or the policy as it is by now, says no; nothing was submitted.
        """
        self._router.ledger.require_permission(row.hold)
        model = self._router.catalog.get(row.model)
        endpoint = self._router.settings.endpoints[row.provider]
        remote = await client.create(row.remote, row.key, shared_params(endpoint, model, "document"))
        return await self.rows.move(row, "submitted", remote.id) is not None

    async def _collect(self, row: BatchRow, remote: RemoteBatch, client: BatchClient) -> bool:
        """Store what an ended batch made, then book it."""
        model = self._router.catalog.get(row.model)
        if any(flaw.code == _QUEUE_FULL for flaw in remote.flaws) and len(self.rows.of_job(row.job, *UNDER_WAY)) > 1:
            await self._withdraw(row, "not taken: the provider's queue for this account is full")
            raise RateLimited(f"The batch queue of this account at {row.provider} is full.", "It is sent again later.")
        results = Results(
            client.name, model, await asyncio.to_thread(self.rows.records, row), line_price(model, row.created)
        )
        for number, file in enumerate(remote.files):
            await self._read(row, file, self._path(row, f"result{number}"), results, client)
        if results.broken or results.lost(remote):
            self._looks[row.id] = self._looks.get(row.id, 0) + 1
            if self._looks[row.id] < LOOKS:
                raise BadReply(f"Results of a batch at {client.name} are incomplete.", "They are downloaded again.")
        tries = await asyncio.to_thread(self.rows.tries, row.job)
        settled = await self.rows.settle(row, model, await asyncio.to_thread(results.settle, remote, tries))
        await self._tidy(client, remote)
        return settled

    async def _read(self, row: BatchRow, file: str, path: Path, results: Results, client: BatchClient) -> None:
        """Download one result file, and store its vectors group by group."""
        model = self._router.catalog.get(row.model)
        kind = kind_of(model, "document", "whole")
        try:
            try:
                await client.download(file, path, results_limit(model, row.texts))
            except (BadReply, CallRejected, NotConfigured):  # endless, or gone; what it would have said is missing
                results.broken += 1
                return
            with path.open("rb") as lines:
                while (found := await asyncio.to_thread(results.read, lines)) is not None:
                    await self._router.cache.store(kind, found.digests, found.tokens, found.vectors)
        finally:
            path.unlink(missing_ok=True)

    async def _tidy(self, client: BatchClient, remote: RemoteBatch) -> None:
        """Delete the batch's files at the provider: they hold people's texts. Kept for a month if this fails."""
        for file in (remote.input_file, *remote.files):
            if file:
                with contextlib.suppress(ProviderError):
                    await client.delete(file)

    async def _stop(self, row: BatchRow) -> None:
        if row.state == "intended":
            await self._withdraw(row, "cancelled before it was sent")
            return
        client = self._client(row.provider)
        if row.state == "submitted":
            await self._ask_to_stop(client, row.remote)
            return
        file = row.remote
        noted = await self.rows.move(row, "uploaded", "")  # from here on it is never submitted again
        if noted is not None and file:
            with contextlib.suppress(ProviderError):
                await client.delete(file)
        if noted is not None:
            await self._recover(noted, client)

    async def _ask_to_stop(self, client: BatchClient, batch: str) -> None:
        with contextlib.suppress(CallRejected):  # it has ended already
            await client.cancel(batch)

    async def _withdraw(self, row: BatchRow, reason: str) -> bool:
        self._path(row, "jsonl").unlink(missing_ok=True)
        if row.state == "uploaded" and row.remote:
            with contextlib.suppress(ProviderError):
                await self._client(row.provider).delete(row.remote)
        return await self.rows.withdraw(row, reason)

    # ---- a new batch ----

    async def _submit(self, job: BatchJob, misses: Misses) -> tuple[bool, int]:
        """Send one more batch, if there is anything to send. (something was sent, texts others are paying for)"""
        await self._router.cache.require_room()
        if len(self.rows.of_job(job.id, *UNDER_WAY)) >= MOST_UNDER_WAY:
            return False, 0
        model = self._router.catalog.get(job.model)
        policy = self._router.policies.get(job.policy)
        if not self.serves(model):
            raise Refused(f"{model.id} has no batch tier.", "Choose another model, or the deadline `now`.")
        units, waiting = await asyncio.to_thread(gather, self._router, self.rows, job, model, misses, self._limits)
        if not units:
            return False, waiting
        key_of(self._router.settings.endpoints[model.provider])
        intended = await self.rows.intend(job.id, units, model, policy, job.collection)
        if intended is None:
            return False, waiting
        row, hold = intended
        client = self._client(row.provider)
        path = self._path(row, "jsonl")
        try:
            try:
                await asyncio.to_thread(write_file, self._router, path, model, hold.units)
                file = await client.upload(path)
            finally:
                path.unlink(missing_ok=True)
        except (RouterError, OSError) as error:
            await self._withdraw(row, f"not sent: {error}")
            if isinstance(error, OSError):
                raise Refused(f"The file of a batch cannot be written: {error}.", "Make room on the disk.") from error
            raise
        uploaded = await self.rows.move(row, "uploaded", file)
        if uploaded is None:
            return False, waiting
        try:
            return await self._create(uploaded, client), waiting
        except (ProviderError, Refused) as error:
            if not error.passes:
                await self._withdraw(uploaded, f"not sent: {error.message}")
            raise

    # ---- small things ----

    def _client(self, provider: str) -> BatchClient:
        if provider not in self._clients:
            self._clients[provider] = BatchClient(self._router.settings.endpoints[provider])
        return self._clients[provider]

    def _path(self, row: BatchRow, kind: str) -> Path:
        self._folder.mkdir(exist_ok=True)
        return self._folder / f"{row.key}.{kind}"
