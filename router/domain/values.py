"""The words of the product as types. Everything that crosses a module is one of these, frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, Literal

from msgspec import Meta

from router.domain.kinds import TextKind

Role = Literal["document", "query"]
Route = Literal["cache", "local", "api", "batch"]
Goal = Literal["economy", "balanced", "quality"]
Window = Literal["request", "day", "week", "month", "total"]
WhenExhausted = Literal["local", "wait", "refuse"]
Deadline = Literal["now", "24h"]
LongTexts = Literal["split", "refuse", "cut"]
Queries = Literal["same", "cheapest"]
Variant = Literal["whole", "split", "cut"]
Tokenizer = Literal["cl100k_base", "wordpiece", "bytes"]
Usage = Literal["stated", "absent"]

ROUTES: tuple[Route, ...] = ("cache", "local", "api", "batch")
MOST_COUNT = 10**9
"""The most that a count in a file may be: of texts, tokens, dimensions or tokens a second."""
Count = Annotated[int, Meta(ge=1, le=MOST_COUNT)]
"""A count in a file. Bounds in `Annotated` are checked where a file is read (`domain/tables.py`), and only there."""
RETIRING_DAYS = 90
"""Days before its retirement in which a model is no default any more: it must be named."""


# ---- the catalog -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price from a day on, with where it was read. USD per million tokens; `None` is not sold or not known."""

    since: date
    now: Decimal | None
    batch: Decimal | None = None
    source: str
    checked: date
    second_hand: bool = False
    batch_second_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A quality score on a named scale, 0 to 100, higher is better, with where it was read."""

    scale: str
    value: Annotated[float, Meta(ge=0, le=100)]
    source: str
    checked: date
    second_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may carry. `None`: the provider states no such limit."""

    texts_per_call: Count
    tokens_per_text: Count | None = None
    tokens_per_call: Count | None = None


def bare_name(name: str) -> str:
    """A model's name without an owner before it and `:latest` behind it, in small letters."""
    return name.casefold().removesuffix(":latest").rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Something that makes vectors of one space, at a price, with limits.

    Attributes:
        id: `provider/name`, how people and policies name it.
        dimensions: the full size; what the cache stores.
        sizes: smaller sizes that may be cut from the full vector (Matryoshka), or "any".
        roles: documents and queries are embedded differently.
        tokenizer: how its tokens are counted; "bytes" is an upper bound and not a count.
        prices: by `since`, oldest first. Local models have none.
        languages: "en" where the scores and the training are for English only, else "multi".
        tokens_per_second: a rough speed, for "expected seconds" before anything was measured.
        prefix: by role, what is put before each text; a local model's are the prompts of its own configuration.
        extra: by role, fields added to the body of a call.
        usage: "absent" where the provider's replies never say how many tokens they are billed for.
        legacy: the vendor says so: it is served, and has a successor.
        retires: the first day on which the vendor does not serve it any more, if one is announced.
        others: bare names of the provider's models of other spaces; a reply that bears one is not this model's.
    """

    id: str
    provider: str
    name: Annotated[str, Meta(min_length=1)]
    space: Annotated[str, Meta(min_length=1)]
    dimensions: Count
    default_dimensions: Count
    sizes: tuple[int, ...] | Literal["any"] = ()
    roles: bool = False
    tokenizer: Tokenizer
    limits: Limits
    prices: tuple[Price, ...] = ()
    scores: tuple[Score, ...] = ()
    languages: Literal["en", "multi"] = "multi"
    tokens_per_second: Annotated[float, Meta(ge=1, le=MOST_COUNT)] = 50_000.0
    source: str = ""
    prefix: Mapping[Role, str] = field(default_factory=dict, hash=False)
    extra: Mapping[Role, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    usage: Usage = "stated"
    legacy: bool = False
    retires: date | None = None
    others: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @property
    def local(self) -> bool:
        """True where the vectors are made on this machine, free."""
        return self.provider == "local"

    @property
    def bare_names(self) -> frozenset[str]:
        """The name that is sent and the one in the id, as `bare_name` has them."""
        return frozenset(map(bare_name, (self.name, self.id.split("/", 1)[1])))

    def before(self, role: Role) -> str:
        """What is put before each text of this role; "" where nothing is."""
        return self.prefix.get(role, "")

    def role_key(self, role: Role) -> str:
        """What a role does to this model's vectors, for keys: `query`, or `query#9f...` with a mark of what is added.

        "" where the model does not tell roles apart and nothing is added. Vectors of two prefixes are two vectors.
        """
        name = role if self.roles else ""
        if not self.prefix.get(role) and not self.extra.get(role):
            return name
        added = json.dumps([self.before(role), self.extra.get(role) or {}], sort_keys=True, default=str)
        return f"{name}#{blake2b(added.encode(), digest_size=8).hexdigest()}"

    def retired(self, day: date) -> bool:
        """True where the vendor does not serve it any more on this day."""
        return self.retires is not None and self.retires <= day

    def retiring(self, day: date) -> bool:
        """True where it is served on this day, but not for much longer than `RETIRING_DAYS`."""
        return self.retires is not None and 0 < (self.retires - day).days <= RETIRING_DAYS

    @property
    def ending(self) -> str:
        """What to know of its future, for tables: `legacy`, `legacy, until 2027-12-01`, `until 2027-12-01`, or ""."""
        parts = ("legacy" if self.legacy else "", f"until {self.retires}" if self.retires else "")
        return ", ".join(filter(None, parts))

    def serves(self, dimensions: int) -> bool:
        """True where a vector of this many dimensions can be answered from the full one."""
        if self.sizes == "any":
            return 0 < dimensions <= self.dimensions
        return dimensions in (self.dimensions, *self.sizes)


# ---- the policy --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit in nanodollars over a window, hard (blocks) or soft (warns)."""

    amount: int
    window: Window
    hard: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Quality goal, budgets, what is allowed, and what to do with long texts and when money runs out.

    Attributes:
        min_quality: floor on the catalog's scale (RTEB English retrieval, 0-100), or None.
        allow: model patterns, `fnmatch` style, over model ids.
        when_exhausted: `local`: fall to a local model; `wait`, `refuse`: choose as if the money sufficed,
            then spend call by call (files) or say no (requests).
        queries: `same`: a collection's queries go to the model of its documents; `cheapest`: to the cheapest member of
            its family (models of one space), whatever made the documents.
        normalise: make Unicode NFC, line ends `\\n`, and strip white space at both ends before embedding.
        timezone: IANA name; budgets' windows and "today" are counted in it.
    """

    name: str
    goal: Goal = "balanced"
    min_quality: Annotated[float, Meta(ge=0, le=100)] | None = None
    allow: tuple[str, ...] = ("*",)
    local_only: bool = False
    budgets: tuple[Budget, ...] = ()
    when_exhausted: WhenExhausted = "local"
    deadline: Deadline = "now"
    long_texts: LongTexts = "split"
    queries: Queries = "same"
    normalise: bool = False
    timezone: str = "UTC"
    version: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


# ---- facts for a decision ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """One budget with what its running window has used. Money in nanodollars.

    Attributes:
        owner: `account` or `policy/NAME`.
        used: settled + unconfirmed + held in the window that runs now.
        excess: by how much what is held is more than it will likely be settled at.
        resets: when the next window begins; None for `request` and `total`.
        pace_used, pace_elapsed: shares (0-1) at the day's one judgement: of the budget used, and of the
            window elapsed. None for windows without a pace (`request`, `total`).
    """

    owner: str
    budget: Budget
    used: int
    resets: datetime | None = None
    pace_used: float | None = None
    pace_elapsed: float | None = None
    day_of_window: int = 1
    days_in_window: int = 1
    excess: int = 0

    @property
    def left(self) -> int:
        """Nanodollars that a call may still cost; never below zero. A budget of each request begins anew with each."""
        return self.budget.amount if self.budget.window == "request" else max(0, self.budget.amount - self.used)

    @property
    def expected(self) -> int:
        """What will likely have been used once all that is held is settled: for paces and forecasts."""
        return self.used - self.excess


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFacts:
    """What is known of one model for one request. Tokens and texts are of distinct texts.

    Attributes:
        cached: how many the cache already holds in the model's space, fit for this request.
        tokens: the most tokens that the misses can be (exact where the tokenizer is).
        expected_tokens: the tokens that they will likely be; the same figure where the tokenizer is at hand.
        over_long: misses longer than the model takes in one piece.
        seconds: expected, for the misses.
        configured: a key (or the weights) is there.
        unhealthy: why the provider is temporarily unavailable, or "".
        price, batch_price: USD per million tokens today; None is unknown or not sold.
    """

    model: Model
    texts: int
    cached: int
    tokens: int
    expected_tokens: int
    over_long: int = 0
    seconds: float = 0.0
    configured: bool = True
    unhealthy: str = ""
    price: Decimal | None = None
    batch_price: Decimal | None = None

    @property
    def misses(self) -> int:
        """Distinct texts that would have to be embedded."""
        return self.texts - self.cached


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a decision is asked for.

    Attributes:
        pinned_space: the collection's space, or that of a model named by the caller.
        pinned_model: the model the caller named, if any.
        dimensions: the size asked for; None takes the model's default.
        partial: call by call (a file, a job) rather than all or nothing (a request).
        collection: that pins the space, if any.
    """

    role: Role = "document"
    pinned_space: str | None = None
    pinned_model: str | None = None
    dimensions: int | None = None
    partial: bool = False
    collection: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a decision may know. Nothing else is looked at."""

    now: datetime
    candidates: tuple[CandidateFacts, ...]
    budgets: tuple[BudgetState, ...] = ()
    paid_enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one candidate. Money in nanodollars; None: no known price.

    Attributes:
        tokens, cost, batch_cost: the most that its misses can be and cost: what is held, and what must fit.
        expected_tokens, expected, expected_batch: what they will likely be and cost; never more than the most.
    """

    model: Model
    route: Route
    eligible: bool
    chosen: bool
    reason: str
    quality: float | None
    cached: int
    texts: int
    tokens: int
    expected_tokens: int
    cost: int | None
    expected: int | None
    batch_cost: int | None
    expected_batch: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The chosen candidate and how its misses are answered (`route`), with a verdict on every candidate.

    `cost` in nanodollars is the most that the misses can cost, `expected` what they will likely cost; `reference`
    prices what was saved.
    """

    model: Model
    route: Route
    cost: int
    expected: int
    dimensions: int
    reference: Model | None
    fell_back: bool
    reason: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No candidate may serve the request; why, and what to do. `shortfall` in nanodollars where money is why."""

    reason: str
    hint: str
    kind: Literal["budget", "policy", "input", "paid_off", "not_configured"]
    verdicts: tuple[Verdict, ...]
    shortfall: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Money not spent, by cause, in nanodollars at the reference's normal price."""

    cache: int = 0
    repeats: int = 0
    dimensions: int = 0
    local: int = 0
    batch: int = 0

    @property
    def total(self) -> int:
        """All causes together."""
        return self.cache + self.repeats + self.dimensions + self.local + self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCounts:
    """How many distinct texts each route answered."""

    cache: int = 0
    local: int = 0
    api: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The likely `tokens` of a text for a tokenizer that is not at hand, and what they follow from.

    `base` are its tokens for the tokenizer that is (see `Ratios`), `kind` is what kind of text it is.
    """

    kind: TextKind
    base: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One thing to embed: a distinct text, or an even piece of an over-long one.

    Attributes:
        digest: BLAKE2b-256 of the exact text, 32 bytes.
        tokens: its tokens for the model, or the upper bound where the tokenizer is "bytes": what is held.
        estimate: its likely tokens, where `tokens` is a bound.
    """

    digest: bytes
    text: str = field(repr=False)
    tokens: int
    estimate: Estimate | None = None

    @property
    def likely(self) -> int:
        """The tokens that it will likely be: those counted, where they are."""
        return self.tokens if self.estimate is None else self.estimate.tokens
