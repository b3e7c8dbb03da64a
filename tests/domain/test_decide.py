"""The decision: its properties under Hypothesis against an oracle written apart, then its rules one by one."""

import copy
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from router.domain import money
from router.domain.decide import decide
from router.domain.values import (
    Ask,
    Budget,
    BudgetState,
    CandidateFacts,
    Facts,
    Limits,
    Model,
    Plan,
    Policy,
    Refusal,
    Score,
)

SCALE = "RTEB-en"


def model(id_, space=None, quality=None, dimensions=1024, sizes=()):
    provider, name = id_.split("/")
    scores = () if quality is None else (Score(scale=SCALE, value=quality, source="x", checked=date(2026, 11, 1)),)
    return Model(
        id=id_, provider=provider, name=name, space=space or id_, dimensions=dimensions, default_dimensions=dimensions,
        sizes=sizes, tokenizer="bytes", limits=Limits(texts_per_call=100, tokens_per_text=256), scores=scores,
    )  # fmt: skip


MINI = model("local/mini", quality=42.7, dimensions=384)
STATIC = model("local/static", dimensions=256)
SMALL = model("openai/small", quality=54.8, dimensions=1536, sizes="any")
LARGE = model("openai/large", quality=62.0, dimensions=3072, sizes="any")
VOYAGE = model("voyage/4", space="voyage-4", quality=76.3, sizes=(512, 256))
LITE = model("voyage/4-lite", space="voyage-4", quality=73.9, sizes=(512, 256))
OLD = model("voyage/old")
EQUAL = model("cohere/equal", quality=54.8)
MODELS = (MINI, STATIC, SMALL, LARGE, VOYAGE, LITE, OLD, EQUAL)
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


# ---- generated worlds


def mostly(usual, *rare):
    return st.sampled_from([*[usual] * 7 * len(rare), *rare])


prices = mostly(Decimal("0.06"), Decimal("0.02"), Decimal("0.13"), None)
loads = st.lists(
    st.tuples(
        st.sampled_from(MODELS),
        st.sampled_from([0, 0, 3, 6]),  # cached, of six
        st.integers(1, 100),  # tokens a text
        mostly(0, 1),  # over-long
        st.sampled_from([0.0, 1.0]),  # seconds
        mostly("", "no key", "down"),
        prices,
        prices,
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda load: load[0].id,
)
funds = st.lists(
    st.tuples(
        st.sampled_from(["request", "day", "week", "month", "total"]),
        st.sampled_from([500, 2_000, 10_000, 30_000, 10**9]),
        st.sampled_from([0, 0, 1_000, 20_000]),  # used
        mostly(True, False),  # hard
        st.sampled_from([0.0, 0.2, 0.3, 0.45, 1.0]),  # pace used
        st.sampled_from([0.0, 0.3, 0.9]),  # pace elapsed
        st.sampled_from(["account", "policy/p"]),
    ),
    max_size=2,
)


def candidate_from(load):
    one, cached, tokens, over_long, seconds, trouble, price, batch_price = load
    return CandidateFacts(
        model=one,
        texts=6,
        cached=cached,
        tokens=tokens * (6 - cached),
        over_long=over_long if cached < 6 else 0,
        seconds=seconds,
        configured=trouble != "no key",
        unhealthy="five failures in a row" if trouble == "down" else "",
        price=None if one.local else price,
        batch_price=None if one.local else batch_price,
    )


def budget_from(fund):
    window, amount, used, hard, pace_used, pace_elapsed, owner = fund
    paced = window in ("day", "week", "month")
    return BudgetState(
        owner=owner,
        budget=Budget(amount=amount, window=window, hard=hard),
        used=0 if window == "request" else used,
        resets=DECEMBER if paced else None,
        pace_used=pace_used if paced else None,
        pace_elapsed=pace_elapsed if paced else None,
        day_of_window=10,
        days_in_window=30,
    )


asks = st.builds(
    lambda pin, one, dimensions, partial, collection: Ask(
        pinned_space=one.space if "s" in pin else None,
        pinned_model=one.id if "m" in pin else None,
        dimensions=dimensions,
        partial=partial,
        collection=collection,
    ),
    mostly("", "s", "m", "sm"),
    st.sampled_from(MODELS),
    mostly(None, 256, 1536),
    st.booleans(),
    st.sampled_from([None, "c"]),
)
policies = st.builds(
    Policy,
    name=st.just("p"),
    goal=st.sampled_from(["economy", "balanced", "quality"]),
    min_quality=st.sampled_from([None, None, 50.0]),
    allow=mostly(("*",), ("openai/*",), ("openai/*", "local/*"), ("voyage/*",)),
    local_only=mostly(False, True),
    when_exhausted=st.sampled_from(["local", "local", "wait", "refuse"]),
    deadline=st.sampled_from(["now", "24h"]),
    long_texts=st.sampled_from(["split", "refuse", "cut"]),
    timezone=st.sampled_from(["UTC", "Europe/Paris"]),
)
facts_ = st.builds(
    lambda loads, funds, paid: Facts(
        now=NOW,
        candidates=tuple(map(candidate_from, loads)),
        budgets=tuple(map(budget_from, funds)),
        paid_enabled=paid,
    ),
    loads,
    funds,
    mostly(True, False),
)
worlds = st.tuples(asks, policies, facts_)
poor_worlds = st.tuples(
    st.builds(Ask, pinned_space=mostly(None, "voyage-4")),
    st.builds(
        Policy,
        name=st.just("p"),
        goal=st.sampled_from(["economy", "balanced", "quality"]),
        min_quality=st.just(50.0),
        allow=st.sampled_from([("*",), ("voyage/*", "openai/*")]),
        when_exhausted=st.sampled_from(["local", "wait", "refuse"]),
    ),
    st.builds(
        lambda loads, spent: Facts(
            now=NOW,
            candidates=tuple(replace(candidate_from(load), price=load[6] or Decimal("0.1")) for load in loads),
            budgets=(budget_from(("month", 500, spent, True, 0.0, 0.3, "account")),),
        ),
        loads.filter(lambda found: any(load[0] in (SMALL, LARGE, VOYAGE, LITE) for load in found)),
        st.integers(400, 600),
    ),
)


# ---- the oracle: design section 5, written a second time and differently


def quality_of(one):
    return next((score.value for score in one.scores if score.scale == SCALE), None)


def cost_of(c, ask, policy):
    """Nanodollars of a candidate's misses, None without a known price."""
    if c.cached == c.texts or c.model.provider == "local":
        return 0
    batch = ask.partial and policy.deadline == "24h" and c.batch_price is not None
    price = c.batch_price if batch else c.price
    return None if price is None else -int(-(c.tokens * price * 1000) // 1)


def admitted(c, ask, policy, facts, floor=True):
    """True where a candidate may serve at all, money apart."""
    paid, misses, quality = c.model.provider != "local", c.cached < c.texts, quality_of(c.model)
    return (
        ask.pinned_space in (None, c.model.space)
        and ask.pinned_model in (None, c.model.id)
        and (ask.dimensions is None or c.model.serves(ask.dimensions))
        and any(fnmatchcase(c.model.id, pattern) for pattern in policy.allow)
        and not (policy.local_only and paid)
        and (not floor or policy.min_quality is None or (quality is not None and quality >= policy.min_quality))
        and not (policy.long_texts == "refuse" and c.over_long)
        and (not misses or (c.configured and not c.unhealthy and (facts.paid_enabled or not paid)))
        and cost_of(c, ask, policy) is not None
    )


def fits(cost, facts):
    rooms = [
        s.budget.amount if s.budget.window == "request" else max(0, s.budget.amount - s.used)
        for s in facts.budgets
        if s.budget.hard
    ]
    return all(cost <= room for room in rooms)


def facts_of(outcome, facts):
    return next(c for c in facts.candidates if c.model == outcome.model)


def on_pace(facts):
    """The rule for `balanced`, from the tightest day, week or month budget."""
    paced = [(s.pace_used - s.pace_elapsed, s) for s in facts.budgets if s.pace_used is not None]
    if not paced:
        return True
    ahead = max(lead for lead, _ in paced)
    tightest = next(s for lead, s in paced if lead == ahead)
    return tightest.pace_used <= tightest.pace_elapsed + 0.1


def orders_by_quality(policy, facts):
    return policy.goal == "quality" or (policy.goal == "balanced" and on_pace(facts))


def worth(quality):
    return -1.0 if quality is None else quality


# ---- properties


@given(worlds)
@settings(max_examples=120)
def test_total_and_pure(world):
    """Any input gives a plan or a refusal, the same for the same input, and changes nothing that it was given."""
    before = copy.deepcopy(world)
    outcome = decide(*world)
    assert isinstance(outcome, Plan | Refusal)
    assert outcome == decide(*before)
    assert world == before
    event(outcome.kind if isinstance(outcome, Refusal) else f"{outcome.route}, fell back: {outcome.fell_back}")


@given(worlds)
@settings(max_examples=120)
def test_a_plan_breaks_no_rule(world):
    """Allow list, pin, long texts, switch, key, health and price always hold; only a fall-back goes below the floor."""
    ask, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal):
        return
    chosen = facts_of(outcome, facts)
    assert admitted(chosen, ask, policy, facts, floor=not outcome.fell_back)
    assert outcome.model.local or not outcome.fell_back
    assert outcome.cost == cost_of(chosen, ask, policy)
    assert outcome.model.serves(outcome.dimensions)
    assert outcome.dimensions == ask.dimensions or ask.dimensions is None


@given(worlds)
@settings(max_examples=120)
def test_a_request_breaks_no_hard_limit(world):
    """All or nothing: what is planned fits every hard budget. Call by call, only pins, `wait` and `refuse` may not."""
    ask, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal):
        return
    pinned = ask.pinned_space is not None or ask.pinned_model is not None
    if not ask.partial or (policy.when_exhausted == "local" and not pinned):
        assert fits(outcome.cost, facts)


@given(worlds)
@settings(max_examples=120)
def test_verdicts_are_complete_and_agree_with_the_oracle(world):
    """One verdict a candidate, in order, with a reason; eligible exactly where admitted; costs as reckoned apart."""
    ask, policy, facts = world
    outcome = decide(*world)
    assert [v.model for v in outcome.verdicts] == [c.model for c in facts.candidates]
    assert [v.chosen for v in outcome.verdicts].count(True) == isinstance(outcome, Plan)
    for verdict, c in zip(outcome.verdicts, facts.candidates, strict=True):
        assert verdict.reason.strip()
        assert verdict.cost == cost_of(c, ask, policy)
        waived = verdict.chosen and outcome.fell_back
        assert verdict.eligible == admitted(c, ask, policy, facts, floor=not waived)
        if verdict.chosen:
            assert (verdict.model, verdict.route, verdict.cost) == (outcome.model, outcome.route, outcome.cost)


@given(worlds)
def test_cached_texts_cost_nothing(world):
    """A candidate that has all texts costs 0 and needs no key, health, price or paid calls."""
    ask, policy, facts = world
    full = tuple(replace(c, cached=c.texts, tokens=0, over_long=0) for c in facts.candidates)
    bare = tuple(replace(c, configured=False, unhealthy="down", price=None, batch_price=None) for c in full)
    outcomes = [
        decide(ask, policy, replace(facts, candidates=full, paid_enabled=True)),
        decide(ask, policy, replace(facts, candidates=bare, paid_enabled=False)),
    ]
    for outcome in outcomes:
        assert all((v.route, v.cost) == ("cache", 0) for v in outcome.verdicts)
    rich, poor = ([v.eligible for v in outcome.verdicts] for outcome in outcomes)
    assert rich == poor
    assert isinstance(outcomes[0], Plan) == isinstance(outcomes[1], Plan)
    assert not isinstance(outcomes[0], Refusal) or outcomes[0].kind != "budget"


def rivals(world, outcome):
    """Costs and qualities of all candidates that this plan was chosen from."""
    ask, policy, facts = world
    pool = [c for c in facts.candidates if admitted(c, ask, policy, facts)]
    if policy.when_exhausted == "local" and fits(outcome.cost, facts):
        pool = [c for c in pool if fits(cost_of(c, ask, policy), facts)]
    return [(cost_of(c, ask, policy), worth(quality_of(c.model)), c.seconds, c.model.id) for c in pool]


@given(worlds)
@settings(max_examples=120)
def test_economy_has_no_cheaper_feasible_rival(world):
    """Nor an equally cheap better one, nor an equal faster one; the id settles the rest."""
    _, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal) or orders_by_quality(policy, facts):
        return
    own = facts_of(outcome, facts)
    mine = (outcome.cost, -worth(quality_of(outcome.model)), own.seconds, outcome.model.id)
    for cost, quality, seconds, id_ in rivals(world, outcome):
        assert mine <= (cost, -quality, seconds, id_)


@given(worlds)
@settings(max_examples=120)
def test_quality_has_no_better_feasible_rival(world):
    """Nor an equally good cheaper one; where a pinned space takes more than is left, its cheapest member goes ahead."""
    ask, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal) or not orders_by_quality(policy, facts):
        return
    stretched = policy.when_exhausted == "local" and not fits(outcome.cost, facts)
    for cost, quality, _, id_ in rivals(world, outcome):
        if stretched:
            assert outcome.cost <= cost
        else:
            mine = (-worth(quality_of(outcome.model)), outcome.cost, outcome.model.id)
            assert mine <= (-quality, cost, id_)
    assert ask.partial or not stretched


@given(worlds, st.lists(st.sampled_from([0, 300, 5_000, 10**9]), min_size=3, max_size=3))
@settings(max_examples=120)
def test_more_budget_never_lowers_quality(world, more):
    """With the pace held, raising budgets never turns a plan into a refusal nor into a worse model."""
    ask, policy, facts = world
    raised = tuple(
        replace(s, budget=replace(s.budget, amount=s.budget.amount + extra))
        for s, extra in zip(facts.budgets, more, strict=False)
    )
    before, after = decide(*world), decide(ask, policy, replace(facts, budgets=raised))
    if isinstance(before, Refusal):
        return
    assert isinstance(after, Plan)
    assert worth(quality_of(after.model)) >= worth(quality_of(before.model))


@given(worlds, st.data())
@settings(max_examples=120)
def test_more_cache_never_raises_a_cost(world, data):
    """Not that of a candidate; nor that of a plan under economy, unless it had fallen back for want of money."""
    ask, policy, facts = world
    policy = replace(policy, goal="economy")
    warmer = []
    for c in facts.candidates:
        cached = data.draw(st.integers(c.cached, c.texts))
        tokens = 0 if cached == c.texts else data.draw(st.integers(min(c.tokens, 1), c.tokens))
        over_long = 0 if cached == c.texts else data.draw(st.integers(0, c.over_long))
        warmer.append(replace(c, cached=cached, tokens=tokens, over_long=over_long))
    before, after = decide(ask, policy, facts), decide(ask, policy, replace(facts, candidates=tuple(warmer)))
    for old, new in zip(before.verdicts, after.verdicts, strict=True):
        if old.cost is not None:
            assert new.cost is not None
            assert new.cost <= old.cost
    if isinstance(before, Plan) and not before.fell_back:
        assert isinstance(after, Plan)
        assert after.cost <= before.cost


@given(poor_worlds)
def test_a_refusal_for_money_names_the_smallest_sum_that_helps(world):
    """Adding the shortfall to the budget's room lets the request through; a nanodollar less does not."""
    ask, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Plan) or outcome.kind != "budget":
        return
    assert outcome.shortfall > 0
    assert money.show(outcome.shortfall) in outcome.reason

    def with_room(extra):
        (poor,) = facts.budgets
        rich = replace(poor, used=0, budget=replace(poor.budget, amount=poor.left + extra))
        return decide(ask, policy, replace(facts, budgets=(rich,)))

    assert isinstance(with_room(outcome.shortfall), Plan)
    assert isinstance(with_room(outcome.shortfall - 1), Refusal)


@given(worlds)
@settings(max_examples=120)
def test_the_reference_is_paid_and_allowed(world):
    """The plan's own model if it is paid and priced; else the cheapest paid one that the policy allows; else none."""
    _, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal):
        return
    own = facts_of(outcome, facts)
    allowed = [
        c.price
        for c in facts.candidates
        if c.price is not None and not policy.local_only and any(fnmatchcase(c.model.id, p) for p in policy.allow)
    ]
    if own.price is not None:
        assert outcome.reference == own.model
    elif not allowed:
        assert outcome.reference is None
    else:
        assert next(c.price for c in facts.candidates if c.model == outcome.reference) == min(allowed)


# ---- rules, one by one


def cand(one, *, texts=10, cached=0, tokens=1_000_000, **more):
    price = {} if one.local else {"price": Decimal("0.13" if one is LARGE else "0.02")}
    return CandidateFacts(model=one, texts=texts, cached=cached, tokens=tokens, **(price | more))


def state(left=0, amount=5_000_000_000, window="month", hard=True, owner="policy/p", pace=None):
    used, elapsed = pace or (None, None)
    return BudgetState(
        owner=owner, budget=Budget(amount=amount, window=window, hard=hard), used=amount - left,
        resets=None if window in ("total", "request") else DECEMBER, pace_used=used, pace_elapsed=elapsed,
        day_of_window=10, days_in_window=30,
    )  # fmt: skip


def world(*found, budgets=(), **more):
    return Facts(now=NOW, candidates=found, budgets=tuple(budgets), **more)


def policy_of(**changes):
    return Policy(name="p", **changes)


def reasons(outcome):
    return {v.model.id: v.reason for v in outcome.verdicts}


def test_each_goal_takes_its_own():
    """Economy the local model, quality the best; the others learn by how much they are behind."""
    facts = world(cand(MINI), cand(SMALL), cand(LARGE))
    thrifty = decide(Ask(), policy_of(goal="economy"), facts)
    assert (thrifty.model, thrifty.route, thrifty.cost) == (MINI, "local", 0)
    assert reasons(thrifty)["openai/small"] == "costs $0.0200 more"
    best = decide(Ask(), policy_of(goal="quality"), facts)
    assert (best.model, best.route, best.cost, best.dimensions) == (LARGE, "api", 130_000_000, 3072)
    assert reasons(best)["openai/small"] == "scores 54.8 against 62"
    assert best.reason == "openai/large is the best of 3, with 62 on RTEB-en."


def test_equal_quality_goes_to_the_cheaper_then_to_the_first_id():
    """Equally good models differ by what their misses cost, and last by name."""
    dear = cand(EQUAL, price=Decimal("0.10"))
    plan = decide(Ask(), policy_of(goal="quality"), world(dear, cand(SMALL)))
    assert plan.model == SMALL
    assert reasons(plan)["cohere/equal"] == "costs $0.0800 more"
    level = decide(Ask(), policy_of(goal="quality"), world(cand(SMALL), cand(EQUAL)))
    assert level.model == EQUAL
    assert reasons(level)["openai/small"] == "is equal and comes later by name"


def test_avoided_money_is_counted_at_the_cheapest_paid_model_allowed():
    """Cheaper ones that the policy does not allow are no reference; keys and pins do not matter."""
    found = cand(MINI), cand(LARGE, configured=False), cand(SMALL)
    allowed = policy_of(goal="economy", allow=("local/*", "openai/large"))
    assert decide(Ask(), allowed, world(*found)).reference == LARGE
    assert decide(Ask(pinned_model=MINI.id), policy_of(), world(*found)).reference == SMALL
    assert decide(Ask(), policy_of(local_only=True), world(*found)).reference is None


def test_a_fully_cached_paid_space_beats_a_worse_local_one_at_the_same_price():
    """Equal cost goes to better quality, so what was paid once is used."""
    facts = world(cand(MINI), cand(SMALL, cached=10, configured=False), paid_enabled=False)
    plan = decide(Ask(), policy_of(goal="economy"), facts)
    assert (plan.model, plan.route, plan.cost, plan.fell_back) == (SMALL, "cache", 0, False)


def test_balanced_goes_by_the_pace_and_says_so():
    """On pace the best, ahead of it the cheapest, in the design's own words."""
    found = cand(MINI), cand(SMALL)
    ahead = decide(Ask(), policy_of(), world(*found, budgets=[state(left=10**9, pace=(0.58, 9 / 30))]))
    assert ahead.model == MINI
    assert ahead.reason == "58 % of the month's budget is used on day 10 of 30; using the local model today."
    assert not ahead.fell_back
    steady = decide(Ask(), policy_of(), world(*found, budgets=[state(left=10**9, pace=(0.4, 0.3))]))
    assert steady.model == SMALL
    assert steady.reason.startswith(
        "40 % of the month's budget is used on day 10 of 30, which is on pace; openai/small"
    )
    assert decide(Ask(), policy_of(), world(*found)).model == SMALL


def test_the_tightest_pace_counts_even_of_a_soft_budget():
    """The budget furthest ahead of its window judges, whoever owns it and however hard it is."""
    budgets = [state(left=10**9, pace=(0.1, 0.3)), state(hard=False, owner="account", pace=(0.9, 0.3))]
    plan = decide(Ask(), policy_of(), world(cand(MINI), cand(SMALL), budgets=budgets))
    assert plan.model == MINI
    assert plan.reason.startswith("90 % of the month's account budget is used")


def test_short_money_takes_the_best_that_fits():
    """Another paid model takes its place, and the better one says what is missing and where."""
    facts = world(cand(SMALL), cand(LARGE), budgets=[state(left=30_000_000, owner="account")])
    plan = decide(Ask(), policy_of(goal="quality"), facts)
    assert (plan.model, plan.fell_back) == (SMALL, False)
    assert reasons(plan)["openai/large"] == "does not fit: $0.10 more is needed in this month's account budget"
    assert "openai/large does not fit" in plan.reason


def test_without_money_a_request_falls_to_local_even_below_the_floor():
    """Marked as fallen back; the allow list is never waived."""
    facts = world(cand(MINI), cand(SMALL), budgets=[state(left=0)])
    for floor in (None, 50.0):
        plan = decide(Ask(), policy_of(goal="quality", min_quality=floor), facts)
        assert (plan.model, plan.fell_back, plan.reference) == (MINI, True, SMALL)
        assert plan.reason.startswith("This month's $5.00 is spent, too little for openai/small; using the local model")
    assert decide(Ask(), policy_of(goal="economy"), facts).fell_back is False
    refused = decide(Ask(), policy_of(goal="quality", allow=("openai/*",)), facts)
    assert (refused.kind, refused.shortfall) == ("budget", 20_000_000)
    assert refused.hint == "Raise the budget, wait until 1 December, or allow the local model."


@pytest.mark.parametrize("when", ["wait", "refuse"])
def test_wait_and_refuse_choose_as_if_the_money_sufficed(when):
    """A request is refused with the way out; work that goes call by call is planned all the same."""
    policy = policy_of(goal="quality", when_exhausted=when)
    facts = world(cand(MINI), cand(SMALL), cand(LARGE), budgets=[state(left=30_000_000)])
    refused = decide(Ask(), policy, facts)
    assert (refused.kind, refused.shortfall) == ("budget", 100_000_000)
    assert refused.reason == "$0.0300 of this month's $5.00 is left; $0.10 more is needed."
    assert refused.hint == "Raise the budget, wait until 1 December, or use the local model."
    assert reasons(refused)["openai/small"] == "scores 54.8 against 62"
    plan = decide(Ask(partial=True), policy, facts)
    assert (plan.model, plan.cost, plan.fell_back) == (LARGE, 130_000_000, False)
    assert "$0.10 more than this month's budget allows" in plan.reason


def test_waiting_is_only_proposed_where_it_helps():
    """Not for a request dearer than the whole budget, nor for budgets that never reset."""
    for short in (state(left=0, amount=10_000_000), state(left=0, window="total")):
        refused = decide(Ask(), policy_of(), world(cand(SMALL), budgets=[short]))
        assert refused.hint == "Raise the budget."


def test_a_pin_holds_when_the_money_is_gone():
    """A pinned paid space never falls to local: a request is refused, a job goes on with its cheapest member."""
    facts = world(cand(MINI), cand(VOYAGE, tokens=3_000_000), cand(LITE), budgets=[state(left=0)])
    pinned = Ask(pinned_space="voyage-4", collection="c")
    refused = decide(pinned, policy_of(), facts)
    assert (refused.kind, refused.shortfall) == ("budget", 20_000_000)
    assert "local" not in refused.hint
    assert reasons(refused)["local/mini"] == "the collection 'c' is pinned to space voyage-4"
    plan = decide(replace(pinned, partial=True), policy_of(), facts)
    assert (plan.model, plan.fell_back) == (LITE, False)
    assert decide(pinned, policy_of(), replace(facts, budgets=())).model == VOYAGE


def test_the_batch_tier_needs_time_and_work_that_can_wait():
    """Only under a 24-hour deadline, call by call, at a known batch price, which then is the only one needed."""
    paid = cand(SMALL, batch_price=Decimal("0.01"))
    slow = policy_of(deadline="24h")
    plan = decide(Ask(partial=True), slow, world(paid))
    assert (plan.route, plan.cost, plan.reference) == ("batch", 10_000_000, SMALL)
    assert decide(Ask(partial=True), slow, world(replace(paid, price=None))).route == "batch"
    assert decide(Ask(), slow, world(paid)).route == "api"
    assert decide(Ask(partial=True), policy_of(), world(paid)).route == "api"
    assert decide(Ask(partial=True), slow, world(cand(SMALL))).route == "api"
    assert decide(Ask(partial=True), slow, world(paid)).verdicts[0].batch_cost == 10_000_000


def test_soft_and_per_request_budgets():
    """A soft budget never blocks; a request budget is measured against its amount and never by what was used."""
    assert isinstance(decide(Ask(), policy_of(), world(cand(SMALL), budgets=[state(left=0, hard=False)])), Plan)
    roomy = state(left=0, amount=20_000_000, window="request")
    assert decide(Ask(), policy_of(), world(cand(SMALL), budgets=[roomy])).model == SMALL
    narrow = state(left=0, amount=19_999_999, window="request")
    refused = decide(Ask(), policy_of(), world(cand(SMALL), budgets=[narrow]))
    assert (refused.kind, refused.shortfall) == ("budget", 1)
    assert refused.reason.startswith("A request may cost $0.0200 at most; < $0.000001 more")


@pytest.mark.parametrize(
    ("ask", "changes", "found", "paid", "kind", "said"),
    [
        (Ask(pinned_model="x/y"), {}, cand(SMALL), True, "input", "names the model x/y"),
        (Ask(dimensions=4096), {}, cand(SMALL), True, "input", "4096 dimensions"),
        (Ask(), {"allow": ("voyage/*",)}, cand(SMALL), True, "policy", "allow list"),
        (Ask(), {"local_only": True}, cand(SMALL), True, "policy", "local models only"),
        (Ask(), {"min_quality": 60.0}, cand(SMALL), True, "policy", "scores 54.8 on RTEB-en, below the policy's 60"),
        (Ask(), {"min_quality": 60.0}, cand(OLD), True, "policy", "no score"),
        (Ask(), {"long_texts": "refuse"}, cand(SMALL, over_long=2), True, "input", "2 texts are longer than its 256"),
        (Ask(), {}, cand(SMALL, configured=False), True, "not_configured", "no key for openai"),
        (Ask(), {}, cand(SMALL, unhealthy="5 failures"), True, "not_configured", "5 failures"),
        (Ask(), {}, cand(SMALL), False, "paid_off", "switched off"),
        (Ask(), {}, cand(SMALL, price=None), True, "policy", "price is not known"),
    ],
)
def test_each_gate_refuses_with_its_kind_and_reason(ask, changes, found, paid, kind, said):
    """The refusal names the model, the gate and what to do."""
    refused = decide(ask, policy_of(**changes), world(found, paid_enabled=paid))
    assert isinstance(refused, Refusal)
    assert refused.kind == kind
    assert said in refused.reason
    assert found.model.id in refused.reason
    assert refused.hint
    assert refused.shortfall == 0


def test_the_furthest_gate_gives_the_reason():
    """Of a local model below the floor and a paid one without a key, the missing key is what to mend."""
    facts = world(cand(MINI), cand(SMALL, configured=False), cand(LARGE, configured=False))
    refused = decide(Ask(), policy_of(min_quality=50.0), facts)
    assert refused.kind == "not_configured"
    assert refused.reason == "No model may serve this: openai/small, openai/large: no key for openai is set."
    assert decide(Ask(), policy_of(), world()).kind == "not_configured"


def test_another_scale_may_judge():
    """Scores on the named scale count, and no other."""
    own = Score(scale="mine", value=90.0, source="x", checked=date(2026, 11, 1))
    facts = world(cand(replace(SMALL, scores=(*SMALL.scores, own))), cand(LARGE))
    assert decide(Ask(), policy_of(goal="quality"), facts).model.id == "openai/large"
    assert decide(Ask(), policy_of(goal="quality"), facts, "mine").model.id == "openai/small"


def test_asked_dimensions_are_planned_and_defaults_otherwise():
    """A view is served from the full vector; without a wish the model's default is."""
    facts = world(cand(replace(VOYAGE, dimensions=2048)))
    assert decide(Ask(dimensions=256), policy_of(), facts).dimensions == 256
    assert decide(Ask(), policy_of(), facts).dimensions == 1024
