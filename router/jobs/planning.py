"""From a quote to a job: what a collection would cost, the choice of its space, and the job that embeds it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from router.batches.states import BatchTier
from router.domain.errors import BadInput
from router.domain.values import Model, Plan, Refusal
from router.engine import Router
from router.jobs.errors import current_price
from router.jobs.quote import PREVIEW, SAMPLE, Census, CorpusQuote, looks_english, quote_of
from router.pipeline.results import to_error
from router.search.vectors import Embedded, coverage
from router.store.collections import Corpora
from router.store.jobs import Job, JobRoute, JobStore
from router.store.models import READY, TAKEN, Collection, Generation, GenerationState


class Planner:
    """Quotes collections and begins their jobs; its methods are `Library`'s."""

    def __init__(self, router: Router, corpora: Corpora, jobs: JobStore) -> None:
        self._router = router
        self._corpora = corpora
        self._jobs = jobs

    async def quote(
        self, name: str, *, model: str | None = None, queries_a_month: int = 0, anew: bool = False
    ) -> CorpusQuote:
        """What embedding the collection would cost: all that was confirmed or added, less what is cached.

        Args:
            model: as if this model were asked for.
            queries_a_month: for the cost of a year.
            anew: for another generation, in any space, instead of the one that the collection is pinned to.
        """
        corpora, chunks = self._corpora, self._corpora.chunks
        collection, active = await self._find(name)

        def look() -> tuple[Census, bool, dict[str, Any]]:
            some = chunks.after(collection.id, b"", SAMPLE, states=TAKEN)
            texts = chunks.texts(collection.id, [one.digest for one in some], TAKEN)
            new = corpora.documents(collection.id, states=("added",), limit=3)
            shown = new or corpora.documents(collection.id, states=READY, limit=3)
            census = Census(self._router, collection, self._router.policies.get(collection.policy))
            for page in chunks.distinct(collection.id, states=TAKEN):
                census.add(page)
            return census, looks_english([chunk.text for chunk in texts.values()]), {
                "documents": corpora.counts(collection.id, TAKEN)[0],
                "new_documents": corpora.counts(collection.id, ("added",))[0],
                "preview": tuple(chunk for document in shown for chunk in chunks.of(document.id, -1, PREVIEW)),
            }  # fmt: skip

        census, english, documents = await asyncio.to_thread(look)
        quote = await quote_of(
            self._router, collection, census, english=english, pinned=None if anew else active, model=model,
            queries_a_month=queries_a_month,
        )  # fmt: skip
        return replace(quote, **documents)

    async def confirm(
        self, name: str, *, model: str | None = None, dimensions: int | None = None, route: JobRoute | None = None
    ) -> Job:
        """Agree to the quote: what was added becomes part of the collection, and a job embeds what is missing.

        Args:
            model: pins a collection that is not pinned yet; without it, the decision's choice does.
            dimensions: the size that is searched; the model's default without it.
            route: `batch` for half the price within a day; else what the decision says.

        Raises:
            BadInput: the collection is empty, or pinned to another space, or the route is not served.
            Refused: the policy or the kill switch says no.
        """
        collection, active = await self._find(name)
        if active is not None and model not in (None, active.model):
            raise BadInput(
                f"The collection '{name}' is pinned to {active.space}.",
                f"Leave the model out, or re-embed the collection with {model} beside it.",
            )
        quote = await self.quote(name, model=model)
        if quote.chunks == quote.near_empty:
            raise BadInput(f"The collection '{name}' has nothing to embed.", "Add files first.")
        if isinstance(quote.outcome, Refusal):
            raise to_error(quote.outcome)
        chosen = self._router.catalog.get(active.model) if active else quote.outcome.model
        route = self._route(chosen, route, quote.outcome)
        generation = active or await self.pin(collection, chosen, dimensions)
        await self._corpora.confirm(collection.id)
        return await self._start(collection, generation, chosen, route)

    async def improve(
        self, name: str, model: str, *, dimensions: int | None = None, route: JobRoute | None = None
    ) -> Job:
        """Re-embed a collection in another space beside the one that is searched; it switches when all is there.

        Raises:
            BadInput: the collection is not embedded yet, is being re-embedded already, or is of this model.
            Refused: the policy or the kill switch says no.
        """
        collection, active = await self._find(name)
        chosen = self._router.catalog.get(model)
        if active is None:
            raise BadInput(f"The collection '{name}' is not embedded yet.", "Confirm its quote with the model instead.")
        if (active.model, active.space) == (chosen.id, chosen.space):
            raise BadInput(f"The collection '{name}' is embedded by {chosen.id} already.", "Choose another model.")
        quote = await self.quote(name, model=model, anew=True)
        if isinstance(quote.outcome, Refusal):
            raise to_error(quote.outcome)
        wanted: JobRoute | None = route or ("batch" if BatchTier.of(self._router).serves(chosen) else None)
        route = self._route(chosen, wanted, quote.outcome)
        generation = await self.pin(collection, chosen, dimensions, "building")
        return await self._start(collection, generation, chosen, route)

    async def pin(
        self, collection: Collection, model: Model, dimensions: int | None, state: GenerationState = "active"
    ) -> Generation:
        """A new generation of a collection, of this model.

        Raises:
            BadInput: the model does not serve so many dimensions, or the collection has a generation in this state.
        """
        check_size(model, dimensions)
        return await self._corpora.add_generation(
            collection.id,
            model=model.id,
            space=model.space,
            dimensions=dimensions or model.default_dimensions,
            state=state,
        )

    async def coverage(self, collection: Collection, generation: Generation | None) -> tuple[int, int]:
        """(distinct texts, those that have their vector) of a generation; (chunks, 0) without one."""

        def look() -> tuple[int, int]:
            if generation is None:
                return self._corpora.counts(collection.id, READY)[1], 0
            policy = self._router.policies.get(collection.policy)
            cache = Embedded(self._router.cache, self._router.catalog, generation, policy)
            return coverage(self._corpora, collection.id, cache)

        return await asyncio.to_thread(look)

    async def _find(self, name: str) -> tuple[Collection, Generation | None]:
        """A collection and the generation that is searched."""

        def look() -> tuple[Collection, Generation | None]:
            collection = self._corpora.get(name)
            return collection, self._corpora.active(collection.id)

        return await asyncio.to_thread(look)

    def _route(self, model: Model, wanted: JobRoute | None, outcome: Plan) -> JobRoute:
        if model.local:
            if wanted in ("api", "batch"):
                raise BadInput(f"{model.id} is a local model.", "Leave the route out.")
            return "local"
        route: JobRoute = wanted or ("batch" if outcome.route == "batch" else "api")
        if route == "local" or (route == "batch" and not BatchTier.of(self._router).serves(model)):
            raise BadInput(f"{model.id} cannot be reached by the route '{route}'.", "Choose another route or model.")
        return route

    async def _start(self, collection: Collection, generation: Generation, model: Model, route: JobRoute) -> Job:
        total, done = await self.coverage(collection, generation)
        price = current_price(self._router, model, route)
        return await self._jobs.create(
            collection_id=collection.id,
            collection=collection.name,
            generation=generation.id,
            policy=collection.policy,
            model=model.id,
            route=route,
            price="0" if price is None else str(price),
            total=total,
            done=done,
        )


def check_size(model: Model, dimensions: int | None) -> None:
    """Raise BadInput where the model does not serve so many dimensions."""
    if dimensions is not None and not model.serves(dimensions):
        raise BadInput(f"{model.id} does not serve {dimensions} dimensions.", "Leave them out for its usual size.")
