"""What stops a job: a price that rose, a model that changed, money that is gone, a provider that does not answer.

Everything here turns an error into what becomes of the job, in words that a person can act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from router.domain.errors import BadInput, BudgetExceeded, ProviderError, Refused, RouterError, StoreBusy, StoreError
from router.domain.explain import money_left, sentence
from router.domain.policy import find_zone
from router.domain.pricing import rate
from router.domain.values import Model
from router.engine import Router
from router.store.collections import Corpora
from router.store.jobs import Job, JobState
from router.store.models import Generation

FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 600.0


class Stop(Exception):
    """A job cannot go on for now."""

    def __init__(self, state: JobState, reason: str, wake: float | None = None) -> None:
        super().__init__(reason)
        self.state: JobState = state
        self.reason = reason
        self.wake = wake


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the problems of a block come to.

    Attributes:
        stop: an error that would meet every other text too, or None.
        failed: texts that failed by themselves, by position: why, and whether for good.
        passing: an error that passes by itself, or None.
    """

    stop: RouterError | None
    failed: Mapping[int, tuple[str, bool]]
    passing: RouterError | None


def judge(problems: Mapping[int, RouterError]) -> Judgement:
    """Tell what stops the job from what is wrong with single texts."""
    stop: RouterError | None = None
    passing: RouterError | None = None
    failed: dict[int, tuple[str, bool]] = {}
    for at, error in problems.items():
        if error.stops_job:
            # The disk before the money: with a full disk nothing that is paid for can be kept.
            if stop is None or isinstance(error, StoreError):
                stop = error
        elif not error.passes:
            failed[at] = (str(error), True)
        else:
            passing = error
            if isinstance(error, ProviderError) and error.billed != "no":
                failed[at] = (str(error), False)
    return Judgement(stop=stop, failed=failed, passing=passing)


def stop_for(router: Router, job: Job, error: RouterError, pauses: int) -> Stop:
    """What becomes of a job that met this error; `pauses` is how often in a row it has waited already."""
    if isinstance(error, BudgetExceeded):
        return _out_of_money(router, job, error)
    soon = router.clock() + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(pauses, 10))
    if isinstance(error, StoreBusy):
        return Stop("waiting", str(error), soon)
    unavailable = isinstance(error, Refused) and router.limiters[job.model.split("/", 1)[0]].unhealthy()
    if unavailable or (isinstance(error, ProviderError) and not error.stops_job):
        return Stop("waiting", f"{error} It is tried again by itself.", soon)
    return Stop("paused", str(error))


def _out_of_money(router: Router, job: Job, error: BudgetExceeded) -> Stop:
    """Wait for the next window where the policy says so and one is coming; else stop."""
    policy = router.policies.get(job.policy)
    hard = [state for state in router.ledger.states(job.policy) if state.budget.hard]
    tight = min(hard, key=lambda s: s.budget.amount if s.budget.window == "request" else s.left, default=None)
    if tight is None:
        return Stop("paused", str(error))
    short = sentence(money_left(tight))
    if policy.when_exhausted != "wait" or tight.resets is None:
        return Stop("paused", f"{short} Raise the budget, then resume; what was embedded stays.")
    at = tight.resets.astimezone(find_zone(policy.timezone))
    return Stop(
        "waiting", f"{short} It goes on by itself on {at.day} {at:%B} at {at:%H:%M} ({policy.timezone}).",
        tight.resets.timestamp(),
    )  # fmt: skip


def current_price(router: Router, model: Model, route: str) -> Decimal | None:
    """USD per million tokens today, by this route; None where it is not known or not sold."""
    return rate(model, datetime.fromtimestamp(router.clock(), UTC).date(), batch=route == "batch")


def check_price(router: Router, job: Job) -> None:
    """Raise Stop where the price rose since it was agreed to."""
    if job.route == "local":
        return
    price = current_price(router, router.catalog.get(job.model), job.route)
    if price is None:
        raise Stop("paused", f"The price of {job.model} is no longer known. Add it to the catalog, then resume.")
    if price > Decimal(job.price_checked):
        raise Stop(
            "paused",
            f"The price of {job.model} rose from ${job.price_checked} to ${price} per million tokens. Resume to agree.",
        )


def check_model(router: Router, corpora: Corpora, job: Job) -> Generation:
    """The generation that the job makes, if its model is still the one that it was begun with.

    Raises:
        Stop: it is gone, or changed; or the generation was dropped.
    """
    generation = corpora.generation(job.generation)
    if generation is None:
        raise Stop("failed", "What it was to embed was dropped or deleted.")
    try:
        model = router.catalog.get(job.model)
    except BadInput as error:
        raise Stop("paused", f"The catalog no longer has {job.model}. {error.hint}") from error
    if model.space != generation.space or not model.serves(generation.dimensions):
        raise Stop(
            "paused",
            f"{job.model} has changed: it is now of the space {model.space} with {model.dimensions} dimensions, and the"
            f" collection is of {generation.space} with {generation.dimensions}. Its vectors must not be mixed.",
        )
    return generation
