"""Batches that can no longer be seen: the key is of another project by now, was revoked, or is gone.

Their money is held, and their results may yet be fetched if the key is mended, so they are waited for; but not for
ever. What is given up may have been billed, so all of it becomes an unconfirmed charge.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from router.batches.results import Results
from router.domain.errors import NotConfigured, ProviderError
from router.domain.values import Model
from router.providers.batch import WINDOWS, BatchClient, RemoteBatch
from router.store.batches import Batch, BatchStore

GRACE_S = 86_400.0
"""How long after its window a batch that its provider does not know may come to light."""
KEPT_S = 30 * 86_400.0
"""... and one that nobody lets us look at: results are kept for so long."""


async def look(batch: Batch, client: BatchClient) -> RemoteBatch | None:
    """How a batch stands; None where its provider does not know it. Raises ProviderError."""
    try:
        return await client.retrieve(batch.remote)
    except NotConfigured:  # no such batch; or a wrong address, and then there is no list either
        return await client.find(batch.key, since=batch.created - 3_600)


def over(batch: Batch, wire: str) -> float:
    """When a batch's window has passed, in epoch seconds."""
    return (batch.submitted or batch.created) + 3_600.0 * int(WINDOWS[wire].removesuffix("h"))


def unknown(batch: Batch, until: float) -> NotConfigured:
    """The error for a batch that its provider does not know; it is given up at `until`, epoch seconds."""
    day = datetime.fromtimestamp(until, UTC)
    return NotConfigured(
        f"{batch.provider} does not know the batch {batch.remote}: the key may be of another project.",
        f"Use the key that it was sent with. Its money stays held until {day.day} {day:%B, %H:%M} UTC.",
    )


async def give_up(store: BatchStore, batch: Batch, model: Model, why: ProviderError) -> NotConfigured:
    """Charge all of a batch as unconfirmed. Returns the error that stops the job before its texts are paid for anew."""
    texts, tries = await asyncio.to_thread(lambda: (store.texts(batch), store.tries(batch.job)))
    await store.settle(batch, model, Results(batch.provider, model, texts, batch.created).give_up(tries))
    return NotConfigured(
        f"{why.message} It was given up, and what it may have cost is booked as unconfirmed.",
        "Resume to send its texts again.",
    )
