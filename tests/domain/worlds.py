"""Models to decide among, generated worlds, and an oracle: design section 5, written a second time and differently."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase

from hypothesis import strategies as st

from router.domain.values import (
    Ask,
    Budget,
    BudgetState,
    CandidateFacts,
    Facts,
    Limits,
    Model,
    Policy,
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
        st.integers(1, 100),  # tokens a text, at most
        st.sampled_from([1.0, 1.0, 0.5, 0.2]),  # share of them that is likely
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
    one, cached, tokens, share, over_long, seconds, trouble, price, batch_price = load
    return CandidateFacts(
        model=one,
        texts=6,
        cached=cached,
        tokens=tokens * (6 - cached),
        expected_tokens=round(tokens * share) * (6 - cached),
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
            candidates=tuple(replace(candidate_from(load), price=load[7] or Decimal("0.1")) for load in loads),
            budgets=(budget_from(("month", 500, spent, True, 0.0, 0.3, "account")),),
        ),
        loads.filter(lambda found: any(load[0] in (SMALL, LARGE, VOYAGE, LITE) for load in found)),
        st.integers(400, 600),
    ),
)


# ---- the oracle: design section 5, written a second time and differently


def quality_of(one):
    return next((score.value for score in one.scores if score.scale == SCALE), None)


def cost_of(c, ask, policy, likely=False):
    """The most nanodollars that a candidate's misses can cost, or the likely ones; None without a known price."""
    if c.cached == c.texts or c.model.provider == "local":
        return 0
    batch = ask.partial and policy.deadline == "24h" and c.batch_price is not None
    price = c.batch_price if batch else c.price
    tokens = c.expected_tokens if likely else c.tokens
    return None if price is None else -int(-(tokens * price * 1000) // 1)


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
