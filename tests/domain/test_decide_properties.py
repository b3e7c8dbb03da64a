"""The decision in generated worlds, against an oracle that was written apart."""

import copy
from dataclasses import replace
from fnmatch import fnmatchcase

from hypothesis import event, given, settings
from hypothesis import strategies as st

from router.domain import money
from router.domain.decide import decide
from router.domain.values import (
    Plan,
    Refusal,
)
from tests.domain.worlds import (
    admitted,
    cost_of,
    facts_of,
    fits,
    orders_by_quality,
    poor_worlds,
    quality_of,
    worlds,
    worth,
)


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
    assert outcome.expected == cost_of(chosen, ask, policy, likely=True) <= outcome.cost
    assert outcome.model.serves(outcome.dimensions)
    assert outcome.dimensions == ask.dimensions or ask.dimensions is None


@given(worlds)
@settings(max_examples=120)
def test_a_request_breaks_no_hard_limit(world):
    """All or nothing: what is planned fits every hard budget, at its most. Call by call the ledger may have to stop it,
    where no local model may take over and, unless the space is pinned, there is money left.
    """
    ask, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal):
        return
    if not ask.partial:
        assert fits(outcome.cost, facts)
    elif policy.when_exhausted == "local" and not fits(outcome.cost, facts):
        pinned = ask.pinned_space is not None or ask.pinned_model is not None
        assert pinned or fits(1, facts)
        pool = [c for c in facts.candidates if admitted(c, ask, policy, facts)]
        assert not any(fits(cost_of(c, ask, policy), facts) for c in pool)
        assert not any(c.model.local and admitted(c, ask, policy, facts, floor=False) for c in facts.candidates)
        assert outcome.expected == min(cost_of(c, ask, policy, likely=True) for c in pool)


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
        assert verdict.expected == cost_of(c, ask, policy, likely=True)
        waived = verdict.chosen and outcome.fell_back
        assert verdict.eligible == admitted(c, ask, policy, facts, floor=not waived)
        if verdict.chosen:
            assert (verdict.model, verdict.route, verdict.cost) == (outcome.model, outcome.route, outcome.cost)


@given(worlds)
def test_cached_texts_cost_nothing(world):
    """A candidate that has all texts costs 0 and needs no key, health, price or paid calls."""
    ask, policy, facts = world
    full = tuple(replace(c, cached=c.texts, tokens=0, expected_tokens=0, over_long=0) for c in facts.candidates)
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
    """Likely costs and qualities of all candidates that this plan was chosen from; those that fit do at their most."""
    ask, policy, facts = world
    pool = [c for c in facts.candidates if admitted(c, ask, policy, facts)]
    chosen_to_fit = policy.when_exhausted == "local" or not (ask.partial or orders_by_quality(policy, facts))
    if chosen_to_fit and fits(outcome.cost, facts):
        pool = [c for c in pool if fits(cost_of(c, ask, policy), facts)]
    return [(cost_of(c, ask, policy, likely=True), worth(quality_of(c.model)), c.seconds, c.model.id) for c in pool]


@given(worlds)
@settings(max_examples=1_000)
def test_economy_has_no_cheaper_feasible_rival(world):
    """By likely cost: nor an equally cheap better one, nor an equal faster one; the id settles the rest."""
    _, policy, facts = world
    outcome = decide(*world)
    if isinstance(outcome, Refusal) or orders_by_quality(policy, facts):
        return
    own = facts_of(outcome, facts)
    mine = (outcome.expected, -worth(quality_of(outcome.model)), own.seconds, outcome.model.id)
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
            assert outcome.expected <= cost
        else:
            mine = (-worth(quality_of(outcome.model)), outcome.expected, outcome.model.id)
            assert mine <= (-quality, cost, id_)
    assert ask.partial or not stretched


@given(worlds, st.lists(st.sampled_from([0, 300, 5_000, 10**9]), min_size=3, max_size=3))
@settings(max_examples=120)
def test_more_budget_never_lowers_quality(world, more):
    """With the pace held, raising budgets never turns a plan into a refusal; nor into a worse model or, by cost, into a
    likely dearer one, unless it had fallen back or was to be stopped half way.
    """
    ask, policy, facts = world
    raised = tuple(
        replace(s, budget=replace(s.budget, amount=s.budget.amount + extra))
        for s, extra in zip(facts.budgets, more, strict=False)
    )
    before, after = decide(*world), decide(ask, policy, replace(facts, budgets=raised))
    if isinstance(before, Refusal):
        return
    assert isinstance(after, Plan)
    if orders_by_quality(policy, facts) or before.fell_back:
        assert worth(quality_of(after.model)) >= worth(quality_of(before.model))
    elif fits(before.cost, facts):
        assert after.expected <= before.expected


@given(worlds, st.data())
@settings(max_examples=120)
def test_more_cache_never_raises_a_cost(world, data):
    """Not that of a candidate; nor the likely one of a plan under economy that fitted and had not fallen back."""
    ask, policy, facts = world
    policy = replace(policy, goal="economy")
    warmer = []
    for c in facts.candidates:
        cached = data.draw(st.integers(c.cached, c.texts))
        tokens = 0 if cached == c.texts else data.draw(st.integers(min(c.tokens, 1), c.tokens))
        likely = data.draw(st.integers(0, min(tokens, c.expected_tokens)))
        over_long = 0 if cached == c.texts else data.draw(st.integers(0, c.over_long))
        warmer.append(replace(c, cached=cached, tokens=tokens, expected_tokens=likely, over_long=over_long))
    before, after = decide(ask, policy, facts), decide(ask, policy, replace(facts, candidates=tuple(warmer)))
    for old, new in zip(before.verdicts, after.verdicts, strict=True):
        if old.cost is not None:
            assert new.cost is not None
            assert new.cost <= old.cost
            assert new.expected <= old.expected
    if isinstance(before, Plan) and not before.fell_back:
        assert isinstance(after, Plan)
        if policy.when_exhausted == "local" and not fits(before.cost, facts):
            return  # the cheapest was planned for the ledger to stop; now another one may fit whole
        assert after.expected <= before.expected


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
