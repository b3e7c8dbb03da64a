"""The router: every request walks the same pipeline, `Router._answer`, and everything else is a part of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from router.config import Endpoint, Secret, Settings, load_settings
from router.dispatch.delivery import Delivery, Route
from router.dispatch.limiter import Health, Limiter
from router.dispatch.local import embed_locally
from router.dispatch.request import PaidRequest
from router.domain.decide import decide
from router.domain.errors import BadInput, Refused, RouterError, StoreBusy, StoreError
from router.domain.explain import explain
from router.domain.money import price_tokens
from router.domain.pricing import rate
from router.domain.values import Ask, CandidateFacts, Facts, LongTexts, Model, Plan, Policy, Refusal, Role, Unit
from router.pipeline.account import (
    count_up,
    outcome_of,
    outcome_of_failure,
    outcome_of_refusal,
    quote_lines,
    record,
    to_result,
)
from router.pipeline.assemble import assemble
from router.pipeline.coverage import Coverage
from router.pipeline.estimates import Estimates
from router.pipeline.expand import Work, expand
from router.pipeline.facts import Missing, candidate
from router.pipeline.lookup import Lookup
from router.pipeline.request import Planned, Request
from router.pipeline.results import Quote, Result, to_error
from router.pipeline.validate import ValidTexts, validate
from router.providers.base import Provider
from router.providers.cohere import CohereProvider
from router.providers.gemini import GeminiProvider
from router.providers.local import LocalProvider, weights_of
from router.providers.openai import OpenAIProvider
from router.providers.own import with_own
from router.providers.voyage import VoyageProvider
from router.reporting.alerts import Alerts
from router.reporting.replay import replay
from router.store import folder
from router.store.alerts import AlertStore
from router.store.database import Database
from router.store.entries import Purpose, claim_kind
from router.store.ledger import LEASE_S, Ledger
from router.store.migrations import NAMES, migrations
from router.store.policies import Policies
from router.store.usage import Usage
from router.store.vectors import Cache, Damaged

T = TypeVar("T")
logger = logging.getLogger("router")
Progress = Callable[[int, int], None]
"""Called with (distinct texts done, distinct texts in all) as a request goes on."""

MOST_LOOK_UPS = 5
"""How often a request looks its texts up anew because cached vectors were erased or damaged meanwhile."""
REQUEST_S = 600.0
"""How long a request may wait for rate limits and other requests before it gives up, in seconds."""
PROVIDERS: Mapping[str, Callable[[Endpoint], Provider]] = {
    "openai": OpenAIProvider,
    "cohere": CohereProvider,
    "voyage": VoyageProvider,
    "gemini": GeminiProvider,
}
"""Whose wire a provider speaks -> its class. A provider is one file and one line here."""


class Router:
    """Answers texts with vectors from the cache, a local model or a paid API, by a policy.

    Made by `Router.open`; belongs to the event loop that it was opened on.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        providers: Mapping[str, Provider] | None = None,
    ) -> None:
        self.settings = settings
        self.catalog = settings.catalog
        self.clock = clock
        folder.prepare(settings.data)
        self.database = Database(settings.data / "router.db", migrations, NAMES, page_size=4096)
        self.cache = Cache(settings.data / "vectors.db")
        self.ledger = Ledger(self.database, clock)
        self.policies = Policies(self.database, clock)
        self.usage = Usage(self.database, clock)
        self.estimates = Estimates(self.database, self.catalog)
        alerts = AlertStore(self.database)
        self.alerts = Alerts(alerts, self.ledger, self.policies, self.usage, clock, settings.webhook)
        self.limiters = {name: Limiter(endpoint) for name, endpoint in settings.endpoints.items()}
        self.providers: dict[str, Provider] = {
            name: PROVIDERS[endpoint.wire](endpoint)
            for name, endpoint in settings.endpoints.items()
            if endpoint.wire in PROVIDERS
        }
        self.providers["local"] = LocalProvider(settings.data, settings.endpoints["local"].device)
        self.providers.update(providers or {})
        # For people who look at the money, as they are.
        self.budgets, self.totals = self.ledger.states, self.ledger.totals
        self.unconfirmed, self.reconcile = self.ledger.unconfirmed, self.ledger.reconcile
        self.token_errors = self.estimates.errors
        self.replay = partial(replay, self.database, self.catalog, self.policies)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beat: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path | str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        providers: Mapping[str, Provider] | None = None,
        models: Sequence[Model] = (),
    ) -> AsyncIterator[Router]:
        """Open the data folder (default: `ROUTER_DATA`, else `data/`), and close it in good order.

        Args:
            providers: who answers the calls of a provider, by its name: a new one, or instead of the configured one.
                They are closed with the router.
            models: beside those of the catalog and of `router.toml`.

        Raises:
            BadInput: `router.toml`, or one of `providers` and `models`, cannot be understood.
            StoreError: the databases cannot be opened.
        """
        settings = with_own(load_settings(path, env), (providers or {}).keys(), models)
        router = cls(settings, clock, providers)
        await router.start()
        try:
            yield router
        finally:
            await router.close()

    async def start(self) -> None:
        """Take a lease, resolve what dead processes left, write the defaults of a first start."""
        await self.ledger.renew()
        await self.ledger.sweep()
        await self.policies.ensure_defaults()
        self._beat = self._spawn(self._heartbeat())

    async def close(self) -> None:
        """Let requests end, then close everything."""
        if self._beat is not None:
            self._beat.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for provider in self.providers.values():
            await provider.aclose()
        await self.ledger.leave()
        self.database.close()
        self.cache.close()

    # ---- what people ask ----

    async def embed(
        self,
        texts: Sequence[str],
        *,
        policy: str = "default",
        role: Role = "document",
        model: str | None = None,
        dimensions: int | None = None,
        long_texts: LongTexts | None = None,
        partial: bool = False,
        collection: str = "",
        progress: Progress | None = None,
    ) -> Result:
        """Vectors for texts, by a policy.

        Args:
            texts: at least one; exact repeats are paid for once.
            role: `document` or `query`; some models embed the two differently.
            model: pin the request to this model's space.
            dimensions: fewer than the model's full size, where it serves that.
            long_texts: instead of the policy's own.
            partial: answer what can be answered and name the rest (files), instead of all or nothing.
            collection: whose texts these are, for the usage and the decision's words; they are embedded exactly as
                they are, whatever the policy's `normalise` says.
            progress: called as texts are answered.

        Raises:
            BadInput: a text, name or number is wrong.
            Refused: the policy, a budget or the kill switch says no; nothing was spent.
            ProviderError: the provider failed; what was answered is in the cache.

        If the caller is cancelled, calls that have left are still stored and charged; no more are sent.
        """
        request = await asyncio.to_thread(
            self._request, policy, role, model, dimensions, long_texts, partial, collection
        )
        request.progress = progress or request.progress
        task = self._spawn(self._answer(texts, request))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            request.cancelled.set()
            raise

    async def quote(
        self,
        texts: Sequence[str],
        *,
        policy: str = "default",
        role: Role = "document",
        model: str | None = None,
        dimensions: int | None = None,
        long_texts: LongTexts | None = None,
        partial: bool = False,
        collection: str = "",
    ) -> Quote:
        """What `embed` would do and cost, with every candidate; spends nothing. Arguments as of `embed`."""
        request = await asyncio.to_thread(
            self._request, policy, role, model, dimensions, long_texts, partial, collection
        )
        rule, ask = request.policy, request.ask
        valid = await _validate(texts, request)
        lookup = await self._look_up(valid, request)
        facts = await self._facts(lookup, rule, ask, exact=True)
        outcome = decide(ask, rule, facts, self.catalog.scale)
        lines = await asyncio.to_thread(quote_lines, lookup, outcome, facts.now.date())
        chosen = outcome.model if isinstance(outcome, Plan) else None
        line = next((line for line in lines if line.verdict.model is chosen), lines[0])
        return Quote(
            texts=valid.asked,
            distinct=len(valid.digests),
            tokens=line.full_expected_tokens,
            lines=lines,
            problems=dict(valid.problems),
            outcome=outcome,
            decision=explain(outcome, ask=ask, policy=rule, facts=facts),
        )

    def set_key(self, provider: str, key: str) -> None:
        """Use this key for the life of the process; it is kept in memory only."""
        self.settings.endpoints[provider].key = Secret(key.strip()) if key.strip() else None

    def health(self) -> list[Health]:
        """The state of the way to each paid provider."""
        return [limiter.health() for name, limiter in self.limiters.items() if name != "local"]

    def configured(self, model: Model) -> bool:
        """True where the model can be called: its key, or its weights, are there."""
        if model.local:
            return weights_of(model.name) is not None
        return model.provider in self.providers and self.settings.endpoints[model.provider].key is not None

    # ---- the pipeline ----

    async def _answer(self, texts: Sequence[str], request: Request) -> Result:
        """All steps of a request, in their order."""
        valid = await _validate(texts, request)  # 1
        planned = await self._plan(valid, request)  # 2, 3
        work = await asyncio.to_thread(expand, planned.lookup, planned.plan.model, request.policy.long_texts)
        try:
            done = await self._execute(planned, request, work)  # 4 to 7
        except RouterError as error:
            if request.number is not None:
                outcome = outcome_of_failure(request, planned, error)
                await record(self.usage, request, planned.lookup, planned.facts, outcome)
            raise
        tally = await asyncio.to_thread(count_up, planned, work, done)  # 8
        vectors = await assemble(planned, work, done, tally)
        result = to_result(planned, tally, vectors, done, self._today())
        first = next(iter(result.problems.values()), None)
        number = await record(
            self.usage, request, planned.lookup, planned.facts, outcome_of(request, result, first),
            tokenizer=planned.plan.model.tokenizer, tokens=tally.tokens,
        )  # fmt: skip
        if first is not None and not request.ask.partial:
            raise first.copy(
                message=f"{len(result.problems):,} of {result.texts:,} texts were not embedded: {first.message}"
            )
        return replace(result, request=number)

    async def _plan(self, valid: ValidTexts, request: Request) -> Planned:
        """Look up and decide; fetch the cached vectors that the plan counts on.

        Raises:
            Refused, BadInput: the decision is a refusal; it is recorded.
        """
        policy, ask = request.policy, request.ask
        for _ in range(MOST_LOOK_UPS):
            lookup = await self._look_up(valid, request)
            facts = await self._facts(lookup, policy, ask)
            plan = decide(ask, policy, facts, self.catalog.scale)
            decision = explain(plan, ask=ask, policy=policy, facts=facts)
            if isinstance(plan, Refusal):
                await record(self.usage, request, lookup, facts, outcome_of_refusal(request, valid, plan, decision))
                raise to_error(plan)
            try:
                cached = await asyncio.to_thread(lookup.fetch, plan.model)
            except Damaged as damage:  # without these vectors the decision may be another
                await self.cache.remove(damage.rows)
                continue
            return Planned(lookup=lookup, facts=facts, plan=plan, decision=decision, cached=cached)
        raise StoreError("Cached vectors change faster than they can be read.", "Try again.")

    async def _execute(self, planned: Planned, request: Request, work: Work) -> Delivery:
        """Make the missing vectors: on this machine, or by paid calls; where a provider fails, by another one.

        Hold, send, check, store and settle are `PaidRequest.run` and the calls that it sends (dispatch/).

        Raises:
            BudgetExceeded, Refused, StoreBusy: the request is not `partial`, and nothing was spent.
            StoreFull: the vectors could not be kept, so nothing was spent.
        """
        total = len(planned.lookup.valid.digests)
        known = total - len(work.units)

        def progress(done: int) -> None:
            request.progress(max(0, min(total, known + done)), total)

        if not work.units:
            return Delivery()
        if planned.plan.route == "local":
            return await embed_locally(
                self.providers[planned.plan.model.provider], self.cache, planned.plan.model, request.role, work.units,
                cancelled=request.cancelled.is_set, progress=progress,
            )  # fmt: skip
        request.number = await self.usage.begin(
            policy=request.policy.name, version=request.policy.version, collection=request.collection,
            role=request.role,
        )  # fmt: skip
        await self.cache.require_room()
        deadline = time.monotonic() + REQUEST_S
        done = Delivery()
        units: Sequence[Unit] = work.units
        tried: list[str] = []
        plan: Plan | None = planned.plan
        while plan is not None:
            route = self._route(plan.model, request, planned.lookup, deadline)
            paid = PaidRequest(route, _purpose(plan, request), partial=request.ask.partial, progress=progress)
            try:
                done.add(await paid.run(units), plan.model)
            except (Refused, StoreBusy):
                if not tried:
                    raise
                break  # the first route has spent something; its errors stand
            tried.append(plan.model.provider)
            units = [u for u in work.units if u.digest in done.failed and done.failed[u.digest].falls_over]
            plan = await self._fallback(planned, request, tried) if units and not request.cancelled.is_set() else None
        return done

    async def _fallback(self, planned: Planned, request: Request, tried: Collection[str]) -> Plan | None:
        """Another plan for the same space, without these providers; None where there is none."""
        ask = replace(request.ask, pinned_space=planned.plan.model.space)
        facts = await self._facts(planned.lookup, request.policy, ask)
        left = tuple(c for c in facts.candidates if c.model.provider not in tried)
        plan = decide(ask, request.policy, replace(facts, candidates=left), self.catalog.scale)
        return plan if isinstance(plan, Plan) and plan.route == planned.plan.route else None

    async def _look_up(self, valid: ValidTexts, request: Request) -> Lookup:
        coverage = Coverage(self.cache, self.catalog, role=request.role, long_texts=request.policy.long_texts)
        return await asyncio.to_thread(Lookup, valid, coverage, self.catalog, self.estimates)

    async def _facts(self, lookup: Lookup, policy: Policy, ask: Ask, *, exact: bool = False) -> Facts:
        """`exact`: count the tokens of every model, rather than of those that may serve."""

        def missing(model: Model) -> Missing:
            may_serve = ask.pinned_space in (None, model.space) and (model.local or not policy.local_only)
            return lookup.missing(model, exact=exact or (may_serve and self.configured(model)), row_by_row=ask.partial)

        return await self.build_facts(policy, missing)

    async def build_facts(self, policy: Policy, missing: Callable[[Model], Missing], *, batch: bool = False) -> Facts:
        """What a decision under a policy may know; `missing` is called in a worker thread. Raises StoreError.

        `batch`: nobody waits, so the batch tier may answer.
        """
        now = datetime.fromtimestamp(self.clock(), UTC)

        def one(model: Model) -> CandidateFacts:
            limiter = self.limiters[model.provider]
            return candidate(
                model, missing(model), now.date(), configured=self.configured(model), unhealthy=limiter.unhealthy(),
                width=limiter.width, batch=batch,
            )  # fmt: skip

        def build() -> Facts | None:
            if self.ledger.pace_is_due(policy.name):
                return None
            return Facts(
                now=now,
                candidates=tuple(map(one, self.catalog.models)),
                budgets=self.ledger.states(policy.name),
                paid_enabled=self.policies.paid_enabled(),
            )

        while (facts := await asyncio.to_thread(build)) is None:
            await self.ledger.judge_pace(policy.name)
        return facts

    # ---- parts ----

    def _route(self, model: Model, request: Request, lookup: Lookup, deadline: float) -> Route:
        usd = rate(model, self._today())

        def price(tokens: int) -> int:
            if usd is None:  # decide() never plans a paid call without a price
                raise Refused(f"The price of {model.id} is not known.", "Add it to the catalog.")
            return price_tokens(tokens, usd)

        return Route(
            model=model,
            role=request.role,
            provider=self.providers[model.provider],
            limiter=self.limiters[model.provider],
            ledger=self.ledger,
            cache=self.cache,
            price=price,
            stored=partial(lookup.coverage.stored, model),
            deadline=deadline,
            cancelled=request.cancelled.is_set,
        )

    def _today(self) -> date:
        return datetime.fromtimestamp(self.clock(), UTC).date()

    def _request(
        self, policy: str, role: Role, model: str | None, dimensions: int | None, long_texts: LongTexts | None,
        partial: bool, collection: str,
    ) -> Request:  # fmt: skip
        """What the arguments of `embed` and `quote` ask for. Raises BadInput."""
        rule = self.policies.get(policy)
        if role not in ("document", "query"):
            raise BadInput(f"There is no role '{role}'.", "It is `document` or `query`.")
        if dimensions is not None and dimensions < 1:
            raise BadInput(f"A vector cannot have {dimensions} dimensions.", "Ask for one or more.")
        pinned = self.catalog.get(model) if model is not None else None
        family = bool(collection) and role == "query" and rule.queries == "cheapest"
        ask = Ask(
            role=role,
            pinned_space=pinned.space if pinned else None,
            pinned_model=pinned.id if pinned and not family else None,
            dimensions=dimensions,
            partial=partial,
            collection=collection or None,
        )
        return Request(
            policy=rule if long_texts is None else replace(rule, long_texts=long_texts),
            role=role,
            ask=ask,
            collection=collection,
        )

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # retrieved, even if the caller has gone
        return task

    async def _heartbeat(self) -> None:
        """Renew this process's lease, sweep after dead ones, watch the budgets, forget old digests."""
        turns, last, sweep_after, old = 0, self.clock(), 0.0, True
        while True:
            await asyncio.sleep(LEASE_S / 5)
            now = self.clock()
            if now - last > LEASE_S:  # the machine slept, or the clock moved: give the others time to renew
                sweep_after = now + LEASE_S
            last = now
            try:
                await self.ledger.renew()
                if now >= sweep_after:
                    await self.ledger.sweep()
                await self.alerts.watch()
                if turns % 1000 == 0:
                    await self.usage.forget()
                if old:
                    old = await self.cache.add_checksums()
            except RouterError as error:  # a busy or full disk; the next request meets it and says so
                logger.warning("housekeeping: %s", error)
            turns += 1


async def _validate(texts: Sequence[str], request: Request) -> ValidTexts:
    ask = request.ask
    normalised = request.policy.normalise and ask.collection is None  # a collection's were when it was filled
    return await asyncio.to_thread(validate, texts, normalised=normalised, lenient=ask.partial)


def _purpose(plan: Plan, request: Request) -> Purpose:
    return Purpose(
        request=request.number or 0,
        policy=request.policy.name,
        model=plan.model.id,
        kind=claim_kind(plan.model, request.role),
        route=plan.route,
        collection=request.collection,
    )
