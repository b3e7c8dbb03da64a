"""Packing texts into calls: as few as the limits allow, of about even weight, so that no last one is small and late."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.values import Limits, Unit


def pack(units: Sequence[Unit], limits: Limits, *, max_texts: int | None = None, lanes: int = 1) -> list[list[Unit]]:
    """Calls in the order of the units, each within the limits; every unit is in exactly one.

    Args:
        units: what to send. None may be longer than `limits.tokens_per_text`.
        limits: of the model.
        max_texts: the operator's own limit of texts a call.
        lanes: calls that may run at once; where fewer calls would do, the work is spread over the lanes as long
            as a call keeps at least `SMALL` texts.
    """
    if not units:
        return []
    texts = min(limits.texts_per_call, max_texts or limits.texts_per_call)
    tokens = limits.tokens_per_call or sum(u.tokens for u in units)
    even = -(-len(units) // max(1, min(lanes, len(units) // SMALL)))
    texts = min(texts, even)
    calls = -(-len(units) // texts)
    texts = -(-len(units) // calls)
    groups: list[list[Unit]] = [[]]
    weight = 0
    for unit in units:
        if groups[-1] and (len(groups[-1]) >= texts or weight + unit.tokens > tokens):
            groups.append([])
            weight = 0
        groups[-1].append(unit)
        weight += unit.tokens
    return groups


SMALL = 256
"""Texts below which a call is not divided for the sake of concurrency: a round trip costs more than it saves."""
