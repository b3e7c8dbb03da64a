"""Over-long texts, for the model that was chosen: even pieces, or the part that fits, never cut in silence.

A piece is a text like any other, embedded and cached under its own digest, so that pieces paid for are never lost.
The vector of the whole is the mean of its pieces' vectors, weighted by their tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from router import splitting, tokens
from router.domain.errors import BadInput
from router.domain.values import LongTexts, Model, Role, Unit, Variant
from router.pipeline.lookup import Lookup
from router.pipeline.validate import digest
from router.providers.base import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the chosen model has to embed.

    Attributes:
        units: distinct texts and pieces, none longer than the model takes.
        whole: for each missing text (by index), its unit's digest, where it needs no splitting.
        parts: for each over-long text (by index), the digests and tokens of its pieces.
        variant: how the over-long texts' own vectors are kept: `split` or `cut`.
        too_long: why an over-long text is refused, by index.
    """

    units: tuple[Unit, ...] = field(repr=False)
    whole: dict[int, bytes] = field(repr=False)
    parts: dict[int, list[tuple[bytes, int]]]
    variant: Variant
    too_long: dict[int, BadInput]


def expand(lookup: Lookup, model: Model, long_texts: LongTexts) -> Work:
    """The units that `model` must embed for its misses."""
    valid = lookup.valid
    misses = lookup.misses(model)
    counts = lookup.most(model, misses)
    estimates = lookup.estimates(model, misses)
    limit = model.limits.tokens_per_text
    units: dict[bytes, Unit] = {}
    whole: dict[int, bytes] = {}
    parts: dict[int, list[tuple[bytes, int]]] = {}
    too_long: dict[int, BadInput] = {}
    for index, count, estimate in zip(misses, counts, estimates, strict=True):
        if limit is None or count <= limit:
            key = valid.digests[index]
            whole[index] = key
            units[key] = Unit(digest=key, text=valid.texts[index], tokens=count, estimate=estimate)
        elif long_texts == "refuse":
            too_long[index] = BadInput(
                f"It has {count:,} tokens; {model.id} takes {limit:,}.",
                "Shorten it, or let the policy split long texts.",
            )
        else:
            pieces = _pieces(model, lookup.role, valid.texts[index], long_texts)
            lengths = tokens.count_for(model, lookup.role, pieces)
            parts[index] = [(digest(p), n) for p, n in zip(pieces, lengths, strict=True)]
            guesses = lookup.estimates_of(model, pieces, lengths)
            for (key, n), piece, guess in zip(parts[index], pieces, guesses, strict=True):
                units.setdefault(key, Unit(digest=key, text=piece, tokens=n, estimate=guess))
    variant: Variant = "cut" if long_texts == "cut" else "split"
    return Work(units=tuple(units.values()), whole=whole, parts=parts, variant=variant, too_long=too_long)


def _pieces(model: Model, role: Role, text: str, long_texts: LongTexts) -> list[str]:
    limit = tokens.room(model, role)
    if limit is None:
        return [text]
    if long_texts == "cut":
        return [tokens.cut(model.tokenizer, text, limit)]
    return [piece for piece in splitting.split_evenly(model.tokenizer, text, limit) if piece.strip()]


def mean_of(vectors: Floats, weights: list[int]) -> Floats:
    """The weighted mean of unit vectors `(n, d)`, of unit length, `(d,)` float32; the first one if they cancel out."""
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    norm = float(np.linalg.norm(mean))
    return (mean / norm).astype(np.float32) if norm > 1e-9 else vectors[0]
