"""The rules of the decision, one by one."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from router.domain.decide import decide
from router.domain.values import (
    Ask,
    Budget,
    BudgetState,
    CandidateFacts,
    Facts,
    Plan,
    Policy,
    Refusal,
    Score,
)
from tests.domain.worlds import DECEMBER, EQUAL, LARGE, LITE, MINI, NOW, OLD, SMALL, VOYAGE


def cand(one, *, texts=10, cached=0, tokens=1_000_000, likely=None, **more):
    price = {} if one.local else {"price": Decimal("0.13" if one is LARGE else "0.02")}
    likely = tokens if likely is None else likely
    return CandidateFacts(
        model=one, texts=texts, cached=cached, tokens=tokens, expected_tokens=likely, **(price | more)
    )


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


def test_the_likely_cost_orders_and_the_most_must_fit():
    """A bound five times too high is no reason against a model; but what may not fit whole waits for more money."""
    loose, exact = cand(VOYAGE, likely=200_000), cand(SMALL, tokens=250_000)
    plan = decide(Ask(), policy_of(goal="economy"), world(loose, exact))
    assert (plan.model, plan.expected, plan.cost) == (VOYAGE, 4_000_000, 20_000_000)
    assert reasons(plan)["openai/small"] == "costs $0.0010 more"
    tight = decide(Ask(), policy_of(goal="economy"), world(loose, exact, budgets=[state(left=10_000_000)]))
    assert tight.model == SMALL


@pytest.mark.parametrize("when", ["local", "wait", "refuse"])
def test_under_economy_a_request_is_not_refused_while_one_fits(when):
    """The likely cheapest gives way to the next that fits at its most; by quality, `wait` and `refuse` do not."""
    loose, exact = cand(VOYAGE, likely=200_000), cand(SMALL, tokens=250_000)
    facts = world(loose, exact, budgets=[state(left=10_000_000)])
    plan = decide(Ask(), policy_of(goal="economy", when_exhausted=when), facts)
    assert (plan.model, plan.fell_back) == (SMALL, False)
    assert "voyage/4 does not fit into this month's budget" in plan.reason
    poor = world(loose, exact, budgets=[state(left=4_000_000)])
    assert decide(Ask(), policy_of(goal="economy", when_exhausted=when), poor).shortfall == 1_000_000


def test_work_that_goes_call_by_call_begins_with_what_is_left():
    """Where no model fits at its most and none is local, the likely cheapest is planned and the ledger stops it."""
    facts = world(cand(VOYAGE, likely=200_000), cand(LARGE, tokens=90_000), budgets=[state(left=8_000_000)])
    plan = decide(Ask(partial=True), policy_of(), facts)
    assert (plan.model, plan.expected, plan.cost, plan.fell_back) == (VOYAGE, 4_000_000, 20_000_000, False)
    assert decide(Ask(), policy_of(), facts).shortfall == 3_700_000  # openai/large needs the smaller sum, at most
    assert decide(Ask(partial=True), policy_of(), replace(facts, budgets=(state(left=0),))).kind == "budget"
    assert decide(Ask(partial=True), policy_of(), world(*facts.candidates, cand(MINI), budgets=facts.budgets)).fell_back


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
