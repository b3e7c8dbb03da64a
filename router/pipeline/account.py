"""What became of a request: who answered which text, what it cost, what was saved; and the usage's record of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from router.dispatch.delivery import Delivery
from router.domain.errors import BudgetExceeded, RouterError
from router.domain.money import price_tokens, to_json
from router.domain.pricing import rate, saved
from router.domain.values import Facts, Plan, Refusal, RouteCounts, Tokenizer, Verdict
from router.pipeline.expand import Work
from router.pipeline.lookup import Lookup
from router.pipeline.request import Planned, Request
from router.pipeline.results import QuoteLine, Result, TextRoute
from router.pipeline.trace import facts_to_json
from router.pipeline.validate import ValidTexts
from router.providers.base import Floats
from router.store.usage import Outcome, Usage


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

    tokens: NDArray[np.uint32] = field(repr=False)
    answered: Sequence[TextRoute] = field(repr=False)
    failed: Mapping[int, RouterError]
    problems: Mapping[int, RouterError]
    cut: tuple[int, ...]


def count_up(planned: Planned, work: Work, done: Delivery) -> Tally:
    """Who answered which text."""
    lookup, plan = planned.lookup, planned.plan
    valid = lookup.valid
    answered: list[TextRoute] = ["cache"] * len(valid.digests)
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
    problems: dict[int, RouterError] = dict(valid.problems)
    if failed:
        problems.update({p: failed[i] for p, i in enumerate(valid.places.tolist()) if i in failed})
    cut: tuple[int, ...] = ()
    if work.variant == "cut":
        before = lookup.found.cut(plan.model)
        which = {i for i, d in enumerate(valid.digests) if (i in work.parts or d in before) and i not in failed}
        cut = tuple(p for p, i in enumerate(valid.places.tolist()) if i in which) if which else ()
    return Tally(
        tokens=lookup.tokens(plan.model),
        answered=answered,
        failed=failed,
        problems=dict(sorted(problems.items())),
        cut=cut,
    )


def routes_in_order(valid: ValidTexts, answered: Sequence[TextRoute]) -> tuple[TextRoute, ...]:
    """How each text asked was answered; every copy after the first is `repeated`."""
    if len(valid.digests) == valid.asked:
        return tuple(answered)
    routes: list[TextRoute] = []
    seen: set[int] = set()
    for index in valid.places.tolist():
        if index < 0 or answered[index] == "refused":
            routes.append("refused")
        else:
            routes.append("repeated" if index in seen else answered[index])
            seen.add(index)
    return tuple(routes)


def to_result(planned: Planned, tally: Tally, vectors: Floats, done: Delivery, day: date) -> Result:
    """The request's answer; its number in the usage is filled in later."""
    plan, valid, decision = planned.plan, planned.lookup.valid, planned.decision
    model = done.model or plan.model
    if model.id != plan.model.id:
        decision = f"{decision} {plan.model.id} failed, so {model.id} answered."
    routes = routes_in_order(valid, tally.answered)
    answered, tokens = np.array(tally.answered), tally.tokens.astype(np.int64)
    served, cached = answered != "refused", answered == "cache"
    return Result(
        vectors=vectors,
        routes=routes,
        problems=tally.problems,
        model=model.id,
        space=model.space,
        dimensions=plan.dimensions,
        texts=valid.asked,
        distinct=len(valid.digests),
        repeated=routes.count("repeated"),
        counts=RouteCounts(**{name: tally.answered.count(name) for name in ("cache", "local", "api", "batch")}),
        tokens=int(tokens[served].sum()),
        cost=done.charged,
        unconfirmed=done.unconfirmed,
        saved=saved(
            plan,
            day,
            cached=int(tokens[cached].sum()),
            repeated=int((tokens * (valid.copies - 1))[served].sum()),
            made=int(tokens[served & ~cached].sum()),
        ),
        cut=tally.cut,
        exhausted=any(isinstance(e, BudgetExceeded) for e in tally.problems.values()),
        decision=" ".join([decision, *done.remarks()]),
        plan=plan,
        request=0,
    )


# ---- the usage's record ----


def outcome_of(request: Request, result: Result, error: RouterError | None) -> Outcome:
    """An answered request; `error` is why the first text without a vector has none."""
    return Outcome(
        status="done" if error is None else "partial" if request.ask.partial else "failed",
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
        saved=result.saved,
        latency_ms=request.milliseconds,
        decision=result.decision,
        candidates=to_candidates(result.plan.verdicts),
        error="" if error is None else error.message,
    )


def outcome_of_refusal(request: Request, valid: ValidTexts, refusal: Refusal, decision: str) -> Outcome:
    """A request that was refused before anything was spent."""
    repeated = valid.asked - len(valid.digests) - len(valid.problems)
    return replace(_unanswered(request, valid, refusal, decision, refusal.reason), repeated=repeated)


def outcome_of_failure(request: Request, planned: Planned, error: RouterError) -> Outcome:
    """A planned request that ended in an error; what it was charged is in the ledger."""
    plan = planned.plan
    return replace(
        _unanswered(request, planned.lookup.valid, plan, planned.decision, error.message),
        status="refused" if isinstance(error, BudgetExceeded) else "failed",
        model=plan.model.id,
        space=plan.model.space,
        dimensions=plan.dimensions,
    )


def _unanswered(request: Request, valid: ValidTexts, choice: Plan | Refusal, decision: str, why: str) -> Outcome:
    return Outcome(
        status="refused",
        texts=valid.asked,
        distinct=len(valid.digests),
        refused=valid.asked,
        latency_ms=request.milliseconds,
        decision=decision,
        candidates=to_candidates(choice.verdicts),
        error=why,
    )


async def record(
    usage: Usage,
    request: Request,
    lookup: Lookup,
    facts: Facts,
    outcome: Outcome,
    *,
    tokenizer: Tokenizer = "bytes",
    tokens: NDArray[np.uint32] | None = None,
) -> int:
    """Write a request and what its decision knew; returns its number.

    `tokens` are the likely ones of its distinct texts, by the tokenizer of the model that answered; without them the
    bound stands in that needs no counting.
    """
    valid, likely = lookup.valid, tokens is not None
    if tokens is None:
        tokens = np.array(lookup.count("bytes", range(len(valid.digests))), dtype=np.uint32)
    trace = facts_to_json(
        facts, request.ask, request.policy.long_texts, tokenizer,
        lambda model: [digest in lookup.rows(model) for digest in valid.digests], likely=likely,
    )  # fmt: skip
    return await usage.record(
        outcome,
        policy=request.policy.name,
        version=request.policy.version,
        collection=request.collection,
        role=request.role,
        request=request.number,
        replay=(b"".join(valid.digests), tokens.astype("<u4").tobytes(), valid.copies.astype("<u4").tobytes()),
        facts=trace,
    )


# ---- quotes ----


def quote_lines(lookup: Lookup, outcome: Plan | Refusal, day: date) -> tuple[QuoteLine, ...]:
    """Each candidate of a quote, with what the texts would come to if nothing were cached or repeated."""
    copies, everything = lookup.valid.copies, range(len(lookup.valid.digests))
    lines = []
    for verdict in outcome.verdicts:
        model = verdict.model
        counts, guesses = lookup.most(model, everything), lookup.likely(model, everything)
        full, likely = (sum(int(n) * c for n, c in zip(copies, some, strict=True)) for some in (counts, guesses))
        usd = rate(model, day)
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
    """Verdicts as JSON, for the details of a request."""
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
