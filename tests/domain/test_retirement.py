"""Models that their vendor retires: not called afterwards, no default before, and said so wherever they are used."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from router.domain.decide import decide
from router.domain.explain import explain
from router.domain.values import Ask, CandidateFacts, Facts, Plan, Policy, Refusal
from tests.domain.worlds import LARGE, MINI, NOW, SMALL

TODAY = NOW.date()


def world(retires: date | None, cached: int = 0) -> Facts:
    """SMALL retires on a day; LARGE is dearer and stays."""
    models = (replace(SMALL, retires=retires), LARGE)
    facts = [
        CandidateFacts(model=model, texts=3, cached=cached, tokens=100, expected_tokens=90, price=Decimal(at + 1))
        for at, model in enumerate(models)
    ]
    return Facts(now=NOW, candidates=tuple(facts))


def chosen(facts: Facts, ask: Ask | None = None, **rule: Any) -> tuple[Plan | Refusal, str]:
    """The decision of an economical policy, and its words."""
    policy, ask = Policy(name="p", goal="economy", **rule), ask or Ask()
    outcome = decide(ask, policy, facts)
    return outcome, explain(outcome, ask=ask, policy=policy, facts=facts)


@pytest.mark.parametrize(("days", "model"), [(91, SMALL), (90, LARGE), (1, LARGE), (0, LARGE), (-30, LARGE)])
def test_a_model_that_retires_is_no_default(days: int, model: Any) -> None:
    """From ninety days before the day on, another model is chosen, and the reason names the day."""
    outcome, _ = chosen(world(TODAY + timedelta(days=days)))
    assert isinstance(outcome, Plan)
    assert outcome.model.id == model.id
    reason = next(v.reason for v in outcome.verdicts if v.model.id == SMALL.id)
    assert (str(TODAY + timedelta(days=days)) in reason) == (days <= 90)


@pytest.mark.parametrize("ask", [Ask(pinned_model=SMALL.id, pinned_space=SMALL.space), Ask(pinned_space=SMALL.space)])
def test_it_is_called_where_it_is_named_and_said_so(ask: Ask) -> None:
    """By a request, by a collection's space: with the day and the days that are left."""
    outcome, words = chosen(world(TODAY + timedelta(days=30)), ask)
    assert isinstance(outcome, Plan)
    assert f"{SMALL.id} retires on 2026-12-10, in 30 days" in words


def test_an_allow_list_names_it_by_its_whole_id() -> None:
    """A pattern does not: it was written for whatever is good."""
    facts = world(TODAY + timedelta(days=30))
    named, _ = chosen(facts, allow=(SMALL.id, LARGE.id))
    pattern, _ = chosen(facts, allow=("openai/*",))
    assert isinstance(named, Plan)
    assert isinstance(pattern, Plan)
    assert (named.model.id, pattern.model.id) == (SMALL.id, LARGE.id)


def test_after_its_day_it_is_not_called_even_if_named() -> None:
    """The refusal says that its vendor retired it; what the cache has of it is still served."""
    ask = Ask(pinned_model=SMALL.id, pinned_space=SMALL.space)
    refused, words = chosen(world(TODAY), ask)
    assert isinstance(refused, Refusal)
    assert "was retired by its vendor on 2026-11-10" in words
    cached, _ = chosen(world(TODAY, cached=3), ask)
    assert isinstance(cached, Plan)
    assert cached.route == "cache"


def test_a_legacy_model_stays_eligible() -> None:
    """It is served and may be the cheapest; tables say that it is legacy."""
    facts = world(None)
    legacy = replace(facts.candidates[0], model=replace(SMALL, legacy=True, retires=date(2028, 1, 1)))
    outcome, _ = chosen(replace(facts, candidates=(legacy, facts.candidates[1])))
    assert isinstance(outcome, Plan)
    assert (outcome.model.id, outcome.model.ending) == (SMALL.id, "legacy, until 2028-01-01")
    assert MINI.ending == ""
