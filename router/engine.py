"""The router: every request walks the same corridor, `Router._corridor`, and everything else is a room off it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from router.config import Endpoint, Secret, Settings, load_settings
from router.dispatch.delivery import Delivery
from router.dispatch.limiter import Health, Limiter
from router.domain.decide import decide
from router.domain.errors import BadInput, RouterError, StoreError
from router.domain.explain import explain
from router.domain.ratios import Errors
from router.domain.values import Ask, BudgetState, Facts, LongTexts, Model, Plan, Policy, Refusal, Role
from router.pipeline.account import quote_lines
from router.pipeline.answer import Answers, Ending, Request
from router.pipeline.coverage import Survey
from router.pipeline.estimates import Estimates
from router.pipeline.execute import Carrier
from router.pipeline.expand import Work, expand
from router.pipeline.results import Quote, Result
from router.pipeline.validate import Intake, take_in
from router.providers.base import Floats, Provider
from router.providers.cohere import CohereProvider
from router.providers.gemini import GeminiProvider
from router.providers.local import LocalProvider, weights_of
from router.providers.openai import OpenAIProvider
from router.providers.voyage import VoyageProvider
from router.reporting.alerts import Alerts
from router.store import folder
from router.store.database import Database
from router.store.ledger import LEASE_S, Ledger
from router.store.migrations import NAMES, migrations
from router.store.policies import Policies
from router.store.reconcile import Unconfirmed
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

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
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
        self.alerts = Alerts(self)
        self._answers = Answers(self.cache, self.usage, clock)
        self.limiters = {name: Limiter(endpoint) for name, endpoint in settings.endpoints.items()}
        self.providers: dict[str, Provider] = {
            name: PROVIDERS[endpoint.wire](endpoint)
            for name, endpoint in settings.endpoints.items()
            if endpoint.wire in PROVIDERS
        }
        self.providers["local"] = LocalProvider(settings.data, settings.endpoints["local"].device)
        self._carrier = Carrier(self.cache, self.ledger, self.providers, self.limiters, clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._house: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path | str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Router]:
        """Open the data folder (default: `ROUTER_DATA`, else `data/`), and close it in good order.

        Raises:
            BadInput: `router.toml` cannot be understood.
            StoreError: the databases cannot be opened.
        """
        router = cls(load_settings(path, env), clock)
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
        self._house = self._spawn(self._keep_house())

    async def close(self) -> None:
        """Let requests end, then close everything."""
        if self._house is not None:
            self._house.cancel()
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
            policy: the name of a policy.
            role: `document` or `query`; some models embed the two differently.
            model: pin the request to this model's space.
            dimensions: fewer than the model's full size, where it serves that.
            long_texts: instead of the policy's own.
            partial: answer what can be answered and name the rest (files), instead of all or nothing.
            collection: whose texts these are, for the books and the decision's words; they are embedded exactly as
                they are, whatever the policy's `normalise` says.
            progress: called as texts are answered.

        Raises:
            BadInput: a text, name or number is wrong.
            Refused: the policy, a budget or the kill switch says no; nothing was spent.
            ProviderError: the provider failed; what was answered is in the cache.

        If the caller is cancelled, calls that have left are still booked and stored; no more are sent.
        """
        rule = self._policy(policy, long_texts)
        asked = Request(
            policy=rule,
            role=role,
            ask=self._ask(rule, role, model, dimensions, partial, collection),
            started=time.perf_counter(),
            progress=progress or (lambda done, total: None),
            collection=collection,
        )
        task = self._spawn(self._corridor(texts, asked))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asked.cancelled.set()
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
        rule = self._policy(policy, long_texts)
        ask = self._ask(rule, role, model, dimensions, partial, collection)
        intake = await _take_in(texts, rule, ask)
        survey = await self._look_up(intake, role, rule)
        facts = await self._facts(survey, rule, ask, exact=True)
        outcome = decide(ask, rule, facts, self.catalog.scale)
        lines = await asyncio.to_thread(quote_lines, survey, outcome, facts.now.date())
        chosen = outcome.model if isinstance(outcome, Plan) else None
        line = next((line for line in lines if line.verdict.model is chosen), lines[0])
        return Quote(
            texts=intake.asked,
            distinct=len(intake.digests),
            tokens=line.full_expected_tokens,
            lines=lines,
            problems=dict(intake.problems),
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

    def budgets(self, policy: str = "") -> tuple[BudgetState, ...]:
        """Every budget over a policy, its own and the account's, with what its window has used; "": the account's."""
        return self.ledger.states(policy)

    def totals(self) -> tuple[int, int, int]:
        """All money ever: (settled, unconfirmed, held), in nanodollars."""
        return self.ledger.totals()

    def unconfirmed(self) -> list[Unconfirmed]:
        """The charges that are neither confirmed nor struck, newest first."""
        return self.ledger.unconfirmed()

    async def reconcile(self, charge: int, *, confirm: bool) -> bool:
        """Confirm or strike an unconfirmed charge by its invoice; False where there is none, or no longer."""
        return await self.ledger.reconcile(charge, confirm=confirm)

    def token_errors(self) -> dict[str, Errors]:
        """How far off the expected tokens of each model were, over the calls that it was billed for."""
        return self.estimates.errors()

    # ---- the corridor ----

    async def _corridor(self, texts: Sequence[str], asked: Request) -> Result:
        policy, ask = asked.policy, asked.ask
        intake = await _take_in(texts, policy, ask)  # 1
        survey, facts, plan, cached = await self._plan(intake, asked)  # 2, 3
        decision = explain(plan, ask=ask, policy=policy, facts=facts)
        work = await asyncio.to_thread(expand, survey, plan.model, policy.long_texts)
        number, done = await self._carry_out(plan, asked, facts, survey, work, decision)  # 4 to 7
        end = Ending(
            asked=asked,
            facts=facts,
            survey=survey,
            plan=plan,
            work=work,
            done=done,
            decision=decision,
            number=number,
            cached=cached,
        )
        return await self._answers.answer(end)  # 8

    async def _plan(self, intake: Intake, asked: Request) -> tuple[Survey, Facts, Plan, Floats]:
        """Look up and decide; the plan, what it rests on, and the cached vectors that it counts on.

        Raises:
            Refused, BadInput: the decision is a refusal; it is recorded.
        """
        policy, ask = asked.policy, asked.ask
        for _ in range(MOST_LOOK_UPS):
            survey = await self._look_up(intake, asked.role, policy)
            facts = await self._facts(survey, policy, ask, exact=False)
            plan = decide(ask, policy, facts, self.catalog.scale)
            if isinstance(plan, Refusal):
                decision = explain(plan, ask=ask, policy=policy, facts=facts)
                raise await self._answers.refuse(asked, survey, facts, plan, decision)
            try:
                return survey, facts, plan, await asyncio.to_thread(survey.fetch, self.cache, plan.model)
            except Damaged as damage:  # without these vectors the decision may be another
                await self.cache.remove(damage.rows)
        raise StoreError("Cached vectors change faster than they can be read.", "Try again.")

    async def _carry_out(
        self, plan: Plan, asked: Request, facts: Facts, survey: Survey, work: Work, decision: str
    ) -> tuple[int | None, Delivery]:
        """Make the missing vectors; returns the request's number, where the books had to know it first."""
        total = len(survey.intake.digests)
        known = total - len(work.units)

        def progress(done: int) -> None:
            asked.progress(max(0, min(total, known + done)), total)

        if not work.units:
            return None, Delivery()
        if plan.route == "local":
            return None, await self._carrier.locally(plan, asked, work, progress)

        async def otherwise(tried: Collection[str]) -> Plan | None:
            """Another plan for the same space, past the providers that failed."""
            ask = replace(asked.ask, pinned_space=plan.model.space)
            facts = await self._facts(survey, asked.policy, ask, exact=False)
            left = tuple(c for c in facts.candidates if c.model.provider not in tried)
            other = decide(ask, asked.policy, replace(facts, candidates=left), self.catalog.scale)
            return other if isinstance(other, Plan) and other.route == plan.route else None

        who = asked.policy
        number = await self.usage.begin(
            policy=who.name, version=who.version, collection=asked.collection, role=asked.role
        )
        try:
            return number, await self._carrier.paid(
                plan,
                asked,
                work,
                number,
                survey=survey,
                deadline_s=REQUEST_S,
                otherwise=otherwise,
                progress=progress,
            )
        except RouterError as error:
            await self._answers.fail(asked, survey, facts, plan, decision, number, error)
            raise

    async def _look_up(self, intake: Intake, role: Role, policy: Policy) -> Survey:
        def read() -> Survey:
            found = self.cache.lookup(intake.digests)
            return Survey(intake, found, self.cache.kinds(), self.catalog, role, policy.long_texts, self.estimates)

        return await asyncio.to_thread(read)

    async def _facts(self, survey: Survey, policy: Policy, ask: Ask, *, exact: bool) -> Facts:
        await self.ledger.judge_pace(policy.name)
        now = datetime.fromtimestamp(self.clock(), UTC)

        def reckon() -> Facts:
            return Facts(
                now=now,
                candidates=tuple(
                    survey.candidate(
                        model,
                        now=now,
                        exact=exact or self._may_serve(model, policy, ask),
                        configured=self.configured(model),
                        unhealthy=self.limiters[model.provider].unhealthy(),
                        width=self.limiters[model.provider].width,
                        row_by_row=ask.partial,
                    )
                    for model in self.catalog.models
                ),
                budgets=self.ledger.states(policy.name),
                paid_enabled=self.policies.paid_enabled(),
            )

        return await asyncio.to_thread(reckon)

    def _may_serve(self, model: Model, policy: Policy, ask: Ask) -> bool:
        """False where a gate that needs no token count shuts the model out anyway."""
        if ask.pinned_space is not None and model.space != ask.pinned_space:
            return False
        return self.configured(model) and (model.local or not policy.local_only)

    # ---- rooms ----

    def _policy(self, name: str, long_texts: LongTexts | None) -> Policy:
        policy = self.policies.get(name)
        if long_texts is None or long_texts == policy.long_texts:
            return policy
        return replace(policy, long_texts=long_texts)

    def _ask(
        self, policy: Policy, role: Role, model: str | None, dimensions: int | None, partial: bool, collection: str
    ) -> Ask:
        if role not in ("document", "query"):
            raise BadInput(f"There is no role '{role}'.", "It is `document` or `query`.")
        if dimensions is not None and dimensions < 1:
            raise BadInput(f"A vector cannot have {dimensions} dimensions.", "Ask for one or more.")
        pinned = self.catalog.get(model) if model is not None else None
        family = bool(collection) and role == "query" and policy.queries == "cheapest"
        return Ask(
            role=role,
            pinned_space=pinned.space if pinned else None,
            pinned_model=pinned.id if pinned and not family else None,
            dimensions=dimensions,
            partial=partial,
            collection=collection or None,
        )

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # retrieved, even if the caller has gone
        return task

    async def _keep_house(self) -> None:
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


async def _take_in(texts: Sequence[str], policy: Policy, ask: Ask) -> Intake:
    normalised = policy.normalise and ask.collection is None  # a collection's were normalised when it was filled
    return await asyncio.to_thread(take_in, texts, normalised=normalised, lenient=ask.partial)
