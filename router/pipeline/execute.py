"""Steps 4 to 7 of a request: its missing vectors made, on this machine or over the ways that lead to its space."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from router.dispatch.delivery import Delivery, Route
from router.dispatch.limiter import Limiter
from router.dispatch.local import embed_locally
from router.dispatch.request import PaidRequest
from router.domain.errors import Refused, StoreBusy
from router.domain.money import price_tokens
from router.domain.pricing import price_on
from router.domain.values import Model, Plan, Unit
from router.pipeline.answer import Request
from router.pipeline.coverage import Survey
from router.pipeline.expand import Work
from router.providers.base import Provider
from router.store.entries import Purpose, claim_kind
from router.store.ledger import Ledger
from router.store.vectors import Cache

Otherwise = Callable[[Collection[str]], Awaitable[Plan | None]]
"""Another plan for the same space, past these providers; None where there is no other way."""


class Carrier:
    """Makes vectors by a plan."""

    def __init__(
        self,
        cache: Cache,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        limiters: Mapping[str, Limiter],
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._ledger = ledger
        self._providers = providers
        self._lanes = limiters
        self._clock = clock

    async def locally(self, plan: Plan, asked: Request, work: Work, progress: Callable[[int], None]) -> Delivery:
        """All units by a local model."""
        provider = self._providers[plan.model.provider]
        return await embed_locally(
            provider,
            self._cache,
            plan.model,
            asked.role,
            work.units,
            cancelled=asked.cancelled.is_set,
            progress=progress,
        )

    async def paid(
        self,
        plan: Plan,
        asked: Request,
        work: Work,
        number: int,
        *,
        survey: Survey,
        deadline_s: float,
        otherwise: Otherwise,
        progress: Callable[[int], None],
    ) -> Delivery:
        """All units by a paid model; where its provider fails, by another way to the same space.

        Raises:
            BudgetExceeded, Refused, StoreBusy: the request is not `partial`, and nothing was spent.
            StoreFull: the vectors could not be kept, so nothing was spent.
        """
        await self._cache.require_room()
        deadline = time.monotonic() + deadline_s
        done = Delivery()
        units: Sequence[Unit] = work.units
        tried: list[str] = []
        way: Plan | None = plan
        while way is not None:
            route = self._route(way.model, asked, survey, deadline)
            request = PaidRequest(route, _purpose(way, asked, number), partial=asked.ask.partial, progress=progress)
            try:
                came = await request.run(units)
            except (Refused, StoreBusy):
                if not tried:
                    raise
                break  # the first way has spent something; its errors stand
            done.add(came)
            if came.vectors:
                done.model = way.model
            tried.append(way.model.provider)
            units = [u for u in work.units if u.digest in done.failed and done.failed[u.digest].falls_over]
            way = await otherwise(tried) if units and not asked.cancelled.is_set() else None
        return done

    def _route(self, model: Model, asked: Request, survey: Survey, deadline: float) -> Route:
        price = price_on(model, datetime.fromtimestamp(self._clock(), UTC).date())
        per_million = price.now if price is not None else None

        def cost(tokens: int) -> int:
            if per_million is None:  # decide() never plans a paid call without a price
                raise Refused(f"The price of {model.id} is not known.", "Add it to the catalog.")
            return price_tokens(tokens, per_million)

        return Route(
            model=model,
            role=asked.role,
            provider=self._providers[model.provider],
            limiter=self._lanes[model.provider],
            ledger=self._ledger,
            cache=self._cache,
            price=cost,
            fits=lambda kind: survey.fits(kind, model),
            deadline=deadline,
            cancelled=asked.cancelled.is_set,
        )


def _purpose(plan: Plan, asked: Request, number: int) -> Purpose:
    return Purpose(
        request=number,
        policy=asked.policy.name,
        model=plan.model.id,
        kind=claim_kind(plan.model, asked.role),
        route=plan.route,
        collection=asked.collection,
    )
