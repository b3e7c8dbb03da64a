"""What tokens cost on a day. Prices are dated, so that a charge of last month is explained by last month's price."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from router.domain.money import price_tokens
from router.domain.values import Model, Price

_FREE = Price(since=date.min, now=Decimal(0), source="made on this machine", checked=date.min)


def price_on(model: Model, day: date) -> Price | None:
    """The price that holds on this day, or None for a paid model without any.

    A day before the first `since` is priced by the first entry: its date is that of the reading, and not of the
    vendor's change. A local model's price is zero, and it has no batch tier.
    """
    if model.local:
        return _FREE
    if not model.prices:
        return None
    held = [price for price in model.prices if price.since <= day]
    return held[-1] if held else model.prices[0]


def cost(model: Model, tokens: int, *, day: date, batch: bool = False) -> int | None:
    """Nanodollars for this many tokens on this day, rounded up; None where the price is unknown or not sold."""
    if model.local:
        return 0
    price = price_on(model, day)
    usd = None if price is None else price.batch if batch else price.now
    return None if usd is None else price_tokens(tokens, usd)
