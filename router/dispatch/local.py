"""Embedding on this machine: shortest texts first, stored as they are done, so that a kill loses two groups at most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from router.dispatch.delivery import Delivery
from router.domain.errors import Refused
from router.domain.values import Model, Role, Unit
from router.providers.base import EmbedCall, Provider, check
from router.store.vectors import Cache, vector_key

GROUP = 64
"""Texts between two commits and two reports of progress."""


async def embed_locally(
    provider: Provider,
    cache: Cache,
    model: Model,
    role: Role,
    units: Sequence[Unit],
    *,
    cancelled: Callable[[], bool],
    progress: Callable[[int], None],
) -> Delivery:
    """Vectors of all units, by a local model; stops early when cancelled."""
    done = Delivery()
    order = sorted(units, key=lambda u: u.tokens)
    groups = deque(order[start : start + GROUP] for start in range(0, len(order), GROUP))

    async def make(group: Sequence[Unit]) -> None:
        call = EmbedCall(model=model, texts=tuple(u.text for u in group), role=role)
        vectors = check(call, await provider.embed(call))
        keys = [u.digest for u in group]
        await cache.store(vector_key(model, role, "whole"), keys, [u.tokens for u in group], vectors)
        done.vectors.update(zip(keys, vectors, strict=True))
        done.tokens += sum(u.tokens for u in group)
        progress(len(done.vectors))

    async def work() -> None:
        while groups:
            group = groups.popleft()
            if cancelled():
                done.failed.update((u.digest, Refused("The request was cancelled.")) for u in group)
                continue
            try:
                await make(group)
            except BaseException:
                groups.clear()  # what stopped one group would stop the others
                raise

    ends = await asyncio.gather(work(), work(), return_exceptions=True)  # one encodes while the other stores
    for end in ends:
        if end is not None:
            raise end
    return done
