"""From a quote to a job: what a collection would cost, the choice of its space, and the job that embeds it."""

from __future__ import annotations

import asyncio

from router.batches.states import BatchTier
from router.domain.errors import BadInput
from router.domain.values import Model, Plan, Refusal
from router.engine import Router
from router.jobs.errors import current_price
from router.jobs.quote import PREVIEW, SAMPLE, Census, CorpusQuote, looks_english, quote_of
from router.pipeline.results import to_error
from router.search.vectors import coverage, embedded
from router.store.collections import Corpora
from router.store.jobs import Job, JobRoute, JobStore
from router.store.models import READY, TAKEN, Collection, Generation, GenerationState, StoredChunk


class Planner:
    """Quotes collections and begins their jobs, for `Library`, whose methods of the same names describe them."""

    def __init__(self, router: Router, corpora: Corpora, jobs: JobStore) -> None:
        self._router = router
        self._corpora = corpora
        self._jobs = jobs

    async def quote(
        self, name: str, *, model: str | None = None, queries_a_month: int = 0, anew: bool = False
    ) -> CorpusQuote:
        """See `Library.quote`."""
        corpora, chunks = self._corpora, self._corpora.chunks
        collection, active = await self._find(name)

        def look() -> tuple[Census, bool, list[StoredChunk], list[int]]:
            some = chunks.after(collection.id, b"", SAMPLE, states=TAKEN)
            texts = chunks.texts(collection.id, [one.digest for one in some], TAKEN)
            english = looks_english([chunk.text for chunk in texts.values()])
            new = corpora.documents(collection.id, states=("added",), limit=3)
            shown = new or corpora.documents(collection.id, states=READY, limit=3)
            preview = [chunk for document in shown for chunk in chunks.of(document.id, -1, PREVIEW)]
            census = Census.of(self._router, chunks, collection, self._router.policies.get(collection.policy))
            counts = [corpora.counts(collection.id, states)[0] for states in (TAKEN, ("added",), ("failed",))]
            return census, english, preview, counts

        census, english, preview, (documents, new_documents, failed) = await asyncio.to_thread(look)
        candidates, outcome, decision, overnight = await quote_of(
            self._router,
            collection,
            pinned=None if anew else active,
            model=model,
            queries_a_month=queries_a_month,
            census=census,
            english=english,
        )
        return CorpusQuote(
            collection=name,
            documents=documents,
            new_documents=new_documents,
            failed_documents=failed,
            chunks=census.sums.chunks,
            distinct=census.sums.distinct,
            duplicates=census.sums.chunks - census.sums.near_empty - census.sums.distinct,
            near_empty=census.sums.near_empty,
            bytes=census.sums.bytes,
            english=english,
            candidates=candidates,
            overnight=overnight,
            outcome=outcome,
            decision=decision,
            preview=tuple(preview),
        )

    async def confirm(self, name: str, *, model: str | None, dimensions: int | None, route: JobRoute | None) -> Job:
        """See `Library.confirm`."""
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

    async def improve(self, name: str, model: str, *, dimensions: int | None, route: JobRoute | None) -> Job:
        """See `Library.improve`."""
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
            cache = embedded(self._router.cache, self._router.catalog, generation, policy)
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
