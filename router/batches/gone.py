"""Batches that can no longer be seen: the key is of another project by now, was revoked, or is gone.

Their money is held, and their results may yet be fetched if the key is mended, so they are waited for; but not for
ever. What is given up may have been billed, so all of it becomes an unconfirmed charge.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from router.batches.results import Results
from router.batches.rows import BatchRow, BatchRows, line_price
from router.domain.errors import NotConfigured, ProviderError
from router.domain.values import Model
from router.providers.batch import WINDOWS, BatchClient, RemoteBatch

GRACE_S = 86_400.0
"""How long after its window a batch that its provider does not know may come to light."""
KEPT_S = 30 * 86_400.0
"""... and one that nobody lets us look at: results are kept for so long."""


async def look(row: BatchRow, client: BatchClient) -> RemoteBatch | None:
    """How a batch stands; None where its provider does not know it. Raises ProviderError."""
    try:
        return await client.retrieve(row.remote)
    except NotConfigured:  # no such batch; or a wrong address, and then there is no list either
        return await client.find(row.key, since=row.created - 3_600)


def over(row: BatchRow, wire: str) -> float:
    """When a batch's window has passed, in epoch seconds."""
    return (row.submitted or row.created) + 3_600.0 * int(WINDOWS[wire].removesuffix("h"))


def unknown(row: BatchRow, until: float) -> NotConfigured:
    """The error for a batch that its provider does not know; it is given up at `until`, epoch seconds."""
    day = datetime.fromtimestamp(until, UTC)
    return NotConfigured(
        f"{row.provider} does not know the batch {row.remote}: the key may be of another project.",
        f"Use the key that it was sent with. Its money stays held until {day.day} {day:%B, %H:%M} UTC.",
    )


async def give_up(rows: BatchRows, row: BatchRow, model: Model, why: ProviderError) -> NotConfigured:
    """Book all of a batch as unconfirmed. Returns the error that stops the job before its texts are paid for anew."""
    records, tries = await asyncio.to_thread(lambda: (rows.records(row), rows.tries(row.job)))
    results = Results(row.provider, model, records, line_price(model, row.created))
    await rows.settle(row, model, results.give_up(tries))
    return NotConfigured(
        f"{why.message} It was given up, and what it may have cost is booked as unconfirmed.",
        "Resume to send its texts again.",
    )
