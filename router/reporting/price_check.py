"""Prices compared with another source: the package `genai-prices`, offline, and with the catalog as shipped.

The package is a check and not a source: it has no batch prices and not every model, and a difference is for a person to
look up at the vendor. A price that differs from the shipped catalog's was set in `router.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Literal

from router.config import CATALOG_FILE, CONFIG_FILE
from router.domain.catalog import Catalog, parse_catalog
from router.domain.pricing import price_on, rate
from router.domain.values import Model, Price

Agreement = Literal["same", "differs", "unknown to them", "unknown to us"]
A_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A paid model's price today, USD per million tokens, by our catalog and by the package; None is not known."""

    model: str
    ours: Decimal | None
    theirs: Decimal | None

    @property
    def verdict(self) -> Agreement:
        """Whether the two agree."""
        if self.theirs is None:
            return "unknown to them"
        if self.ours is None:
            return "unknown to us"
        return "same" if self.ours == self.theirs else "differs"


def crosscheck(catalog: Catalog, day: date) -> list[Checked]:
    """Every paid model of the catalog, in its order; the package is loaded on first use (about half a second)."""
    paid = [model for model in catalog.models if not model.local]
    return [Checked(model=model.id, ours=rate(model, day), theirs=_theirs(model, day)) for model in paid]


def _theirs(model: Model, day: date) -> Decimal | None:
    from genai_prices import Usage, calc_price

    noon = datetime.combine(day, time(12), UTC)
    try:
        found = calc_price(
            Usage(input_tokens=A_MILLION), model.name, provider_id=model.provider, genai_request_timestamp=noon
        )
    except LookupError:
        return None
    # The package takes the closest name it knows; another model's price says nothing of ours.
    return Decimal(found.input_price) if found.model.id == model.name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A price of `router.toml` that holds today, or will: `new`, and what the catalog says for the same day, `old`."""

    model: str
    old: Price | None
    new: Price


def overrides(catalog: Catalog, day: date) -> list[Override]:
    """Every price that `router.toml` puts in the place of the catalog's, from `day` on, in the catalog's order."""
    mark = f"{CONFIG_FILE}: "
    ours = {m.id: [p for p in m.prices if p.source.startswith(mark)] for m in catalog.models}
    if not any(ours.values()):
        return []
    catalog_text = CATALOG_FILE.read_text(encoding="utf-8")
    shipped = {model.id: model for model in parse_catalog(catalog_text, origin=CATALOG_FILE.name).models}
    return [
        Override(model=model.id, old=price_on(shipped[model.id], max(day, price.since)), new=price)
        for model in catalog.models
        if model.id in shipped
        for price in ours[model.id]
        if price.since > day or price == price_on(model, day)
    ]
