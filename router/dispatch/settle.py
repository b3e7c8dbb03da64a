"""How a call that left is settled: charged, unconfirmed or released, by what its provider says of the money."""

from __future__ import annotations

from collections.abc import Sequence

from router import tokens
from router.dispatch.delivery import Delivery, Route
from router.domain.errors import BadReply, ProviderError, Refused
from router.domain.usage import Believed, believe
from router.domain.values import Unit
from router.providers.base import Floats
from router.store.entries import Hold
from router.store.ledger import Price
from router.store.vectors import vector_key


async def store_and_settle(route: Route, out: Delivery, hold: Hold, vectors: Floats, said: int | None) -> None:
    """Store the vectors of a call, then settle it: a crash between the two over-counts money for a while and loses no
    vector. `said`: the tokens that the provider says it billed.

    Raises:
        StoreError: the vectors are lost, and the call is charged.
    """
    units = hold.units
    try:
        await route.cache.store(
            vector_key(route.model, route.role, "whole"), [u.digest for u in units], [u.likely for u in units], vectors
        )
    finally:
        believed = _believe(units, said)
        amount, beyond = _worth(believed, route.price)
        doubt = believed.doubt if amount else ""
        await route.ledger.settle(
            hold, amount, believed.tokens, confirmed=not believed.doubt, unconfirmed=beyond, doubt=doubt
        )
        out.charged += amount
        out.unconfirmed += beyond
        out.tokens += believed.tokens
        if doubt:
            out.doubts[doubt] += 1
    out.vectors.update(zip((u.digest for u in units), vectors, strict=True))


async def settle_failure(
    route: Route, out: Delivery, hold: Hold, error: ProviderError, again: Sequence[Sequence[Unit]] = ()
) -> tuple[Hold, ...] | Refused:
    """End the hold of a call that failed, by what is known of its money, and take new ones for the calls `again`; gives
    those, or why there are none."""
    billed: int | None = 0 if error.billed == "no" else None
    beyond = said = 0
    if isinstance(error, BadReply) and error.tokens is not None:
        believed = _believe(hold.units, error.tokens)
        if not believed.doubt or believed.beyond:  # else it says nothing, and all of the hold may be billed
            said = believed.tokens
            billed, beyond = _worth(believed, route.price)
    out.charged += billed or 0
    out.tokens += said
    out.unconfirmed += hold.amount if billed is None else beyond
    return await route.ledger.fail(
        hold, error.message, billed=billed, tokens=said, unconfirmed=beyond, again=again, price=route.price
    )


def _worth(believed: Believed, price: Price) -> tuple[int, int]:
    """(settled, unconfirmed) nanodollars; together at least what the provider said."""
    settled = price(believed.tokens)
    return settled, price(believed.tokens + believed.beyond) - settled


def _believe(units: Sequence[Unit], said: int | None) -> Believed:
    held = sum(u.tokens for u in units)
    plausible = said is not None and len(units) <= said <= held
    most = held if plausible or said is None else sum(tokens.count("bytes", [u.text for u in units]))
    return believe(said, texts=len(units), held=held, most=most)
