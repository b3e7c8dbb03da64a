"""What the requests of the last weeks would have come to under another policy, by deciding each of them again.

Every request kept what its decision knew (pipeline/trace.py). It is decided again with those facts, changed only where
the draft's own history differs from the real one: texts that it would have cached or not, money that it would have
spent or not. Where the same model answers the same missing texts, the request comes to what it really came to, so the
policy in force replays to the recorded cost exactly; anything else is computed from token counts.

Health of the providers, keys, the kill switch and other policies' spending are as they were. Texts are as they were
embedded: a change of `normalise` is not seen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.domain.catalog import Catalog
from router.domain.decide import decide
from router.domain.money import price_tokens
from router.domain.policy import MOST
from router.domain.pricing import saved
from router.domain.values import ROUTES, CandidateFacts, Facts, Plan, Policy, Refusal, Tokenizer
from router.pipeline.facts import Missing, candidate
from router.pipeline.trace import SIZE, Mask, SeenModel, Trace, facts_from_json
from router.reporting.replay_budgets import Budgets
from router.reporting.replay_difference import Difference
from router.store.database import Database
from router.store.history import History
from router.store.policies import Policies

NO_DIGESTS = "the digests of its texts are not kept (older than 35 days, or it ended before its texts were read)"
NO_FACTS = "what its decision knew was not kept (a batch of a job, or an earlier version of this program)"
OUT_OF_MONEY = "Refused:"
"""How the ledger begins what it says of a budget that is too small."""
GONE = "the model that answered it is not in the catalog any more"


@dataclass(slots=True, kw_only=True)
class Side:
    """What requests came to. Money in nanodollars.

    Attributes:
        cost: charged, confirmed or not.
        routes: distinct texts by who answered them.
        refused: requests refused or failed whole; cut_short: requests in which money ended half way.
        models: distinct texts answered by each model (cached ones count for the model whose vectors they are).
        saved: not spent, at the price of each request's reference.
    """

    cost: int = 0
    routes: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    cut_short: int = 0
    models: Counter[str] = field(default_factory=Counter)
    saved: int = 0

    def add(self, one: _Ending) -> None:
        """Count one more request."""
        self.cost += one.cost
        self.refused += one.refused
        self.cut_short += one.cut_short
        self.saved += one.saved
        self.routes.update(one.routes)
        if answered := sum(one.routes.values()):
            self.models[one.model] += answered

    def share(self, model: str) -> float:
        """Share (0-1) of the answered distinct texts that a model served."""
        return self.models[model] / (self.models.total() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The recorded requests under a draft, beside what really happened.

    Attributes:
        requests: how many were decided again; changed: those that would have come to something else.
        estimated: those whose cost under the draft rests on token counts of another tokenizer, or on a bound.
        left_out: requests that could not be replayed, by the reason why; they count in neither side, and their
            money in both.
    """

    requests: int
    changed: int
    estimated: int
    draft: Side
    real: Side
    left_out: Mapping[str, int]


async def replay(
    database: Database,
    catalog: Catalog,
    policies: Policies,
    draft: Policy,
    *,
    since: float,
    until: float,
    of: str | None = None,
) -> Replay:
    """Decide the requests of a policy again under `draft`; nothing is written.

    Args:
        draft: a valid policy; its budgets, zone and goal stand in for those that the requests had.
        since, until: epoch seconds. Digests are kept for 35 days.
        of: whose requests; by default those of the policy of the draft's name.
    """
    name = of or draft.name

    def run() -> Replay:
        versions = {p.version: p for p, _, _ in policies.versions(name)}
        return _Replaying(History(database, name), catalog, versions, draft, name).run(since, until)

    return await asyncio.to_thread(run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """What one request came to, really or under the draft."""

    model: str = ""
    cost: int = 0
    saved: int = 0
    refused: bool = False
    cut_short: bool = False
    estimated: bool = False
    routes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A recorded request: its row, the digests, tokens and copies of its distinct texts, and what was known."""

    row: Mapping[str, Any]
    digests: Sequence[bytes]
    tokens: NDArray[np.int64]
    copies: NDArray[np.int64]
    trace: Trace


class _Replaying:
    def __init__(
        self, history: History, catalog: Catalog, versions: Mapping[int, Policy], draft: Policy, of: str
    ) -> None:
        self._history = history
        self._draft = draft
        self._of = of
        self._catalog = catalog
        self._models = {m.id: m for m in catalog.models}
        self._versions = versions
        self._difference = Difference(catalog.models, catalog.scale)

    def run(self, since: float, until: float) -> Replay:
        budgets = Budgets(self._history, self._of, self._draft, since)
        draft, real = Side(), Side()
        left_out: Counter[str] = Counter()
        requests = changed = estimated = 0
        for row in self._history.requests(since, until):
            request = self._read(row)
            if isinstance(request, str):
                left_out[request] += 1
                continue
            was = self._really(request, budgets.charged(row["id"]))
            end = self._under_draft(request, was, budgets)
            budgets.add(request.trace.now, end.cost - was.cost)
            real.add(was)
            draft.add(end)
            requests += 1
            changed += end is not was
            estimated += end.estimated
        return Replay(
            requests=requests, changed=changed, estimated=estimated, draft=draft, real=real, left_out=left_out
        )

    def _read(self, row: Mapping[str, Any]) -> _Request | str:
        """The request, or why it is left out."""
        if row["digests"] is None:
            return NO_DIGESTS
        if not row["facts"]:
            return NO_FACTS
        if row["model"] and row["model"] not in self._models:
            return GONE
        packed = row["digests"]
        digests = [packed[n : n + 32] for n in range(0, len(packed), 32)]
        return _Request(
            row=row,
            digests=digests,
            tokens=np.frombuffer(row["tokens"], dtype="<u4").astype(np.int64),
            copies=np.frombuffer(row["counts"], dtype="<u4").astype(np.int64),
            trace=facts_from_json(row["facts"], len(digests), row["role"]),
        )

    def _really(self, request: _Request, charged: int) -> _Ending:
        row = request.row
        return _Ending(
            model=row["model"],
            cost=charged,
            saved=row["avoided"],
            refused=row["status"] in ("refused", "failed"),
            cut_short=row["status"] == "partial" and row["error"].startswith(OUT_OF_MONEY),
            routes={route: row[route] for route in ROUTES},
        )

    # ---- one request ----

    def _under_draft(self, request: _Request, was: _Ending, budgets: Budgets) -> _Ending:
        trace, role = request.trace, request.row["role"]
        then = self._versions.get(request.row["policy_version"], self._draft)
        # A request that asked for another way with long texts than its policy's keeps asking for it.
        asked = trace.long_texts if trace.long_texts != then.long_texts else self._draft.long_texts
        policy = replace(self._draft, long_texts=asked)
        known = [seen for seen in trace.models if seen.model in self._models]
        masks = {seen.model: self._difference.apply(seen, role, request.digests) for seen in known}
        counted = not then.local_only
        computed = {s.model: self._candidate(request, s, masks[s.model], policy, counted=counted) for s in known}
        facts = Facts(
            now=trace.now,
            candidates=tuple(candidate for candidate, _ in computed.values()),
            budgets=budgets.states(trace),
            paid_enabled=trace.paid_enabled,
        )
        ask = trace.ask
        if policy.queries == "cheapest" and ask.collection and role == "query":
            ask = replace(ask, pinned_model=None)
        plan = decide(ask, policy, facts, self._catalog.scale)
        planned = "" if isinstance(plan, Refusal) else plan.model.id
        seen = next((s for s in trace.models if s.model == was.model), None)
        alike = planned == was.model and (seen is None or masks[planned] is seen.cached)
        if alike and _money_alike(request, was, _room(facts)):
            return was
        self._difference.note(
            role,
            request.digests,
            really=None if seen is None or was.refused else (self._models[seen.model], ~seen.cached),
            draft=None if isinstance(plan, Refusal) else (plan.model, ~masks[planned]),
        )
        if isinstance(plan, Refusal):
            return _Ending(refused=True)
        return self._carried_out(request, plan, masks[planned], computed[planned], facts)

    def _candidate(
        self, request: _Request, seen: SeenModel, cached: Mask, policy: Policy, *, counted: bool
    ) -> tuple[CandidateFacts, bool]:
        """What a decision may know of a model, and whether its tokens are a guess."""
        model, trace = self._models[seen.model], request.trace
        texts, missed = len(request.digests), ~cached
        same = cached is seen.cached
        counted = counted and seen.configured
        tokens, expected, guessed = seen.tokens, seen.expected, not counted
        if not same or not counted:
            tokens, expected, guessed = _tokens(request, seen, model.tokenizer, missed, counted)
        over_long, limit = seen.over_long, model.limits.tokens_per_text
        if limit and not trace.ask.partial and (not same or policy.long_texts != trace.long_texts):
            over_long = int((request.tokens[missed] * trace.most(model.tokenizer) > limit).sum())
        before = texts - int(seen.cached.sum())
        missing = Missing(texts=texts, missed=int(missed.sum()), tokens=tokens, expected=expected, over_long=over_long)
        return candidate(
            model, missing, trace.now.date(), configured=seen.configured,
            unhealthy="" if seen.healthy else "it was temporarily unavailable at the time",
            seconds=seen.seconds if same or not before else seen.seconds * int(missed.sum()) / before,
        ), guessed  # fmt: skip

    def _carried_out(
        self, request: _Request, plan: Plan, cached: Mask, computed: tuple[CandidateFacts, bool], facts: Facts
    ) -> _Ending:
        """What a plan would have come to, computed from tokens."""
        facts_of, guessed = computed
        hits, misses = int(cached.sum()), int((~cached).sum())
        cost, cut_short = 0, False
        if plan.route not in ("cache", "local") and facts_of.price is not None:
            tokens = facts_of.expected_tokens
            if facts_of.model.tokenizer == "bytes":
                guessed = True
                if not request.trace.likely:  # of version 1: the provider billed the tokens, of which this is a bound
                    tokens = round(tokens / SIZE["bytes"])
            cost = price_tokens(tokens, facts_of.price)
            room = _room(facts)
            if cost > room:  # only work that goes call by call is planned past its budget
                misses, cost, cut_short = misses * room // cost, room, True
        routes: dict[str, int] = {"cache": hits, plan.route: misses} if misses else {"cache": hits}
        return _Ending(
            model=plan.model.id,
            cost=cost,
            saved=self._saved(request, plan, cached),
            cut_short=cut_short,
            estimated=guessed and cost > 0,
            routes=routes,
        )

    def _saved(self, request: _Request, plan: Plan, cached: Mask) -> int:
        """From the tokens that were recorded."""
        known: Tokenizer = request.trace.tokenizer
        scale = SIZE["cl100k_base" if known == "bytes" else known] / request.trace.size

        def tokens(counts: NDArray[np.int64]) -> int:
            return round(int(counts.sum()) * scale)

        return saved(
            plan,
            request.trace.now.date(),
            cached=tokens(request.tokens[cached]),
            repeated=tokens(request.tokens * (request.copies - 1)),
            made=tokens(request.tokens[~cached]),
        ).total


def _room(facts: Facts) -> int:
    """Nanodollars that the hard budgets let a request spend."""
    return min((s.left for s in facts.budgets if s.budget.hard), default=MOST)


def _money_alike(request: _Request, was: _Ending, room: int) -> bool:
    """Whether the ledger would have let the same plan spend what it spent."""
    before = min((max(0, b.amount - b.used) for b in request.trace.budgets if b.hard), default=MOST)
    stopped = was.cut_short or (request.row["status"] == "refused" and was.model != "")
    return room == before or (was.cost <= room and not stopped)


def _tokens(
    request: _Request, seen: SeenModel, tokenizer: Tokenizer, missed: Mask, counted: bool
) -> tuple[int, int, bool]:
    """The most and the likely tokens of the missing texts for a tokenizer, and whether they are guesses."""
    trace = request.trace
    ours = int(request.tokens[missed].sum())
    if tokenizer == trace.tokenizer and not (trace.likely and tokenizer == "bytes"):
        return ours, ours, False
    theirs = int(request.tokens[~seen.cached].sum())
    if counted and theirs:
        return -(-seen.tokens * ours // theirs), -(-seen.expected * ours // theirs), True
    most = round(ours * trace.most(tokenizer))
    return most, round(ours / trace.size) if trace.likely and tokenizer == "bytes" else most, True
