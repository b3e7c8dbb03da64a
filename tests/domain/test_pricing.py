"""A day has one price, an unknown price is no number, and costs are rounded up."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.money import price_tokens
from router.domain.pricing import price_on, rate
from router.domain.values import Limits, Model, Price

FIRST, SECOND = date(2026, 1, 1), date(2026, 6, 1)


def dated(since: date, now: str | None, batch: str | None = None) -> Price:
    """A price from this day on."""
    return Price(
        since=since,
        now=None if now is None else Decimal(now),
        batch=None if batch is None else Decimal(batch),
        source="page",
        checked=since,
    )


def model(*prices: Price, provider: str = "acme") -> Model:
    """A model with these prices."""
    return Model(
        id=f"{provider}/one",
        provider=provider,
        name="one",
        space=f"{provider}/one",
        dimensions=8,
        default_dimensions=8,
        tokenizer="bytes",
        limits=Limits(texts_per_call=1),
        prices=prices,
    )


TWO = model(dated(FIRST, "0.02", "0.01"), dated(SECOND, "0.03"))


@pytest.mark.parametrize(
    ("day", "usd"),
    [
        (date(2020, 1, 1), "0.02"),
        (FIRST - timedelta(days=1), "0.02"),
        (FIRST, "0.02"),
        (SECOND - timedelta(days=1), "0.02"),
        (SECOND, "0.03"),
        (SECOND + timedelta(days=1), "0.03"),
        (date(2030, 1, 1), "0.03"),
    ],
)
def test_price_changes_on_its_day(day: date, usd: str) -> None:
    """The new price holds from its day on; days before the first price are priced by it."""
    found = price_on(TWO, day)
    assert found is not None
    assert found.now == Decimal(usd)
    assert cost(TWO, 1_000_000, day=day) == int(Decimal(usd) * 10**9)


def cost(of: Model, tokens: int, *, day: date, batch: bool = False) -> int | None:
    """Nanodollars by the rate of the day."""
    usd = rate(of, day, batch=batch)
    return None if usd is None else price_tokens(tokens, usd)


def test_batch_price_ends_with_its_entry() -> None:
    """A batch price is that of the entry of the day, never one left over from before."""
    assert cost(TWO, 1_000_000, day=SECOND - timedelta(days=1), batch=True) == 10_000_000
    assert cost(TWO, 1_000_000, day=SECOND, batch=True) is None


def test_unknown_price_is_none_and_not_zero() -> None:
    """Without a price there is no cost, so that no route can take it for free."""
    assert price_on(model(), FIRST) is None
    assert cost(model(), 1, day=FIRST) is None
    assert cost(model(dated(FIRST, None, "0.01")), 1, day=FIRST) is None


def test_local_model_costs_nothing() -> None:
    """A local model's price is zero on every day and it sells no batch."""
    local = model(provider="local")
    found = price_on(local, date(1990, 1, 1))
    assert found is not None
    assert (found.now, found.batch) == (Decimal(0), None)
    assert cost(local, 10**9, day=FIRST) == 0
    assert cost(local, 10**9, day=FIRST, batch=True) is None


def test_two_thousand_tokens_at_two_cents_a_million() -> None:
    """2,000 tokens at $0.02 a million are $0.000040."""
    assert cost(TWO, 2_000, day=FIRST) == 40_000


def test_cost_is_rounded_up() -> None:
    """A part of a nanodollar is a whole one."""
    odd = model(dated(FIRST, "0.0134"))
    assert cost(odd, 1, day=FIRST) == 14  # 13.4
    assert cost(odd, 5, day=FIRST) == 67  # exact
    assert cost(odd, 0, day=FIRST) == 0


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_cost_of_parts_covers_the_whole(one: int, other: int) -> None:
    """Holds taken call by call are never less than the cost of all at once."""
    odd = model(dated(FIRST, "0.0134"))
    parts = (cost(odd, one, day=FIRST) or 0) + (cost(odd, other, day=FIRST) or 0)
    whole = cost(odd, one + other, day=FIRST) or 0
    assert whole <= parts <= whole + 1
