"""The end of a request: vectors into the order asked, and its row into the books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from router.dispatch.delivery import Delivery
from router.domain.errors import BadInput, BudgetExceeded, Refused, RouterError, StoreError
from router.domain.pricing import price_on
from router.domain.values import Ask, Facts, Model, Plan, Policy, Refusal, Role, Tokenizer
from router.pipeline.account import Tally, count_up, to_candidates, to_outcome, to_result
from router.pipeline.coverage import Survey
from router.pipeline.expand import Work, mean_of
from router.pipeline.results import Result
from router.pipeline.trace import to_json
from router.pipeline.validate import Intake
from router.providers.base import Floats
from router.store.usage import Outcome, Usage
from router.store.vectors import Cache, Damaged, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request on its way. `number` is its row in the books, once it has one."""

    policy: Policy
    role: Role
    ask: Ask
    progress: Callable[[int, int], None]
    started: float = field(default_factory=time.perf_counter)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    collection: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Everything about a request that was planned and carried out.

    `cached` are the full vectors of the distinct texts that the cache had, `(n, full)` float32, in their order.
    """

    asked: Request
    facts: Facts
    survey: Survey
    plan: Plan
    work: Work
    done: Delivery
    decision: str
    number: int | None
    cached: Floats

    @property
    def intake(self) -> Intake:
        """The texts."""
        return self.survey.intake


class Answers:
    """Makes results, and writes requests into the books."""

    def __init__(self, cache: Cache, usage: Usage, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._usage = usage
        self._clock = clock

    async def answer(self, end: Ending) -> Result:
        """The result of a request, booked.

        Raises:
            RouterError: a text was not embedded and the request is not `partial`; the rest is in the cache.
        """
        tally = count_up(end.intake, end.survey, end.plan, end.work, end.done)
        vectors = await self._vectors(end, tally)
        first = next(iter(tally.problems.values()), None)
        partial = end.asked.ask.partial
        status = "done" if first is None else "partial" if partial else "failed"
        price = self._reference_price(end.plan)
        result = to_result(tally, vectors, end.plan, end.done, end.decision, price)
        number = await self._usage.record(
            to_outcome(result, status, end.plan, first, _since(end.asked)),
            **_who(end.asked),
            request=end.number,
            **_kept(end.asked, end.survey, end.facts, tally.tokens, end.plan.model.tokenizer, likely=True),
        )
        if first is not None and not partial:
            first.message = f"{len(tally.problems):,} of {result.texts:,} texts were not embedded: {first.message}"
            raise first
        return replace(result, request=number)

    async def refuse(
        self, asked: Request, survey: Survey, facts: Facts, refusal: Refusal, decision: str
    ) -> RouterError:
        """Book a request that was refused before anything was spent; gives the error to raise."""
        intake = survey.intake
        outcome = Outcome(
            status="refused",
            texts=intake.asked,
            distinct=len(intake.digests),
            repeated=intake.asked - len(intake.digests) - len(intake.problems),
            refused=intake.asked,
            latency_ms=_since(asked),
            decision=decision,
            candidates=to_candidates(refusal.verdicts),
            error=refusal.reason,
        )
        await self._usage.record(outcome, **_who(asked), **_bounds(asked, survey, facts))
        return to_error(refusal)

    async def fail(
        self,
        asked: Request,
        survey: Survey,
        facts: Facts,
        plan: Plan,
        decision: str,
        number: int,
        error: RouterError,
    ) -> None:
        """Book a planned request that ended in an error; what it was charged is in the books already."""
        intake = survey.intake
        outcome = Outcome(
            status="refused" if isinstance(error, BudgetExceeded) else "failed",
            model=plan.model.id,
            space=plan.model.space,
            dimensions=plan.dimensions,
            texts=intake.asked,
            distinct=len(intake.digests),
            refused=intake.asked,
            latency_ms=_since(asked),
            decision=decision,
            candidates=to_candidates(plan.verdicts),
            error=error.message,
        )
        await self._usage.record(outcome, **_who(asked), request=number, **_bounds(asked, survey, facts))

    # ---- vectors ----

    async def _vectors(self, end: Ending, tally: Tally) -> Floats:
        """`(texts, dimensions)` float32 in the order asked."""
        intake, plan = end.intake, end.plan
        distinct = await asyncio.to_thread(self._gather, end, tally)
        await self._keep_wholes(end, distinct, tally)
        size = plan.dimensions
        if size < plan.model.dimensions:
            distinct = np.ascontiguousarray(distinct[:, :size])
            distinct /= np.linalg.norm(distinct, axis=1, keepdims=True)
        if len(intake.digests) == intake.asked:
            return distinct
        out = distinct[np.maximum(intake.places, 0)] if len(distinct) else np.empty((intake.asked, size), np.float32)
        out[intake.places < 0] = np.nan
        return out

    def _gather(self, end: Ending, tally: Tally) -> Floats:
        """Full vectors of the distinct texts, `(n, full)` float32; NaN for those with a problem."""
        model, digests, work, done = end.plan.model, end.intake.digests, end.work, end.done
        rows = end.survey.rows(model)
        if not work.units and not tally.failed:
            return end.cached
        out = np.full((len(digests), model.dimensions), np.nan, dtype=np.float32)
        out[[i for i, d in enumerate(digests) if d in rows]] = end.cached
        elsewhere = [u.digest for u in work.units if u.digest not in done.vectors and u.digest not in done.failed]
        units: Mapping[bytes, Floats] = done.vectors
        if elsewhere:
            units = {**done.vectors, **self._stored(elsewhere, end)}
        for index, key in work.whole.items():
            if index not in tally.failed:
                out[index] = units[key]
        for index, parts in work.parts.items():
            if index not in tally.failed:
                out[index] = mean_of(np.stack([units[key] for key, _ in parts]), [n for _, n in parts])
        return out

    def _stored(self, digests: Sequence[bytes], end: Ending) -> dict[bytes, Floats]:
        """Vectors that another request has stored in the meantime."""
        model = end.plan.model
        fits = [n for n, k in self._cache.kinds().items() if k.variant == "whole" and end.survey.fits(k, model)]
        found = self._cache.lookup(digests)
        rows = {digest: row for number in fits for digest, row in found.get(number, {}).items()}
        try:
            return dict(zip(rows, self._cache.fetch(list(rows.values()), model.dimensions), strict=True))
        except Damaged as exc:
            self._cache.remove_now(exc.rows)
            raise StoreError("A cached vector was erased while it was being read.", "Try again.") from exc

    async def _keep_wholes(self, end: Ending, distinct: Floats, tally: Tally) -> None:
        """Store the mean vectors of over-long texts under their own digests, marked as what they are."""
        model, work = end.plan.model, end.work
        made = [i for i in work.parts if i not in tally.failed]
        if made:
            await self._cache.store(
                kind_of(model, end.asked.role, work.variant),
                [end.intake.digests[i] for i in made],
                end.survey.likely(model, made),
                distinct[made],
            )

    def _reference_price(self, plan: Plan) -> Decimal | None:
        if plan.reference is None:
            return None
        price = price_on(plan.reference, datetime.fromtimestamp(self._clock(), UTC).date())
        return None if price is None else price.now


def to_error(refusal: Refusal) -> RouterError:
    """What to raise for a refusal."""
    message, hint = f"Refused: {refusal.reason}", refusal.hint
    if refusal.kind == "budget":
        return BudgetExceeded(message, hint, shortfall=refusal.shortfall)
    if refusal.kind == "input":
        return BadInput(message, hint)
    return Refused(message, hint)


def _kept(
    asked: Request, survey: Survey, facts: Facts, tokens: NDArray[np.uint32], tokenizer: Tokenizer, *, likely: bool
) -> Kept:
    intake = survey.intake
    counts = (tokens.astype("<u4").tobytes(), intake.copies.astype("<u4").tobytes())

    def cached(model: Model) -> list[bool]:
        rows = survey.rows(model)
        return [d in rows for d in intake.digests]

    return {
        "replay": (b"".join(intake.digests), *counts),
        "facts": to_json(facts, asked.ask, asked.policy.long_texts, tokenizer, cached, likely=likely),
    }


def _bounds(asked: Request, survey: Survey, facts: Facts) -> Kept:
    """Where no model was chosen, whose tokens would have been counted: the bound that needs no counting."""
    counts = survey.count("bytes", range(len(survey.intake.digests)))
    return _kept(asked, survey, facts, np.array(counts, dtype=np.uint32), "bytes", likely=False)


def _since(asked: Request) -> float:
    return (time.perf_counter() - asked.started) * 1000


def _who(asked: Request) -> Who:
    return {
        "policy": asked.policy.name,
        "version": asked.policy.version,
        "collection": asked.collection,
        "role": asked.role,
    }


class Kept(TypedDict):
    """What replay needs, as the books want it."""

    replay: tuple[bytes, bytes, bytes]
    facts: str


class Who(TypedDict):
    """Whose request it was, as the books want it."""

    policy: str
    version: int
    collection: str
    role: str
