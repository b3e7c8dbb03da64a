"""From a quote to a job: what a collection would cost, the choice of its space, and the jobs that carry it out."""

from __future__ import annotations

import asyncio

from router.batches.states import BatchTier
from router.domain.errors import BadInput
from router.domain.values import Model, Plan, Refusal
from router.engine import Router
from router.jobs.errors import current_price
from router.jobs.quote import PREVIEW, SAMPLE, Census, CorpusQuote, looks_english, quote_of
from router.pipeline.answer import to_error
from router.search.vectors import coverage, embedded
from router.store.collections import Corpora
from router.store.jobs import Job, JobRoute, JobStore
from router.store.models import Collection, Generation, StoredChunk


class Orders:
    """Quotes, generations and jobs of collections; a part of `Library`."""

    def __init__(self, router: Router, corpora: Corpora, jobs: JobStore) -> None:
        self.router = router
        self.corpora = corpora
        self.jobs = jobs

    async def quote(
        self, name: str, *, model: str | None = None, queries_a_month: int = 0, anew: bool = False
    ) -> CorpusQuote:
        """What embedding the collection would cost: all that was confirmed or added, less what is cached.

        Args:
            model: as if this model were asked for.
            queries_a_month: for the cost of a year.
            anew: for another generation, in any space, instead of the one that the collection is pinned to.
        """
        collection = self.corpora.get(name)
        policy = self.router.policies.get(collection.policy)
        pinned = None if anew else self.corpora.active(collection.id)
        chunks = self.corpora.chunks

        def look() -> tuple[Census, bool, list[StoredChunk]]:
            some = chunks.after(collection.id, b"", SAMPLE, states=("ready", "added"))
            texts = chunks.texts(collection.id, [one.digest for one in some], ("ready", "added"))
            english = looks_english([chunk.text for chunk in texts.values()])
            new = self.corpora.documents(collection.id, states=("added",), limit=3)
            shown = new or self.corpora.documents(collection.id, states=("ready",), limit=3)
            preview = [chunk for document in shown for chunk in chunks.of(document.id, -1, PREVIEW)]
            return Census.of(self.router, chunks, collection, policy), english, preview

        census, english, preview = await asyncio.to_thread(look)
        candidates, outcome, decision, overnight = await quote_of(
            self.router,
            collection,
            pinned=pinned,
            model=model,
            queries_a_month=queries_a_month,
            census=census,
            english=english,
        )
        documents, _ = self.corpora.counts(collection.id)
        new_documents, _ = self.corpora.counts(collection.id, ("added",))
        failed, _ = self.corpora.counts(collection.id, ("failed",))
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
        collection = self.corpora.get(name)
        active = self.corpora.active(collection.id)
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
        chosen = self.router.catalog.get(active.model) if active else quote.outcome.model
        route = self._route(chosen, route, quote.outcome)
        generation = active or await self._pin(collection, chosen, dimensions)
        await self.corpora.confirm(collection.id)
        return await self._start(collection, generation, chosen, route)

    async def improve(
        self, name: str, model: str, *, dimensions: int | None = None, route: JobRoute | None = None
    ) -> Job:
        """Re-embed a collection in another space beside the one that is searched; it switches when all is there.

        Raises:
            BadInput: the collection is not embedded yet, is being re-embedded already, or is of this model.
            Refused: the policy or the kill switch says no.
        """
        collection = self.corpora.get(name)
        chosen = self.router.catalog.get(model)
        active = self.corpora.active(collection.id)
        if active is None:
            raise BadInput(f"The collection '{name}' is not embedded yet.", "Confirm its quote with the model instead.")
        if (active.model, active.space) == (chosen.id, chosen.space):
            raise BadInput(f"The collection '{name}' is embedded by {chosen.id} already.", "Choose another model.")
        quote = await self.quote(name, model=model, anew=True)
        if isinstance(quote.outcome, Refusal):
            raise to_error(quote.outcome)
        wanted: JobRoute | None = route or ("batch" if self._tier().serves(chosen) else None)
        route = self._route(chosen, wanted, quote.outcome)
        check_size(chosen, dimensions)
        generation = await self.corpora.add_generation(
            collection.id,
            model=chosen.id,
            space=chosen.space,
            dimensions=dimensions or chosen.default_dimensions,
            state="building",
        )
        return await self._start(collection, generation, chosen, route)

    async def switch(self, name: str) -> Generation:
        """Search the generation that is being built from now on, even if some texts are missing from it.

        Raises:
            BadInput: none is being built.
        """
        collection = self.corpora.get(name)
        building = next((g for g in self.corpora.generations(collection.id) if g.state == "building"), None)
        if building is None or not await self.corpora.switch(building.id):
            raise BadInput(f"No other generation of '{name}' is being built.", "Re-embed it with another model first.")
        return building

    async def drop(self, generation: int) -> None:
        """Forget a generation that is not searched, and end its job. Its vectors stay in the cache.

        Raises:
            BadInput: it is the one that is searched, or there is none.
        """
        for job in self.jobs.all(open_only=True):
            if job.generation == generation:
                await self.jobs.cancel(job.id)
        if not await self.corpora.drop(generation):
            raise BadInput("This generation is searched, or gone.", "Switch to another one first.")

    def job(self, number: int) -> Job:
        """A job, with what it has spent by now. Raises BadInput where there is none."""
        return self.jobs.get(number)

    async def pause(self, number: int) -> Job:
        """Let a job rest until somebody resumes it. Raises BadInput where it has ended."""
        return await self.jobs.pause(number)

    async def resume(self, number: int) -> Job:
        """Go on with a job, at today's price. Raises BadInput where it has ended."""
        job = self.jobs.get(number)
        price = current_price(self.router, self.router.catalog.get(job.model), job.route)
        return await self.jobs.resume(number, price=None if price is None else str(price))

    async def cancel(self, number: int) -> Job:
        """End a job; what it made stays. Raises BadInput where it has ended."""
        return await self.jobs.cancel(number)

    async def retry(self, number: int) -> Job:
        """Try the texts of a job that failed again. Raises BadInput where another one runs."""
        job = self.jobs.get(number)
        if job.route == "batch":
            await self._tier().forgive(job)
        return await self.jobs.retry(number)

    def failures(self, number: int) -> list[tuple[StoredChunk, str]]:
        """The chunks that a job could not embed, and why; at most a thousand."""
        job = self.jobs.get(number)
        reasons = self.jobs.failures(number)
        found = self.corpora.chunks.texts(job.collection_id, list(reasons))
        return [(found[digest], why) for digest, why in reasons.items() if digest in found]

    # ---- small things ----

    def _tier(self) -> BatchTier:
        return BatchTier(self.router)

    async def _pin(self, collection: Collection, model: Model, dimensions: int | None) -> Generation:
        check_size(model, dimensions)
        return await self.corpora.add_generation(
            collection.id,
            model=model.id,
            space=model.space,
            dimensions=dimensions or model.default_dimensions,
            state="active",
        )

    def _route(self, model: Model, wanted: JobRoute | None, outcome: Plan) -> JobRoute:
        if model.local:
            if wanted in ("api", "batch"):
                raise BadInput(f"{model.id} is a local model.", "Leave the route out.")
            return "local"
        route: JobRoute = wanted or ("batch" if outcome.route == "batch" else "api")
        if route == "local" or (route == "batch" and not self._tier().serves(model)):
            raise BadInput(f"{model.id} cannot be reached by the route '{route}'.", "Choose another route or model.")
        return route

    async def _start(self, collection: Collection, generation: Generation, model: Model, route: JobRoute) -> Job:
        total, done = await self._coverage(collection, generation)
        price = current_price(self.router, model, route)
        return await self.jobs.create(
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

    async def _coverage(self, collection: Collection, generation: Generation | None) -> tuple[int, int]:
        if generation is None:
            return self.corpora.counts(collection.id, ("ready",))[1], 0
        cache = embedded(self.router, generation, collection.policy)
        return await asyncio.to_thread(coverage, self.corpora, collection.id, cache)


def check_size(model: Model, dimensions: int | None) -> None:
    """Raise BadInput where the model does not serve so many dimensions."""
    if dimensions is not None and not model.serves(dimensions):
        raise BadInput(f"{model.id} does not serve {dimensions} dimensions.", "Leave them out for its usual size.")
