"""Step 3 of a request, and of a collection's quote: what a decision may know, gathered in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from router.dispatch.limiter import Limiter
from router.domain.catalog import Catalog
from router.domain.pricing import rate
from router.domain.values import CandidateFacts, Facts, Model, Policy
from router.store.ledger import Ledger
from router.store.policies import Policies

API_SECONDS = 0.5
"""Expected time of a paid call before any was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a model would have to embed.

    Attributes:
        texts, missed: distinct texts, and those of them that the cache does not have.
        tokens, expected: of the missed ones: the most, and the likely.
        over_long: missed ones that are longer than the model takes, where that shuts it out.
    """

    texts: int
    missed: int
    tokens: int
    expected: int
    over_long: int = 0


def candidate(
    model: Model,
    missing: Missing,
    day: date,
    *,
    configured: bool,
    unhealthy: str,
    width: Callable[[], int] = lambda: 1,
    batch: bool = False,
    seconds: float | None = None,
) -> CandidateFacts:
    """What a decision may know of one model.

    Args:
        width: calls that its provider takes at once.
        batch: nobody waits, so the batch tier may answer.
        seconds: expected time, where it is known already.
    """
    if seconds is None:
        seconds = missing.expected / model.tokens_per_second
        if not model.local and missing.missed:
            calls = -(-missing.missed // model.limits.texts_per_call)
            seconds = max(seconds, API_SECONDS * -(-calls // max(1, width())))
    return CandidateFacts(
        model=model,
        texts=missing.texts,
        cached=missing.texts - missing.missed,
        tokens=missing.tokens,
        expected_tokens=min(missing.tokens, missing.expected),
        over_long=missing.over_long,
        seconds=seconds,
        configured=configured,
        unhealthy=unhealthy,
        price=rate(model, day),
        batch_price=rate(model, day, batch=True) if batch else None,
    )


class FactsBuilder:
    """Gathers what decisions may know: prices, budgets, health, the kill switch, and what each model misses."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        policies: Policies,
        limiters: Mapping[str, Limiter],
        configured: Callable[[Model], bool],
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._policies = policies
        self._limiters = limiters
        self._configured = configured
        self._clock = clock

    async def build(self, policy: Policy, missing: Callable[[Model], Missing], *, batch: bool = False) -> Facts:
        """The facts for a decision under a policy; `missing` is called in a worker thread. Raises StoreError."""
        now = datetime.fromtimestamp(self._clock(), UTC)

        def one(model: Model) -> CandidateFacts:
            limiter = self._limiters[model.provider]
            return candidate(
                model, missing(model), now.date(), configured=self._configured(model), unhealthy=limiter.unhealthy(),
                width=limiter.width, batch=batch,
            )  # fmt: skip

        def build() -> Facts | None:
            if self._ledger.pace_is_due(policy.name):
                return None
            return Facts(
                now=now,
                candidates=tuple(map(one, self._catalog.models)),
                budgets=self._ledger.states(policy.name),
                paid_enabled=self._policies.paid_enabled(),
            )

        while (facts := await asyncio.to_thread(build)) is None:
            await self._ledger.judge_pace(policy.name)
        return facts
