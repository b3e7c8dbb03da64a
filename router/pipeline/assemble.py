"""Step 8 of a request: its vectors, in the order asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from router.dispatch.delivery import Delivery
from router.domain.errors import StoreError
from router.pipeline.account import Tally
from router.pipeline.coverage import resize
from router.pipeline.expand import Work, mean_of
from router.pipeline.request import Planned
from router.providers.base import Floats
from router.store.vectors import Damaged, vector_key


async def assemble(planned: Planned, work: Work, done: Delivery, tally: Tally) -> Floats:
    """`(texts, dimensions)` float32 of unit length in the order asked; NaN for texts that were refused.

    Means of over-long texts' pieces are stored on the way.

    Raises:
        StoreError: the cache cannot be read or written.
    """
    valid, plan = planned.lookup.valid, planned.plan
    distinct = await asyncio.to_thread(_gather, planned, work, done, tally)
    await _store_means(planned, work, distinct, tally)
    distinct = resize(distinct, plan.dimensions)
    if len(valid.digests) == valid.asked:
        return distinct
    if not len(distinct):
        return np.full((valid.asked, plan.dimensions), np.nan, np.float32)
    out = distinct[np.maximum(valid.places, 0)]
    out[valid.places < 0] = np.nan
    return out


def _gather(planned: Planned, work: Work, done: Delivery, tally: Tally) -> Floats:
    """Full vectors of the distinct texts, `(n, full)` float32; NaN for those with a problem."""
    model, digests = planned.plan.model, planned.lookup.valid.digests
    if not work.units and not tally.failed:
        return planned.cached
    rows = planned.lookup.rows(model)
    out = np.full((len(digests), model.dimensions), np.nan, dtype=np.float32)
    out[[i for i, d in enumerate(digests) if d in rows]] = planned.cached
    elsewhere = [u.digest for u in work.units if u.digest not in done.vectors and u.digest not in done.failed]
    units: Mapping[bytes, Floats] = {**done.vectors, **_stored(planned, elsewhere)} if elsewhere else done.vectors
    for index, key in work.whole.items():
        if index not in tally.failed:
            out[index] = units[key]
    for index, parts in work.parts.items():
        if index not in tally.failed:
            out[index] = mean_of(np.stack([units[key] for key, _ in parts]), [n for _, n in parts])
    return out


def _stored(planned: Planned, digests: Sequence[bytes]) -> dict[bytes, Floats]:
    """Vectors that another request has stored in the meantime."""
    coverage, model = planned.lookup.coverage, planned.plan.model
    rows = coverage.rows(model, digests)
    try:
        return dict(zip(rows, coverage.fetch(model, list(rows.values()), model.dimensions), strict=True))
    except Damaged as exc:
        coverage.cache.remove_now(exc.rows)
        raise StoreError("A cached vector was erased while it was being read.", "Try again.") from exc


async def _store_means(planned: Planned, work: Work, distinct: Floats, tally: Tally) -> None:
    """Store the mean vectors of over-long texts under their own digests, marked as what they are."""
    lookup, model = planned.lookup, planned.plan.model
    made = [i for i in work.parts if i not in tally.failed]
    if made:
        await lookup.coverage.cache.store(
            vector_key(model, lookup.role, work.variant),
            [lookup.valid.digests[i] for i in made],
            lookup.likely(model, made),
            distinct[made],
        )
