"""Counting up a request that was carried out: who answered which text, what it cost, and what was not spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from router.dispatch.delivery import Delivery
from router.domain.errors import BudgetExceeded, RouterError
from router.domain.money import price_tokens, to_json
from router.domain.pricing import price_on
from router.domain.values import Avoided, Plan, Refusal, RouteCounts, Verdict
from router.pipeline.coverage import Survey
from router.pipeline.expand import Work
from router.pipeline.results import QuoteLine, Result, TextRoute
from router.pipeline.validate import Intake
from router.providers.base import Floats
from router.store.usage import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of the texts of a request.

    Attributes:
        tokens: `(distinct,)` uint32, likely tokens of each distinct text for the chosen model.
        answered: how each distinct text was answered.
        failed: distinct texts without a vector, by index.
        problems: why, by position, for every text asked that has no vector.
        cut: positions of texts that were cut.
    """

    intake: Intake
    tokens: NDArray[np.uint32] = field(repr=False)
    answered: Sequence[TextRoute] = field(repr=False)
    failed: Mapping[int, RouterError]
    problems: Mapping[int, RouterError]
    cut: tuple[int, ...]


def count_up(intake: Intake, survey: Survey, plan: Plan, work: Work, done: Delivery) -> Tally:
    """Who answered which text."""
    rows = survey.rows(plan.model)
    misses = survey.misses(plan.model)
    tokens = np.array([rows[d][1] if d in rows else 0 for d in intake.digests], dtype=np.uint32)
    survey.mend(plan.model, tokens)
    tokens[misses] = survey.likely(plan.model, misses)
    answered: list[TextRoute] = ["cache"] * len(intake.digests)
    failed: dict[int, RouterError] = dict(work.too_long)
    units = {index: [key] for index, key in work.whole.items()}
    units.update({index: [key for key, _ in parts] for index, parts in work.parts.items()})
    for index, keys in units.items():
        error = next((done.failed[key] for key in keys if key in done.failed), None)
        if error is not None:
            failed[index] = error
        elif any(key in done.vectors for key in keys):
            # `cache` where another request answered all of it in the meantime
            answered[index] = plan.route
    for index in failed:
        answered[index] = "refused"
    problems: dict[int, RouterError] = dict(intake.problems)
    if failed:
        problems.update({p: failed[i] for p, i in enumerate(intake.places.tolist()) if i in failed})
    cut: tuple[int, ...] = ()
    if work.variant == "cut":
        before = survey.cut(plan.model)
        which = {i for i, d in enumerate(intake.digests) if (i in work.parts or d in before) and i not in failed}
        cut = tuple(p for p, i in enumerate(intake.places.tolist()) if i in which) if which else ()
    return Tally(
        intake=intake,
        tokens=tokens,
        answered=answered,
        failed=failed,
        problems=dict(sorted(problems.items())),
        cut=cut,
    )


def routes_in_order(tally: Tally) -> tuple[TextRoute, ...]:
    """How each text asked was answered; every copy after the first is `repeated`."""
    intake = tally.intake
    if len(intake.digests) == intake.asked:
        return tuple(tally.answered)
    routes: list[TextRoute] = []
    seen: set[int] = set()
    for index in intake.places.tolist():
        if index < 0 or tally.answered[index] == "refused":
            routes.append("refused")
        else:
            routes.append("repeated" if index in seen else tally.answered[index])
            seen.add(index)
    return tuple(routes)


def avoided(tally: Tally, plan: Plan, price: Decimal | None) -> Avoided:
    """What was not spent, by cause, at `price` USD per million tokens of the reference; nothing without a price."""
    if price is None:
        return Avoided()
    tokens = tally.tokens.astype(np.int64)
    answered = np.array(tally.answered)
    copies = tally.intake.copies
    served = answered != "refused"

    def worth(counts: NDArray[np.int64]) -> int:
        return price_tokens(int(counts.sum()), price)

    cached = worth(tokens[answered == "cache"])
    smaller = plan.dimensions < plan.model.default_dimensions
    return Avoided(
        cache=0 if smaller else cached,
        dimensions=cached if smaller else 0,
        repeats=worth((tokens * (copies - 1))[served]),
        local=worth(tokens[answered == "local"]),
    )


def to_result(
    tally: Tally, vectors: Floats, plan: Plan, done: Delivery, decision: str, price: Decimal | None
) -> Result:
    """The request's answer; its number in the books is filled in later."""
    intake = tally.intake
    model = done.model or plan.model
    if model.id != plan.model.id:
        decision = f"{decision} {plan.model.id} failed, so {model.id} answered."
    decision = " ".join([decision, *done.remarks()])
    routes = routes_in_order(tally)
    answered = list(tally.answered)
    served = [i for i, route in enumerate(answered) if route != "refused"]
    return Result(
        vectors=vectors,
        routes=routes,
        problems=tally.problems,
        model=model.id,
        space=model.space,
        dimensions=plan.dimensions,
        texts=intake.asked,
        distinct=len(intake.digests),
        repeated=routes.count("repeated"),
        counts=RouteCounts(
            cache=answered.count("cache"),
            local=answered.count("local"),
            api=answered.count("api"),
            batch=answered.count("batch"),
        ),
        tokens=int(tally.tokens[served].sum()),
        cost=done.charged,
        unconfirmed=done.unconfirmed,
        avoided=avoided(tally, plan, price),
        cut=tally.cut,
        exhausted=any(isinstance(e, BudgetExceeded) for e in tally.problems.values()),
        decision=decision,
        plan=plan,
        request=0,
    )


def to_outcome(result: Result, status: str, plan: Plan, error: RouterError | None, latency_ms: float) -> Outcome:
    """The request's row in the books."""
    return Outcome(
        status=status,
        model=result.model,
        space=result.space,
        dimensions=result.dimensions,
        texts=result.texts,
        distinct=result.distinct,
        repeated=result.repeated,
        routes=result.counts,
        refused=len(result.problems),
        tokens=result.tokens,
        charged=result.cost,
        unconfirmed=result.unconfirmed,
        avoided=result.avoided,
        latency_ms=latency_ms,
        decision=result.decision,
        candidates=to_candidates(plan.verdicts),
        error="" if error is None else error.message,
    )


def quote_lines(survey: Survey, outcome: Plan | Refusal, today: date) -> tuple[QuoteLine, ...]:
    """Each candidate of a quote, with what the texts would come to if nothing were cached or repeated."""
    copies, everything = survey.intake.copies, range(len(survey.intake.digests))
    lines = []
    for verdict in outcome.verdicts:
        model = verdict.model
        counts, guesses = survey.most(model, everything), survey.likely(model, everything)
        full, likely = (sum(int(n) * c for n, c in zip(copies, some, strict=True)) for some in (counts, guesses))
        price = price_on(model, today)
        usd = None if price is None else price.now
        lines.append(
            QuoteLine(
                verdict=verdict,
                full_tokens=full,
                full_expected_tokens=likely,
                distinct_tokens=sum(counts),
                full_cost=None if usd is None else price_tokens(full, usd),
                full_expected=None if usd is None else price_tokens(likely, usd),
            )
        )
    return tuple(lines)


def to_candidates(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Verdicts as JSON, for the drill-down of a request."""
    return [
        {
            "model": v.model.id,
            "route": v.route,
            "eligible": v.eligible,
            "chosen": v.chosen,
            "quality": v.quality,
            "cached": v.cached,
            "expected_usd": None if v.expected is None else to_json(v.expected),
            "cost_usd": None if v.cost is None else to_json(v.cost),
            "seconds": round(v.seconds, 3),
            "reason": v.reason,
        }
        for v in verdicts
    ]
