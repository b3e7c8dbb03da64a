"""Which model answers a request, and why not the others: a pure function, so that every choice can be replayed.

Clock, prices, balances, health and cache coverage are arguments; nothing else is looked at. A candidate must
pass all gates (`_faults`); among those that pass, the goal orders; money then says whether the first of the
order stands, another takes its place, or the request is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Literal

from router.domain import money
from router.domain.catalog import quality
from router.domain.explain import budget_name, money_left, retirement, sentence
from router.domain.pace import pace_of
from router.domain.policy import allows, find_zone
from router.domain.values import Ask, BudgetState, CandidateFacts, Facts, Model, Plan, Policy, Refusal, Route, Verdict

Gate = Literal[
    "pin", "dimensions", "allow", "retired", "local_only", "quality", "long_texts", "configured", "healthy", "paid",
    "price",
]  # fmt: skip
Kind = Literal["policy", "input", "paid_off", "not_configured"]
Criterion = Literal["cost", "quality", "seconds"]

_ECONOMY: tuple[Criterion, ...] = ("cost", "quality", "seconds")
_QUALITY: tuple[Criterion, ...] = ("quality", "cost")

# What a refusal says when no candidate gets past a gate. In the order in which gates are tried.
_STOPPED: dict[Gate, tuple[Kind, str]] = {
    "pin": ("input", "Name a model that the catalog has, in the collection's own space."),
    "dimensions": ("input", "Ask for dimensions that a model serves, or leave them out."),
    "allow": ("policy", "Widen the policy's allow list, or use another policy."),
    "retired": ("policy", "Use a model that stays; one that is still served can be named, here or on the allow list."),
    "local_only": ("policy", "Use a policy that may call paid models."),
    "quality": ("policy", "Lower the policy's least quality, or allow a better model."),
    "long_texts": ("input", "Shorten the texts, or let the policy split them."),
    "configured": ("not_configured", "Set the provider's key, or allow a local model."),
    "healthy": ("not_configured", "Try again in a few minutes, or allow another provider."),
    "paid": ("paid_off", "Switch paid calls on again, or allow a local model."),
    "price": ("policy", "Add the model's price to the catalog, or allow a model whose price is known."),
}
_GATES = tuple(_STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """A candidate with what follows from the policy; the verdict's reason is still open.

    The most that it can cost says what fits; what it will likely cost gives the order. Both are 0 where unknown.
    """

    verdict: Verdict
    facts: CandidateFacts
    faults: tuple[tuple[Gate, str], ...]

    @property
    def model(self) -> Model:
        return self.facts.model

    @property
    def quality(self) -> float | None:
        return self.verdict.quality

    @property
    def cost(self) -> int:
        return self.verdict.cost or 0

    @property
    def expected(self) -> int:
        return self.verdict.expected or 0

    def only_stopped_by(self, *gates: Gate) -> bool:
        return all(gate in gates for gate, _ in self.faults)


def decide(ask: Ask, policy: Policy, facts: Facts, scale: str = "RTEB-en") -> Plan | Refusal:
    """Choose a candidate for a request under a (valid) policy, or refuse; never raises, never guesses.

    Candidates are ordered by what they will likely cost; whether one fits is judged by the most that it can cost.
    `when_exhausted` of the policy says what scarce money does. `local`: the best of what fits into every hard
    budget, else a local model even below the least quality, else (call by call, where some money is left or the space
    is pinned) the cheapest, which the ledger stops in time, else a refusal. `wait` and `refuse`: the choice is made as
    if the money sufficed; where it does not, work that goes call by call is planned all the same (the ledger stops it)
    and a request is refused, or under economy goes to the next that fits.
    `fell_back` is set where the chosen model is local and, with money enough at the same pace, would be paid.
    """
    options = [_option(candidate, ask, policy, facts, scale) for candidate in facts.candidates]
    eligible = [option for option in options if not option.faults]
    if not eligible:
        return _stopped(options)
    choice = _Choice(ask=ask, policy=policy, facts=facts, scale=scale, options=options, eligible=eligible)
    criteria = _criteria(policy, facts, ask)
    best = _first(eligible, criteria)
    fitting = [option for option in eligible if _missing(option, facts) == 0]
    least = min(eligible, key=lambda option: (option.cost, option.model.id))
    if policy.when_exhausted != "local":
        if best in fitting or ask.partial:
            return choice.plan(best, eligible, criteria)
        if criteria is _QUALITY or not fitting:
            return choice.refusal(best if criteria is _QUALITY else least, criteria)
    if fitting:
        return choice.plan(_first(fitting, criteria), fitting, criteria)
    if waived := [o for o in options if o.model.local and o.only_stopped_by("quality")]:
        return choice.plan(_first(waived, criteria), waived, criteria)
    pinned = ask.pinned_space is not None or ask.pinned_model is not None
    if ask.partial and (pinned or _tightest(facts).left > 0):
        return choice.plan(_first(eligible, _ECONOMY), eligible, _ECONOMY)
    return choice.refusal(least, _ECONOMY)


# ---- gates -------------------------------------------------------------------------------------


def _option(candidate: CandidateFacts, ask: Ask, policy: Policy, facts: Facts, scale: str) -> _Option:
    model, cached = candidate.model, candidate.misses <= 0
    tokens = 0 if cached else candidate.tokens
    likely = min(tokens, candidate.expected_tokens)
    price, batch_price = candidate.price, candidate.batch_price
    route: Route = "cache" if cached else "local" if model.local else "api"
    if route == "api" and policy.deadline == "24h" and ask.partial and batch_price is not None:
        route, price = "batch", batch_price
    if cached or model.local:
        price = Decimal(0)
    if model.local:
        batch_price = None

    def cost(of: int, usd: Decimal | None) -> int | None:
        return None if usd is None else money.price_tokens(of, usd)

    score = quality(model, scale)
    faults = tuple(_faults(candidate, score, price is not None, ask, policy, facts, scale))
    verdict = Verdict(
        model=model,
        route=route,
        eligible=not faults,
        chosen=False,
        reason=faults[0][1] if faults else "",
        quality=score,
        cached=candidate.cached,
        texts=candidate.texts,
        tokens=candidate.tokens,
        expected_tokens=min(candidate.tokens, candidate.expected_tokens),
        cost=cost(tokens, price),
        expected=cost(likely, price),
        batch_cost=cost(tokens, batch_price),
        expected_batch=cost(likely, batch_price),
        seconds=candidate.seconds,
    )
    return _Option(verdict=verdict, facts=candidate, faults=faults)


def _faults(
    candidate: CandidateFacts, quality: float | None, priced: bool, ask: Ask, policy: Policy, facts: Facts, scale: str
) -> Iterator[tuple[Gate, str]]:
    """Every gate that the candidate does not pass, in order. Texts that are cached need no key, health or price."""
    model, misses = candidate.model, candidate.misses > 0
    if ask.pinned_space is not None and model.space != ask.pinned_space:
        who = "the request" if ask.collection is None else f"the collection '{ask.collection}'"
        yield "pin", f"{who} is pinned to space {ask.pinned_space}"
    elif ask.pinned_model is not None and model.id != ask.pinned_model:
        yield "pin", f"the request names the model {ask.pinned_model}"
    if ask.dimensions is not None and not model.serves(ask.dimensions):
        yield "dimensions", f"does not serve {ask.dimensions} dimensions"
    if not allows(policy, model.id):
        yield "allow", f"is not on the allow list of the policy '{policy.name}'"
    if misses and (end := _end(model, ask, policy, facts.now.date())):
        yield "retired", end
    if policy.local_only and not model.local:
        yield "local_only", f"the policy '{policy.name}' allows local models only"
    if policy.min_quality is not None and quality is None:
        yield "quality", f"has no score on {scale} and the policy asks for {policy.min_quality:g}"
    elif policy.min_quality is not None and quality is not None and quality < policy.min_quality:
        yield "quality", f"scores {quality:g} on {scale}, below the policy's {policy.min_quality:g}"
    if candidate.over_long > 0 and policy.long_texts == "refuse":
        longer = "a text is" if candidate.over_long == 1 else f"{candidate.over_long:,} texts are"
        limit = "it takes" if model.limits.tokens_per_text is None else f"its {model.limits.tokens_per_text:,} tokens"
        yield "long_texts", f"{longer} longer than {limit} and the policy refuses long texts"
    if misses and not candidate.configured:
        yield "configured", "is not installed" if model.local else f"no key for {model.provider} is set"
    if misses and candidate.unhealthy:
        yield "healthy", f"is temporarily unavailable: {candidate.unhealthy}"
    if misses and not model.local and not facts.paid_enabled:
        yield "paid", "paid calls are switched off"
    if misses and not priced:
        yield "price", "its price is not known, so it is not called"


def _end(model: Model, ask: Ask, policy: Policy, today: date) -> str:
    """Why a model is not called because its vendor retires it, or ""; soon it is called only where it was named."""
    if model.retired(today):
        return f"was retired by its vendor on {model.retires}"
    if not model.retiring(today) or ask.pinned_space is not None or model.id in policy.allow:
        return ""
    return f"{retirement(model, today)}, so it is called only where it is named"


def _stopped(options: list[_Option]) -> Refusal:
    """The refusal when no candidate passes all gates: the gate that the furthest of them got to is the reason."""
    if not options:
        return Refusal(reason="No model is known.", hint="Check the catalog.", kind="not_configured", verdicts=())
    gate = max((option.faults[0][0] for option in options), key=_GATES.index)
    stopped: dict[str, list[str]] = {}
    for option in options:
        if option.faults[0][0] == gate:
            stopped.setdefault(option.faults[0][1], []).append(option.model.id)
    why = "; ".join(f"{_some(ids)}: {fault}" for fault, ids in stopped.items())
    kind, hint = _STOPPED[gate]
    verdicts = tuple(option.verdict for option in options)
    return Refusal(reason=f"No model may serve this: {why}.", hint=hint, kind=kind, verdicts=verdicts)


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


# ---- orders ------------------------------------------------------------------------------------


def _rank(option: _Option, criterion: Criterion) -> tuple[bool, float]:
    if criterion == "quality":
        return option.quality is None, -(option.quality or 0.0)
    return False, option.expected if criterion == "cost" else option.facts.seconds


def _first(options: list[_Option], criteria: tuple[Criterion, ...]) -> _Option:
    return min(options, key=lambda option: ([_rank(option, c) for c in criteria], option.model.id))


def _to_cheapest_of_family(policy: Policy, ask: Ask) -> bool:
    return policy.queries == "cheapest" and ask.role == "query" and ask.collection is not None and not ask.pinned_model


def _criteria(policy: Policy, facts: Facts, ask: Ask) -> tuple[Criterion, ...]:
    if _to_cheapest_of_family(policy, ask):
        return _ECONOMY
    if policy.goal == "balanced":
        pace = pace_of(facts)
        return _QUALITY if pace is None or pace.on_pace else _ECONOMY
    return _QUALITY if policy.goal == "quality" else _ECONOMY


# ---- money -------------------------------------------------------------------------------------


def _hard(facts: Facts) -> list[BudgetState]:
    return [state for state in facts.budgets if state.budget.hard]


def _tightest(facts: Facts) -> BudgetState:
    """The hard budget with the least room; only asked where something does not fit, so there is one."""
    return min(_hard(facts), key=lambda state: state.left)


def _missing(option: _Option, facts: Facts) -> int:
    """Nanodollars by which the tightest hard budget is too small for the option; 0 where it fits."""
    return max(0, max((option.cost - state.left for state in _hard(facts)), default=0))


# ---- what is handed back -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """A decision that got past the gates, and the words for it."""

    ask: Ask
    policy: Policy
    facts: Facts
    scale: str
    options: list[_Option]
    eligible: list[_Option]

    def plan(self, chosen: _Option, pool: list[_Option], criteria: tuple[Criterion, ...]) -> Plan:
        """The plan for `chosen`, the first of `pool` by these criteria."""
        best = _first(self.eligible, _criteria(self.policy, self.facts, self.ask))
        fell_back = chosen.model.local and not best.model.local
        reason = sentence(self._why(chosen, best, pool, criteria))
        return Plan(
            model=chosen.model,
            route=chosen.verdict.route,
            cost=chosen.cost,
            expected=chosen.expected,
            dimensions=self.ask.dimensions or chosen.model.default_dimensions,
            reference=self._reference(chosen),
            fell_back=fell_back,
            reason=reason,
            verdicts=self._verdicts(chosen, reason, pool, criteria),
        )

    def refusal(self, wanted: _Option, criteria: tuple[Criterion, ...]) -> Refusal:
        """The refusal because `wanted`, the choice or the one that needs least, does not fit."""
        missing = _missing(wanted, self.facts)
        pool = [option for option in self.eligible if _missing(option, self.facts) == 0]
        return Refusal(
            reason=sentence(f"{money_left(_tightest(self.facts))}; {money.show(missing)} more is needed"),
            hint=self._way_out(wanted),
            kind="budget",
            verdicts=self._verdicts(wanted, None, pool, criteria),
            shortfall=missing,
        )

    def _verdicts(
        self, ahead: _Option, reason: str | None, pool: list[_Option], criteria: tuple[Criterion, ...]
    ) -> tuple[Verdict, ...]:
        """`ahead` is the chosen one, for `reason`; or, where that is None, the one that was wanted and does not fit."""
        verdicts = []
        for option in self.options:
            verdict = option.verdict
            if option is ahead and reason is not None:
                verdict = replace(verdict, eligible=True, chosen=True, reason=reason)
            elif option in pool and not option.faults:
                verdict = replace(verdict, reason=self._behind(option, ahead, criteria))
            elif not option.faults:
                more, budget = money.show(_missing(option, self.facts)), budget_name(_tightest(self.facts))
                verdict = replace(verdict, reason=f"does not fit: {more} more is needed in {budget}")
            verdicts.append(verdict)
        return tuple(verdicts)

    def _behind(self, option: _Option, ahead: _Option, criteria: tuple[Criterion, ...]) -> str:
        """Why `ahead` comes before `option` in this order."""
        for criterion in criteria:
            if _rank(option, criterion) == _rank(ahead, criterion):
                continue
            if criterion == "cost":
                return f"costs {money.show(option.expected - ahead.expected)} more"
            if criterion == "seconds":
                return f"takes {option.facts.seconds - ahead.facts.seconds:.1f} s longer"
            ours = f"has no score on {self.scale}" if option.quality is None else f"scores {option.quality:g}"
            return f"{ours} against {ahead.quality:g}"
        return "is equal and comes later by name"

    def _why(self, chosen: _Option, best: _Option, pool: list[_Option], criteria: tuple[Criterion, ...]) -> str:
        """The plan's reason; `best` is what the goal would take if the money sufficed."""
        if chosen.model.local and not best.model.local:
            below = ", though it is below the policy's least quality" if chosen.faults else ""
            left = money_left(_tightest(self.facts))
            return f"{left}, too little for {best.model.id}; using the local model {chosen.model.id}{below}"
        why = self._by_goal(chosen, pool, criteria)
        if missing := _missing(chosen, self.facts):
            budget = budget_name(_tightest(self.facts))
            return f"{why}; it may cost {money.show(missing)} more than {budget} allows, and the work stops there"
        if chosen is best:
            return why
        return f"{why}; {best.model.id} does not fit into {budget_name(_tightest(self.facts))}"

    def _by_goal(self, chosen: _Option, pool: list[_Option], criteria: tuple[Criterion, ...]) -> str:
        ask, name = self.ask, chosen.model.id
        if len(self.eligible) == 1:
            if ask.collection is not None and ask.pinned_space is not None:
                return f"the collection '{ask.collection}' is pinned to space {ask.pinned_space}, which {name} serves"
            if ask.pinned_model is not None:
                return f"{name} is the model that the request names"
            return f"{name} is the only model that may serve this"
        if _to_cheapest_of_family(self.policy, ask):
            best = _first(self.eligible, _QUALITY)
            less = money.show(max(0, best.expected - chosen.expected))
            family = f"queries go to the cheapest of the family {chosen.model.space}, {name}"
            return f"{family}: {less} less than {best.model.id}"
        superlative = "cheapest" if criteria is _ECONOMY else "best"
        score = f", with {chosen.quality:g} on {self.scale}" if chosen.quality is not None else ""
        place = "the only model that fits" if len(pool) == 1 else f"the {superlative} of {len(pool)}"
        paid = any(not option.model.local for option in self.eligible)
        pace = pace_of(self.facts) if self.policy.goal == "balanced" and paid else None
        if pace is None:
            return f"{name} is {place}{score}"
        if pace.on_pace:
            return f"{pace}, which is on pace; {name} is {place}{score}"
        return f"{pace}; using {'the local model' if chosen.model.local else f'{name}, the cheapest,'} today"

    def _way_out(self, wanted: _Option) -> str:
        """What may be done about a budget that is too small, leaving out what would not help."""
        tight = [state for state in _hard(self.facts) if state.left < wanted.cost]
        ways = ["raise the account budget" if _tightest(self.facts).owner == "account" else "raise the budget"]
        resets = [s.resets for s in tight if s.resets is not None and s.budget.amount >= wanted.cost]
        if len(resets) == len(tight):
            day = max(resets).astimezone(find_zone(self.policy.timezone))
            ways.append(f"wait until {day.day} {day:%B}")
        if any(option.model.local and option.only_stopped_by("quality") for option in self.options):
            ways.append("use the local model")
        elif any(option.model.local and option.only_stopped_by("quality", "allow") for option in self.options):
            ways.append("allow the local model")
        return sentence(ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])}, or {ways[-1]}")

    def _reference(self, chosen: _Option) -> Model | None:
        """The model at whose price saved money is counted: the plan's own, else the cheapest paid one allowed."""
        if not chosen.model.local and chosen.facts.price is not None:
            return chosen.model
        if self.policy.local_only:
            return None
        paid = [
            (option.facts.price, _rank(option, "quality"), option.model.id, option.model)
            for option in self.options
            if option.facts.price is not None and not option.model.local and allows(self.policy, option.model.id)
        ]
        return min(paid, key=lambda entry: entry[:3])[3] if paid else None
