"""What the engine answers with: results and quotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.domain.errors import BadInput, BudgetExceeded, Refused, RouterError
from router.domain.values import Plan, Refusal, RouteCounts, Saved, Verdict
from router.providers.base import Floats

TextRoute = Literal["cache", "local", "api", "batch", "repeated", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to a request.

    Attributes:
        vectors: `(n, d)` float32, one row a text in the order asked, unit length; a refused text's row is NaN.
        routes: how each text was answered, in the order asked.
        problems: why a text was refused, by its position; only `partial` requests have any.
        counts: distinct texts by route.
        repeated: texts answered with their twin.
        tokens: likely ones of the distinct texts that were answered, for the chosen model; those counted, where its
            tokenizer is at hand.
        cost, unconfirmed: nanodollars charged, and charged without the provider's word.
        cut: positions of the texts that were cut to the model's length, as the policy said.
        exhausted: True where money was why some texts were refused.
        decision: the plan explained in sentences.
        request: the request's number in the usage.
    """

    vectors: Floats = field(repr=False)
    routes: tuple[TextRoute, ...] = field(repr=False)
    problems: Mapping[int, RouterError]
    model: str
    space: str
    dimensions: int
    texts: int
    distinct: int
    repeated: int
    counts: RouteCounts
    tokens: int
    cost: int
    unconfirmed: int
    saved: Saved
    cut: tuple[int, ...]
    exhausted: bool
    decision: str
    plan: Plan = field(repr=False)
    request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteLine:
    """One candidate of a quote. Money in nanodollars; `full_...` are with every repeat, uncached.

    `full_expected_tokens` and `full_expected` are what is likely, the others the most.
    """

    verdict: Verdict
    full_tokens: int
    full_expected_tokens: int
    distinct_tokens: int
    full_cost: int | None
    full_expected: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a request would cost, before anything is spent.

    Attributes:
        tokens: likely tokens of all texts, repeats included, for the chosen model (or the first candidate).
        problems: why a text would be refused, by its position; only `partial` quotes have any.
        outcome: the plan, or the refusal.
    """

    texts: int
    distinct: int
    tokens: int
    lines: tuple[QuoteLine, ...]
    problems: Mapping[int, RouterError]
    outcome: Plan | Refusal
    decision: str

    @property
    def cost(self) -> int | None:
        """The most that it can cost, in nanodollars, or None where the request would be refused."""
        return self.outcome.cost if isinstance(self.outcome, Plan) else None

    @property
    def model(self) -> str | None:
        """The model that would be chosen, or None where the request would be refused."""
        return self.outcome.model.id if isinstance(self.outcome, Plan) else None


def to_error(refusal: Refusal) -> RouterError:
    """What to raise for a refusal."""
    message, hint = f"Refused: {refusal.reason}", refusal.hint
    if refusal.kind == "budget":
        return BudgetExceeded(message, hint, shortfall=refusal.shortfall)
    if refusal.kind == "input":
        return BadInput(message, hint)
    return Refused(message, hint)
