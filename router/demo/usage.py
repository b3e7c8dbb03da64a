"""A made-up request of the demo, walked through decision, hold, charge and usage as the engine would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from router.domain.catalog import Catalog
from router.domain.decide import decide
from router.domain.explain import explain
from router.domain.money import price_tokens
from router.domain.pricing import rate, saved
from router.domain.values import Ask, Facts, Model, Plan, Policy, Refusal, Role, Route, RouteCounts, Tokenizer, Unit
from router.pipeline.account import to_candidates
from router.pipeline.facts import Missing, candidate
from router.pipeline.trace import SIZE, facts_to_json
from router.store.balances import budget_states, judge_pace
from router.store.database import Connection, Database
from router.store.entries import Purpose, claim_kind
from router.store.ledger import Ledger
from router.store.usage import Outcome, close_request, insert_request

LOST = "{} did not answer in time."
DOWN = "failed 5 times in a row; it is tried again in 21 s"
_CONFIGURED = ("openai", "cohere", "voyage")
"""Whose keys the people of the demo have."""
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Who asks for what, and when.

    Attributes:
        a_day: requests on a weekday; weekend: share of that on a Saturday or Sunday.
        hours: from and to, UTC.
        texts, tokens: least and most, a request and a text.
        fresh: share of texts never seen before, on the first day and on the last.
        batch: answered by the provider's batch tier.
    """

    policy: str
    collection: str = ""
    role: Role = "document"
    space: str | None = None
    dimensions: int | None = None
    a_day: float
    weekend: float = 0.2
    hours: tuple[int, int] = (7, 19)
    texts: tuple[int, int]
    tokens: tuple[int, int]
    fresh: tuple[float, float]
    repeats: float = 0.03
    batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """A made-up request. `tokens`, `copies`: of each distinct text; `down`: the provider does not answer.

    `latency` is a factor around one; `kept`: young enough for its digests to be kept.
    """

    at: float
    workload: Workload
    digests: tuple[bytes, ...] = field(repr=False)
    tokens: Counts = field(repr=False)
    copies: Counts = field(repr=False)
    down: bool
    latency: float
    kept: bool


class DemoUsage:
    """Adds requests to the ledger and the usage, oldest first."""

    def __init__(
        self, database: Database, clock: Callable[[], float], catalog: Catalog, policies: Mapping[str, Policy]
    ) -> None:
        self.ledger = Ledger(database, clock)
        self._catalog = catalog
        self._policies = policies
        self._cache: dict[str, set[bytes]] = {}
        self._failures = 0
        self._looked: set[tuple[str, int]] = set()

    def add(self, conn: Connection, request: DemoRequest) -> None:
        """One request, in the caller's transaction; the clock stands at its time."""
        work = request.workload
        policy = self._policies[work.policy]
        hour = (policy.name, int(request.at // 3_600))
        if hour not in self._looked:  # days begin on the hour in the zones of the demo
            self._looked.add(hour)
            judge_pace(conn, policy.name, request.at)
        ask = Ask(
            role=work.role, pinned_space=work.space, dimensions=work.dimensions, collection=work.collection or None,
            partial=work.batch,
        )  # fmt: skip
        self._failures = self._failures if request.down else 0
        facts = self._facts(conn, request, policy)
        plan = decide(ask, policy, facts, self._catalog.scale)
        number = insert_request(conn, request.at, policy.name, policy.version, work.collection, work.role)
        texts, distinct = int(request.copies.sum()), len(request.digests)
        outcome = Outcome(
            status="refused", texts=texts, distinct=distinct, repeated=texts - distinct, refused=texts,
            latency_ms=2.0 * request.latency, candidates=to_candidates(plan.verdicts),
            decision=explain(plan, ask=ask, policy=policy, facts=facts),
        )  # fmt: skip
        tokenizer: Tokenizer = "bytes"
        if isinstance(plan, Refusal):
            outcome = replace(outcome, error=plan.reason)
            counts = _counts(request, tokenizer)
        else:
            outcome = self._carried_out(conn, request, policy, plan, number, outcome)
            tokenizer, counts = plan.model.tokenizer, _likely(request, plan.model)
        replay, kept = None, ""
        if request.kept:
            replay = (b"".join(request.digests), counts.astype("<u4").tobytes(), request.copies.astype("<u4").tobytes())
            if not work.batch:  # what a batch knew is not kept: the job's order is older than its request
                kept = facts_to_json(
                    facts, ask, policy.long_texts, tokenizer, lambda model: self._cached(request, model).tolist(),
                    likely=not isinstance(plan, Refusal),
                )  # fmt: skip
        if not isinstance(plan, Refusal) and outcome.status == "done":
            self._cache.setdefault(claim_kind(plan.model, work.role), set()).update(request.digests)
        route: Route | None = "batch" if work.batch else None
        close_request(conn, number, request.at, outcome, replay, facts=kept, route=route)

    def _cached(self, request: DemoRequest, model: Model) -> NDArray[np.bool_]:
        cached = self._cache.get(claim_kind(model, request.workload.role), set())
        return np.array([digest in cached for digest in request.digests], dtype=np.bool_)

    def _facts(self, conn: Connection, request: DemoRequest, policy: Policy) -> Facts:
        now = datetime.fromtimestamp(request.at, UTC)
        down = request.down and self._failures >= 5

        def missing(model: Model) -> Missing:
            missed = ~self._cached(request, model)
            return Missing(
                texts=len(missed),
                missed=int(missed.sum()),
                tokens=int(_counts(request, model.tokenizer)[missed].sum()),
                expected=int(_likely(request, model)[missed].sum()),
            )

        return Facts(
            now=now,
            candidates=tuple(
                candidate(
                    model,
                    missing(model),
                    now.date(),
                    configured=model.local or model.provider in _CONFIGURED,
                    unhealthy=f"{model.provider} {DOWN}" if down and not model.local else "",
                    batch=request.workload.batch,
                )
                for model in self._catalog.models
            ),
            budgets=budget_states(conn, policy.name, request.at),
        )

    def _carried_out(
        self, conn: Connection, request: DemoRequest, policy: Policy, plan: Plan, number: int, refused: Outcome
    ) -> Outcome:
        """The outcome of a plan; `refused` is what it would be if nothing were done."""
        model, cached = plan.model, self._cached(request, plan.model)
        misses = int((~cached).sum())
        counts = _likely(request, model)
        charged = unconfirmed = 0
        lost = plan.route == "api" and request.down
        if plan.route in ("api", "batch"):
            charged, unconfirmed = self._charge(conn, request, policy, plan, number, ~cached, lost)
        tried = replace(
            refused, status="failed", model=model.id, space=model.space, dimensions=plan.dimensions,
            charged=charged, unconfirmed=unconfirmed,
            latency_ms=_latency(plan, misses, int(counts[~cached].sum()), lost) * request.latency,
        )  # fmt: skip
        if lost:
            self._failures += 1
            return replace(tried, repeated=0, error=LOST.format(model.provider))
        return replace(
            tried,
            status="done",
            refused=0,
            routes=RouteCounts(cache=len(request.digests) - misses, **({plan.route: misses} if misses else {})),
            tokens=int(counts.sum()),
            saved=saved(
                plan,
                datetime.fromtimestamp(request.at, UTC).date(),
                cached=int(request.tokens[cached].sum()),
                repeated=int((request.tokens * (request.copies - 1)).sum()),
                made=int(request.tokens[~cached].sum()),
                billed=charged,
            ),
        )

    def _charge(
        self, conn: Connection, request: DemoRequest, policy: Policy, plan: Plan, number: int,
        missed: NDArray[np.bool_], lost: bool,
    ) -> tuple[int, int]:  # fmt: skip
        """Hold and settle; returns (charged, unconfirmed)."""
        model, work = plan.model, request.workload
        held = _counts(request, model.tokenizer)
        units = [Unit(digest=request.digests[n], text="", tokens=int(held[n])) for n in np.flatnonzero(missed).tolist()]
        purpose = Purpose(
            request=number, policy=policy.name, model=model.id, kind=claim_kind(model, work.role), route=plan.route,
            collection=work.collection,
        )  # fmt: skip
        usd = rate(model, datetime.fromtimestamp(request.at, UTC).date(), batch=plan.route == "batch")
        assert usd is not None  # decide() plans no paid call without a price
        opened = self.ledger.open_in(
            conn, [units], purpose, lambda some: price_tokens(sum(u.tokens for u in some), usd),
            stored=lambda digests: set(), sent=True,
        )  # fmt: skip
        (hold,) = opened.holds
        tokens = 0 if lost else int(request.tokens[missed].sum())
        billed, unconfirmed = price_tokens(tokens, usd), hold.amount if lost else 0
        self.ledger.end_in(
            conn, hold.id, billed=billed, tokens=tokens, texts=0 if lost else len(units), unconfirmed=unconfirmed,
            reason=LOST.format(model.provider),
        )  # fmt: skip
        return billed, unconfirmed


def _counts(request: DemoRequest, tokenizer: Tokenizer) -> Counts:
    counts: Counts = np.ceil(request.tokens * SIZE[tokenizer]).astype(np.int64)
    return counts


def _likely(request: DemoRequest, model: Model) -> Counts:
    """A made-up provider's tokenizer that is not at hand bills what cl100k_base makes."""
    return request.tokens if model.tokenizer == "bytes" else _counts(request, model.tokenizer)


def _latency(plan: Plan, misses: int, tokens: int, lost: bool) -> float:
    """Milliseconds, about as each route takes them."""
    if lost:
        return 60_000.0
    if plan.route == "cache" or not misses:
        return 6.0
    return 12.0 + 9.0 * misses if plan.route == "local" else 230.0 + tokens / 400
