"""Step 3 of a request, and of a collection's quote: what a decision may know of one model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from router.domain.pricing import rate
from router.domain.values import CandidateFacts, Model

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
    width: int = 1,
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
            seconds = max(seconds, API_SECONDS * -(-calls // max(1, width)))
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
