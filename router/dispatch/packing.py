"""Packing texts into calls: as few as the limits allow, of about even weight, so that no last one is small and late."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from router.domain.values import Limits, Unit


def pack(units: Sequence[Unit], limits: Limits, *, max_texts: int | None = None, limiters: int = 1) -> list[list[Unit]]:
    """Calls in the order of the units, each within the limits; every unit is in exactly one.

    Args:
        units: what to send. None may be longer than `limits.tokens_per_text`.
        limits: of the model.
        max_texts: the operator's own limit of texts a call.
        limiters: calls that may run at once; where fewer calls would do, the work is spread over the limiters as long
            as a call keeps at least `SMALL` texts.
    """
    if not units:
        return []
    texts = min(limits.texts_per_call, max_texts or limits.texts_per_call)
    even = -(-len(units) // max(1, min(limiters, len(units) // SMALL)))
    texts = min(texts, even)
    calls = -(-len(units) // texts)
    texts = -(-len(units) // calls)
    ends = np.cumsum([u.tokens for u in units])
    tokens = limits.tokens_per_call or int(ends[-1])
    cuts = _cuts(ends, texts, tokens)
    if len(cuts) > calls:
        tokens = bisect_left(range(tokens), True, key=lambda most: len(_cuts(ends, texts, most)) <= len(cuts))
        cuts = _cuts(ends, texts, tokens)
    return [list(units[start:stop]) for start, stop in pairwise([0, *cuts])]


def _cuts(ends: NDArray[np.int64], texts: int, tokens: int) -> list[int]:
    """Where the calls end if each takes all that fits; `ends` is the running sum of tokens."""
    cuts: list[int] = []
    start = weight = 0
    while start < len(ends):
        start = max(start + 1, min(start + texts, int(np.searchsorted(ends, weight + tokens, side="right"))))
        weight = int(ends[start - 1])
        cuts.append(start)
    return cuts


SMALL = 256
"""Texts below which a call is not divided for the sake of concurrency: a round trip costs more than it saves."""
