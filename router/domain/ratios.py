"""How many tokens a text will likely be for a tokenizer that is not at hand: a ratio to one that is, by kind of text.

The ratios begin with the catalog's and are learned from what the provider billed. A call mixes kinds of text and only
its total is billed, so what is learned is a ridge regression: billed tokens over the call's counts by the base
tokenizer, summed by kind, and its number of texts. Each call weighs as one over its expected tokens (the error of a
call twice as large has about twice the variance), and the solution is drawn towards the catalog's ratios, as if some
hundred tokens of each kind had been billed at them. The sums that it needs are additive: several processes may add to
them, in any order, and nothing but numbers is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Annotated

import numpy as np
from msgspec import Meta

from router.domain.kinds import KINDS, TextKind
from router.domain.values import Estimate, Tokenizer, Unit

TEXT = "text"
"""The feature beside the kinds: how many texts a call has, for what is added to each (a prompt, markers)."""
BILLED = "billed"
Sums = Mapping[tuple[str, str], float]
"""Weighted sums over calls of the products of two features, or of a feature and the billed tokens; (a, b) by name."""

_FEATURES = (*KINDS, TEXT)
_PRIOR_TOKENS = 300.0
"""A call of 300 tokens of one kind moves its ratio half of the way to what was billed."""
_PRIOR_TEXTS = 0.1
"""The same for what is added to a text: a text of ten tokens, alone in its call, weighs as much."""
_LEAST, _MOST = 0.05, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Tokens of some models for one token of a base tokenizer.

    Attributes:
        models: patterns, `fnmatch` style, over model ids; of several that fit, the last counts.
        base: the tokenizer that is at hand.
        by_kind: the ratio for each kind of text.
        per_text: tokens that are added to each text.
        source, checked: where the ratios are from, and when.
    """

    models: Annotated[tuple[str, ...], Meta(min_length=1)]
    base: Tokenizer
    by_kind: Mapping[TextKind, Annotated[float, Meta(ge=0.01, le=100)]] = field(repr=False)
    per_text: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    source: str = ""
    checked: date | None = None

    def estimate(self, kind: TextKind, base: int, most: int) -> Estimate:
        """The likely tokens of a text of `base` tokens for the base tokenizer: at least one, never more than `most`."""
        likely = min(most, max(1, round(self.by_kind[kind] * base + self.per_text)))
        return Estimate(kind=kind, base=base, tokens=likely)


ALIKE = Ratios(models=("*",), base="cl100k_base", by_kind=dict.fromkeys(KINDS, 1.0))
"""What is taken where the catalog says nothing of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far off the expected tokens were, over the calls that were learned from, each judged before it was.

    Attributes:
        expected, billed: the calls' tokens.
        absolute: the sum of the calls' differences, each counted as positive.
        squares: the sum of the squares of the calls' relative differences (to what was expected).
    """

    calls: int
    expected: int
    billed: int
    absolute: int
    squares: float

    @property
    def off(self) -> float:
        """The mean difference of a call, as a share of what was billed."""
        return self.absolute / self.billed if self.billed else 0.0

    @property
    def spread(self) -> float:
        """The root mean square of the calls' relative differences."""
        return (self.squares / self.calls) ** 0.5 if self.calls else 0.0


def features(estimates: Iterable[Estimate]) -> dict[str, float]:
    """A call as the regression sees it: base tokens by kind, and the number of texts."""
    found: dict[str, float] = {TEXT: 0.0}
    for one in estimates:
        found[one.kind] = found.get(one.kind, 0.0) + one.base
        found[TEXT] += 1
    return found


def features_of(units: Iterable[Unit]) -> tuple[dict[str, float], int] | None:
    """The features of a call and its expected tokens; None where the tokenizer is at hand, so nothing is to learn."""
    estimates = [unit.estimate for unit in units if unit.estimate is not None]
    return (features(estimates), sum(one.tokens for one in estimates)) if estimates else None


def products(call: Mapping[str, float], expected: int, billed: int) -> dict[tuple[str, str], float]:
    """What one call adds to `Sums`."""
    weight = 1 / max(1, expected)
    found = {
        (a, b): weight * call[a] * call[b]
        for at, a in enumerate(_FEATURES)
        for b in _FEATURES[at:]
        if call.get(a) and call.get(b)
    }
    found.update({(a, BILLED): weight * call[a] * billed for a in _FEATURES if call.get(a)})
    return found


def learned(prior: Ratios, sums: Sums) -> Ratios:
    """The ratios that the calls so far and the catalog together speak for."""
    if not sums:
        return prior
    start = np.array([*(prior.by_kind[kind] for kind in KINDS), prior.per_text])
    penalty = np.diag([*(_PRIOR_TOKENS / max(_LEAST, prior.by_kind[kind]) for kind in KINDS), _PRIOR_TEXTS])
    gram = np.array([[sums.get((a, b), sums.get((b, a), 0.0)) for b in _FEATURES] for a in _FEATURES])
    moment = np.array([sums.get((a, BILLED), 0.0) for a in _FEATURES])
    found = np.linalg.solve(gram + penalty, moment + penalty @ start)
    if found[-1] < 0:  # nothing is taken off a text: the kinds alone must explain what was billed
        found = np.append(np.linalg.solve((gram + penalty)[:-1, :-1], (moment + penalty @ start)[:-1]), 0.0)
    ratios = np.clip(found[:-1], _LEAST, _MOST).tolist()
    return replace(prior, by_kind=dict(zip(KINDS, ratios, strict=True)), per_text=float(found[-1]))
