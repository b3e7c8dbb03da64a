"""What tokens cost on a day. Prices are dated, so that a charge of last month is explained by last month's price."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from router.domain.money import price_tokens
from router.domain.values import Model, Plan, Price, Saved

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


def rate(model: Model, day: date, *, batch: bool = False) -> Decimal | None:
    """USD per million tokens on this day, at once or by the batch tier; None where it is unknown or not sold."""
    price = price_on(model, day)
    return None if price is None else price.batch if batch else price.now


def saved(plan: Plan, day: date, *, cached: int, repeated: int, made: int, billed: int = 0) -> Saved:
    """What a plan did not spend, by cause, at its reference's normal price; nothing without a reference or a price.

    Args:
        cached, made: tokens of the distinct texts that the cache had, and of those that `plan.route` made.
        repeated: tokens of every copy of a text but its first.
        billed: nanodollars that a batch came to.
    """
    usd = None if plan.reference is None else rate(plan.reference, day)
    if usd is None:
        return Saved()
    hits, rest = price_tokens(cached, usd), price_tokens(made, usd)
    smaller = plan.dimensions < plan.model.default_dimensions
    return Saved(
        cache=0 if smaller else hits,
        dimensions=hits if smaller else 0,
        repeats=price_tokens(repeated, usd),
        local=rest if plan.route == "local" else 0,
        batch=max(0, rest - billed) if plan.route == "batch" else 0,
    )
