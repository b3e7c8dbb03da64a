"""What a decision knew, kept beside the digests of its request so that it can be taken again under another policy.

Numbers and names only, never texts. JSON, because it is read by another version of this program weeks later.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from router.domain.values import Ask, Facts, LongTexts, Model, Tokenizer, Window

Mask = NDArray[np.bool_]
ALL, NONE = "*", ""
SIZE: Mapping[Tokenizer, float] = {"cl100k_base": 1.0, "wordpiece": 1.03, "bytes": 5.35}
"""The most tokens of an English text for one of cl100k_base, for guesses (over the 1,400 abstracts of Cranfield)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenModel:
    """A candidate as the decision saw it: see `CandidateFacts`. `cached`: `(distinct,)` bool, which texts it had.

    `expected` are its likely tokens; those of a decision of version 1, which knew the most only, are the most.
    """

    model: str
    cached: Mask = field(repr=False)
    tokens: int
    expected: int
    over_long: int
    seconds: float
    configured: bool
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBudget:
    """A budget as the decision saw it; `resets` in epoch seconds, None where its window has no end."""

    owner: str
    window: Window
    hard: bool
    amount: int
    used: int
    resets: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All that a decision hung on, but its policy, prices and pace.

    `tokenizer`: whose counts the request's are; they are the most, or where `likely` those that were expected.
    """

    now: datetime
    ask: Ask
    long_texts: LongTexts
    tokenizer: Tokenizer
    likely: bool
    paid_enabled: bool
    models: tuple[SeenModel, ...]
    budgets: tuple[SeenBudget, ...]

    @property
    def size(self) -> float:
        """The request's counts of an English text for one token of cl100k_base."""
        return 1.0 if self.likely and self.tokenizer == "bytes" else SIZE[self.tokenizer]

    def most(self, tokenizer: Tokenizer) -> float:
        """The most tokens for a tokenizer, for one of the request's counts."""
        return SIZE[tokenizer] / self.size


def facts_to_json(
    facts: Facts,
    ask: Ask,
    long_texts: LongTexts,
    tokenizer: Tokenizer,
    cached: Callable[[Model], Sequence[bool]],
    *,
    likely: bool,
) -> str:
    """The trace of a decision; `cached` says which of the texts a model has, asked where it has some and not all."""
    models = []
    for c in facts.candidates:
        mask = NONE if not c.cached else ALL if c.cached >= c.texts else _pack(cached(c.model))
        flags = int(c.configured) | int(not c.unhealthy) << 1
        models.append([c.model.id, mask, c.tokens, c.over_long, c.seconds, flags, c.expected_tokens])
    budgets = [
        [s.owner, s.budget.window, int(s.budget.hard), s.budget.amount, s.used, s.resets and s.resets.timestamp()]
        for s in facts.budgets
    ]
    pins = [ask.pinned_space, ask.pinned_model, ask.dimensions, int(ask.partial), ask.collection]
    values = {
        "now": facts.now.timestamp(), "pins": pins, "long": long_texts, "tokenizer": tokenizer, "likely": int(likely),
        "paid": int(facts.paid_enabled), "models": models, "budgets": budgets,
    }  # fmt: skip
    return json.dumps(values, separators=(",", ":"))


def facts_from_json(body: str, texts: int, role: str) -> Trace:
    """The trace that `facts_to_json` wrote of a request of so many distinct texts."""
    values = json.loads(body)
    space, model, dimensions, partial, collection = values["pins"]
    return Trace(
        now=datetime.fromtimestamp(values["now"], UTC),
        ask=Ask(
            role="query" if role == "query" else "document",
            pinned_space=space,
            pinned_model=model,
            dimensions=dimensions,
            partial=bool(partial),
            collection=collection,
        ),
        long_texts=values["long"],
        tokenizer=values["tokenizer"],
        likely=bool(values.get("likely", 0)),
        paid_enabled=bool(values["paid"]),
        models=tuple(
            SeenModel(
                model=name,
                cached=_unpack(cached, texts),
                tokens=tokens,
                expected=expected[0] if expected else tokens,
                over_long=over_long,
                seconds=seconds,
                configured=bool(flags & 1),
                healthy=bool(flags & 2),
            )
            for name, cached, tokens, over_long, seconds, flags, *expected in values["models"]
        ),
        budgets=tuple(
            SeenBudget(owner=owner, window=window, hard=bool(hard), amount=amount, used=used, resets=resets)
            for owner, window, hard, amount, used, resets in values["budgets"]
        ),
    )


def _pack(mask: Sequence[bool]) -> str:
    return base64.b64encode(np.packbits(np.array(mask, dtype=np.bool_)).tobytes()).decode()


def _unpack(packed: str, texts: int) -> Mask:
    if packed in (NONE, ALL):
        return np.full(texts, packed == ALL)
    bits = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
    return np.unpackbits(bits, count=texts).astype(np.bool_)
