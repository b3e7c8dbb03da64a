"""Money is integer nanodollars (1 USD = 10**9), rounded up where it must be rounded; floats never hold money."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation

from router.domain.errors import BadInput

NANO = 1_000_000_000
PER_MILLION = 1_000_000
NANODOLLAR = Decimal("1e-9")


def price_tokens(tokens: int, usd_per_million: Decimal) -> int:
    """Nanodollars for `tokens` tokens at a price in USD per million tokens, rounded up."""
    exact = Decimal(tokens) * usd_per_million * (NANO // PER_MILLION)
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def parse_usd(text: str) -> int:
    """Nanodollars from a decimal number of dollars such as `5`, `0.0005` or `$12.40`.

    Raises:
        BadInput: not a number, negative, not finite, finer than a nanodollar, or above a billion dollars.
    """
    try:
        amount = Decimal(text.strip().removeprefix("$").replace("_", ""))
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite():
        raise BadInput(f"'{text}' is not an amount of dollars.", "Write it like 5 or 0.25.")
    if amount < 0:
        raise BadInput(f"An amount of money cannot be negative: {text}.", "Write zero or more.")
    if amount > 1_000_000_000:
        raise BadInput(f"{text} dollars is more than an amount of money may be.", "The most is a billion.")
    exact = amount.quantize(NANODOLLAR)
    if exact != amount:  # compared as written: multiplied first, its 29th digit would be rounded away
        raise BadInput(f"{text} dollars is finer than a nanodollar.", "Use at most nine decimals.")
    return int(exact * NANO)


def to_json(nanodollars: int) -> str:
    """USD as a string with nine decimals, the form of every amount in JSON: `0.000854000`."""
    sign = "-" if nanodollars < 0 else ""
    whole, rest = divmod(abs(nanodollars), NANO)
    return f"{sign}{whole}.{rest:09d}"


def show(nanodollars: int) -> str:
    """USD for people, with as many digits as the amount needs: `$12.40`, `$0.0031`, `$0.000040`."""
    sign = "-" if nanodollars < 0 else ""
    amount = abs(nanodollars)
    if amount == 0:
        return "$0.00"
    if amount < 1_000:
        return f"{sign}< $0.000001"
    usd = Decimal(amount) / NANO
    decimals = 2 if amount >= NANO // 10 else 4 if amount >= NANO // 1_000 else 6
    return f"{sign}${usd:,.{decimals}f}"


def show_likely(expected: int, most: int) -> str:
    """Two figures for people, `likely $0.0350, at most $0.19`; one where they read the same."""
    likely, at_most = show(expected), show(most)
    return at_most if likely == at_most else f"likely {likely}, at most {at_most}"
