"""Money is exact: nothing is lost in reading, writing or rounding, and rounding is never in our favour."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.errors import BadInput
from router.domain.money import NANO, parse_usd, price_tokens, show, to_json

AMOUNTS = st.integers(0, 10**18)
PRICES = st.decimals(min_value=0, max_value=1_000, places=6)


@given(AMOUNTS)
def test_json_reads_back(amount: int) -> None:
    """Every amount survives the way to JSON and back."""
    assert parse_usd(to_json(amount)) == amount


@given(st.integers(-(10**18), 10**18))
def test_json_has_nine_decimals_and_the_exact_value(amount: int) -> None:
    """JSON has nine decimals and means the same number, also below zero."""
    text = to_json(amount)
    assert len(text.split(".")[1]) == 9
    assert Decimal(text) * NANO == amount


@given(st.integers(0, 10**12), PRICES)
def test_tokens_are_rounded_up_by_less_than_a_nanodollar(tokens: int, price: Decimal) -> None:
    """A cost is the exact product or less than one nanodollar above it."""
    exact = Fraction(price) * tokens * 1_000
    assert exact <= price_tokens(tokens, price) < exact + 1


@given(st.integers(0, 10**9), st.integers(0, 10**9), PRICES)
def test_more_tokens_never_cost_less(one: int, other: int, price: Decimal) -> None:
    """Costs grow with tokens."""
    assert (one <= other) <= (price_tokens(one, price) <= price_tokens(other, price))


def test_known_cost() -> None:
    """2,000 tokens at $0.02 a million are 40,000 nanodollars; one token at a price too fine is rounded up."""
    assert price_tokens(2_000, Decimal("0.02")) == 40_000
    assert price_tokens(1, Decimal("0.0134")) == 14
    assert price_tokens(0, Decimal("0.13")) == 0


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5", 5 * NANO),
        ("$12.40", 12_400_000_000),
        (" 0.0005 ", 500_000),
        ("0", 0),
        ("0.000000001", 1),
        ("1_000", 1_000 * NANO),
        ("1e-9", 1),
        ("1000000000", 10**18),
    ],
)
def test_amount_is_read(text: str, amount: int) -> None:
    """Amounts are read to the nanodollar, however they are written."""
    assert parse_usd(text) == amount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an amount"),
        ("five", "not an amount"),
        ("nan", "not an amount"),
        ("inf", "not an amount"),
        ("-inf", "not an amount"),
        ("5,00", "not an amount"),
        ("-1", "cannot be negative"),
        ("-0.000000001", "cannot be negative"),
        ("0.0000000001", "finer than a nanodollar"),
        ("1000000000.000000001", "more than an amount of money"),
        ("1e30", "more than an amount of money"),
    ],
)
def test_what_is_no_amount_is_refused(text: str, why: str) -> None:
    """Anything that is not zero to a billion dollars in nanodollars is refused, saying why."""
    with pytest.raises(BadInput, match=why):
        parse_usd(text)


@given(st.text(max_size=20))
def test_reading_is_total(text: str) -> None:
    """Any text is an amount from zero to a billion dollars, or BadInput."""
    try:
        amount = parse_usd(text)
    except BadInput:
        return
    assert 0 <= amount <= 10**18


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1, "< $0.000001"),
        (-1, "-< $0.000001"),
        (999, "< $0.000001"),
        (1_000, "$0.000001"),
        (40_000, "$0.000040"),
        (3_100_000, "$0.0031"),
        (12_400_000_000, "$12.40"),
        (-12_400_000_000, "-$12.40"),
        (1_234_567_890_000_000, "$1,234,567.89"),
    ],
)
def test_amount_is_shown_with_the_digits_it_needs(amount: int, text: str) -> None:
    """People see as many digits as the amount needs, and never a zero for money that was spent."""
    assert show(amount) == text


@given(st.integers(1_000, 10**18))
def test_shown_amount_is_close(amount: int) -> None:
    """What is shown is within a twentieth of the amount, or half a millionth of a dollar."""
    shown = Decimal(show(amount).replace("$", "").replace(",", "")) * NANO
    assert abs(shown - amount) <= max(Decimal(amount) / 20, Decimal(500))
