"""Explanations: a few plain sentences that say what the decision did and nothing else."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.decide import decide
from router.domain.explain import budget_name, explain, money_left, sentence, why_not
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
    Score,
)


def model(id_, quality):
    provider, name = id_.split("/")
    score = Score(scale="RTEB-en", value=quality, source="x", checked=date(2026, 11, 1))
    return Model(
        id=id_, provider=provider, name=name, space=id_, dimensions=8, default_dimensions=8, tokenizer="bytes",
        limits=Limits(texts_per_call=10), scores=(score,),
    )  # fmt: skip


LOCAL = model("local/mini", 42.7)
PAID = model("openai/small", 54.8)
POLICY = Policy(name="default", goal="quality")


def facts(
    texts=240, cached=40, left=3_120_000_000, amount=5_000_000_000, window="month", owner="policy/default", likely=1
):
    """A local and a paid candidate of 250 tokens a text, and one budget."""
    tokens = (texts - cached) * 250
    return Facts(
        now=datetime(2026, 11, 10, tzinfo=UTC),
        candidates=(
            CandidateFacts(model=LOCAL, texts=texts, cached=0, tokens=tokens, expected_tokens=tokens),
            CandidateFacts(
                model=PAID,
                texts=texts,
                cached=cached,
                tokens=tokens,
                expected_tokens=tokens // likely,
                price=Decimal("0.02"),
                batch_price=Decimal("0.01"),
            ),
        ),
        budgets=(
            BudgetState(
                owner=owner,
                budget=Budget(amount=amount, window=window),
                used=amount - left,
                resets=datetime(2026, 12, 1, tzinfo=UTC),
            ),
        ),
    )


def told(ask=None, policy=POLICY, found=None):
    ask, found = ask or Ask(), found or facts()
    return explain(decide(ask, policy, found), ask=ask, policy=policy, facts=found)


def test_a_plan_is_told_with_route_share_goal_and_money_left():
    """What is cached, who answers the rest for how much, why, and what is left."""
    assert told() == (
        "40 of 240 texts are in the cache; the other 200 go to openai/small over its API, for $0.0010. "
        "The goal is quality: openai/small is the best of 2, with 54.8 on RTEB-en. "
        "$3.12 of this month's $5.00 is left."
    )


@pytest.mark.parametrize(
    ("ask", "changes", "found", "first"),
    [
        (Ask(), {}, facts(cached=0), "240 texts go to openai/small over its API, for $0.0012."),
        (Ask(role="query"), {}, facts(texts=1, cached=0), "1 query goes to openai/small over its API, for $0.000005"),
        (
            Ask(),
            {},
            facts(cached=240),
            "All 240 texts are in the cache in the space openai/small, so nothing is",
        ),
        (Ask(), {}, facts(texts=1, cached=1), "The text is in the cache in the space openai/small, so nothing"),
        (Ask(), {}, facts(texts=2, cached=1), "1 of 2 texts is in the cache; the other 1 goes to openai/small over"),
        (Ask(), {"goal": "economy"}, facts(cached=0), "240 texts go to local/mini on this machine, at no cost."),
        (Ask(partial=True), {"deadline": "24h"}, facts(cached=0), "240 texts go to openai/small as a batch, answered"),
    ],
)
def test_every_route_is_told(ask, changes, found, first):
    """Cache, local, API and batch each have their words, in singular and plural, for texts and queries."""
    assert told(ask, replace(POLICY, **changes), found).startswith(first)


def test_the_pace_is_told_in_the_designed_sentence():
    """58 % on day 10 of 30, after the goal."""
    found = facts()
    state = replace(found.budgets[0], pace_used=0.58, pace_elapsed=0.3, day_of_window=10, days_in_window=30)
    text = told(policy=replace(POLICY, goal="balanced"), found=replace(found, budgets=(state,)))
    assert "The goal is balanced: 58 % of the month's budget is used on day 10 of 30; using the local model" in text


def test_a_fall_back_names_its_space():
    """Spent money is told once, and the answer's space is named as what it is."""
    assert told(found=facts(left=0)) == (
        "240 texts go to local/mini on this machine, at no cost. "
        "The goal is quality: this month's $5.00 is spent, too little for openai/small; "
        "using the local model local/mini. "
        "These vectors are in the space local/mini and compare with no other."
    )


def test_likely_and_most_are_both_told_where_they_differ():
    """Two figures for a model whose tokenizer is not at hand, one for the others."""
    text = told(found=facts(likely=5))
    assert "the other 200 go to openai/small over its API, likely $0.000200, at most $0.0010. The goal" in text


def test_a_refusal_says_what_is_missing_and_what_to_do():
    """In the style of the screen: the sum, the budget, and each way out."""
    policy = replace(POLICY, when_exhausted="refuse")
    assert told(policy=policy, found=facts(left=0)) == (
        "Refused: this month's $5.00 is spent; $0.0010 more is needed. "
        "Raise the budget, wait until 1 December, or use the local model."
    )
    account = facts(left=0, owner="account", window="day")
    assert told(policy=policy, found=account).startswith("Refused: today's account budget of $5.00 is spent; $0.0010")


def test_the_day_of_the_reset_is_in_the_policys_zone():
    """Midnight UTC on 1 December is still 30 November in New York."""
    policy = replace(POLICY, when_exhausted="refuse", timezone="America/New_York")
    assert "wait until 30 November" in told(policy=policy, found=facts(left=0))


def test_why_not_names_every_other_candidate():
    """Each with a sentence; the chosen one is left out, and of a refusal nobody is."""
    assert why_not(decide(Ask(), POLICY, facts())) == [("local/mini", "Scores 42.7 against 54.8.")]
    refused = decide(Ask(pinned_space="x", collection="handbook"), POLICY, facts())
    expected = "The collection 'handbook' is pinned to space x."
    assert why_not(refused) == [("local/mini", expected), ("openai/small", expected)]


@pytest.mark.parametrize(
    ("window", "owner", "left", "name", "stands"),
    [
        ("month", "policy/p", 0, "this month's budget", "this month's $5.00 is spent"),
        (
            "month",
            "account",
            3_100_000,
            "this month's account budget",
            "$0.0031 of this month's account budget of $5",
        ),
        ("week", "policy/p", 10**9, "this week's budget", "$1.00 of this week's $5.00 is left"),
        ("day", "policy/p", 10**9, "today's budget", "$1.00 of today's $5.00 is left"),
        ("total", "policy/p", 0, "the total budget", "the total budget of $5.00 is spent"),
        ("request", "policy/p", 0, "the per-request budget", "a request may cost $5.00 at most"),
    ],
)
def test_budgets_have_names(window, owner, left, name, stands):
    """Which budget it is and how it stands, for each window and owner."""
    state = facts(window=window, owner=owner, left=left).budgets[0]
    assert budget_name(state) == name
    assert money_left(state).startswith(stands)


def test_a_models_id_keeps_its_spelling_at_the_head_of_a_sentence():
    """`openai/...` is not `Openai/...`."""
    assert sentence("openai/small is taken") == "openai/small is taken."
    assert sentence("costs $1.00 more") == "Costs $1.00 more."


@given(
    st.builds(Ask, pinned_model=st.sampled_from([None, "local/mini", "openai/small", "x/y"]), partial=st.booleans()),
    st.builds(
        Policy,
        name=st.just("default"),
        goal=st.sampled_from(["economy", "balanced", "quality"]),
        min_quality=st.sampled_from([None, 50.0, 90.0]),
        local_only=st.booleans(),
        when_exhausted=st.sampled_from(["local", "wait", "refuse"]),
    ),
    st.builds(
        facts,
        cached=st.sampled_from([0, 40, 240]),
        left=st.sampled_from([0, 100, 10**9]),
        window=st.sampled_from(["request", "day", "month", "total"]),
        owner=st.sampled_from(["account", "policy/default"]),
    ),
)
def test_one_to_four_sentences_for_any_outcome(ask, policy, found):
    """Each begins with a capital, a figure or an id and ends with a full stop; a refusal says so first."""
    outcome = decide(ask, policy, found)
    text = explain(outcome, ask=ask, policy=policy, facts=found)
    sentences = re.split(r"(?<=\.)\s", text)
    assert 1 <= len(sentences) <= 4
    assert all(re.match(r"[A-Z$<\d]|\w+/", s) and s.endswith(".") and ".." not in s for s in sentences)
    assert "  " not in text
    assert "None" not in text
    assert text.startswith("Refused: ") != isinstance(outcome, Plan)
    if isinstance(outcome, Plan):
        assert outcome.model.id in text
    assert [id_ for id_, _ in why_not(outcome)] == [v.model.id for v in outcome.verdicts if not v.chosen]
