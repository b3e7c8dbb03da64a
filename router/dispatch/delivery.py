"""What the calls of one request need on their way, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from router.dispatch.limiter import Limiter
from router.domain.errors import RouterError
from router.domain.values import Model, Role
from router.providers.base import Floats, Provider
from router.store.ledger import Ledger, Price
from router.store.vectors import Cache


@dataclass(slots=True)
class Delivery:
    """What came of some calls.

    Attributes:
        vectors: full vectors by digest.
        failed: why a text has none, by digest.
        charged, unconfirmed: nanodollars.
        tokens: tokens that were billed.
        model: who answered last, of several ways to one space.
        doubts: why calls were not booked at the provider's own figure of their tokens, and how many.
        divided: calls that a server failed on, and that were divided.
        in_vain: sends of their parts that failed too, and may have been billed.
    """

    vectors: dict[bytes, Floats] = field(default_factory=dict)
    failed: dict[bytes, RouterError] = field(default_factory=dict)
    charged: int = 0
    unconfirmed: int = 0
    tokens: int = 0
    model: Model | None = None
    doubts: Counter[str] = field(default_factory=Counter)
    divided: int = 0
    in_vain: int = 0

    def add(self, later: Delivery, model: Model) -> None:
        """Add what came of a later try for the same texts, by this model."""
        if later.vectors:
            self.model = model
        self.vectors.update(later.vectors)
        for digest in later.vectors:
            self.failed.pop(digest, None)
        self.failed.update(later.failed)
        self.charged += later.charged
        self.unconfirmed += later.unconfirmed
        self.tokens += later.tokens
        self.doubts.update(later.doubts)
        self.divided += later.divided
        self.in_vain += later.in_vain

    def remarks(self) -> list[str]:
        """Sentences for the decision: what was booked without the provider's word, and what was divided."""
        said = []
        if self.doubts:
            number, why = self.doubts.total(), next(iter(self.doubts))
            many = "1 call is" if number == 1 else f"{number:,} calls are"
            said.append(f"{many} booked at the upper bound, not confirmed by the provider: {why}.")
        if self.divided:
            calls = "a call" if self.divided == 1 else f"{self.divided:,} calls"
            parts = "1 part" if self.in_vain == 1 else f"{self.in_vain:,} parts"
            billed = ", and may be billed" if self.unconfirmed else ""
            said.append(f"The server failed on {calls}, so the texts were sent in parts; {parts} failed too{billed}.")
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All that a call needs: the model, its provider and limiter, the ledger and the cache.

    `stored` tells which of some texts the cache can answer for the model, so that nothing is paid for them.
    """

    model: Model
    role: Role
    provider: Provider
    limiter: Limiter
    ledger: Ledger
    cache: Cache
    price: Price
    stored: Callable[[Sequence[bytes]], set[bytes]]
    deadline: float
    cancelled: Callable[[], bool]
