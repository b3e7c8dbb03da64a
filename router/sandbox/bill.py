"""What the sandbox received and what it billed, for tests to hold the router's ledger against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import blake2b

from router.sandbox.models import Provider, Sold


def digest(text: str) -> bytes:
    """BLAKE2b-256 of a text, 32 bytes."""
    return blake2b(text.encode(), digest_size=32).digest()


@dataclass(slots=True, kw_only=True)
class Bill:
    """What the sandbox billed since it started or was reset.

    Attributes:
        nanodollars: in all; by_model: the same by `provider/name`.
        requests: HTTP requests received on the providers' paths, refused ones too.
        calls: embedding calls billed; a request of a batch is a call.
        texts, tokens: billed, repeats counted.
        digests: how often each text was billed, by the BLAKE2b-256 of the text in hex.
    """

    nanodollars: int = 0
    by_model: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    calls: int = 0
    texts: int = 0
    tokens: int = 0
    digests: Counter[str] = field(default_factory=Counter)

    @property
    def most_often(self) -> int:
        """How often the text that was billed most often was billed; 1 is "no text was billed twice"."""
        return max(self.digests.values(), default=0)

    def charge(self, model: Sold, tokens: int, digests: Sequence[str], share: Decimal = Decimal(1)) -> int:
        """Bill one call and return its nanodollars."""
        cost = model.cost(tokens, share)
        self.nanodollars += cost
        self.by_model[model.id] += cost
        self.calls += 1
        self.texts += len(digests)
        self.tokens += tokens
        self.digests.update(digests)
        return cost

    def copy(self) -> Bill:
        """The bill as it stands."""
        return replace(self, by_model=self.by_model.copy(), digests=self.digests.copy())


@dataclass(slots=True, kw_only=True)
class Received:
    """One request as it arrived, and what became of it.

    Attributes:
        at: `time.monotonic()` at arrival; on Linux comparable between processes.
        operation: method and path below the provider's prefix, such as `POST /embeddings`.
        status: HTTP status answered; 0 while it is under way, and where the connection was dropped without one.
        fault: kind of the fault that was injected, or "".
        nanodollars: what it was billed.
        not_before: on the `at` scale, the earliest moment at which a 429 asked to come back; None if it did not call.
        digests: BLAKE2b-256 of the texts in hex, in their order.
    """

    at: float
    provider: Provider
    operation: str
    model: str = ""
    texts: int = 0
    tokens: int = 0
    role: str | None = None
    status: int = 0
    fault: str = ""
    nanodollars: int = 0
    not_before: float | None = None
    digests: tuple[str, ...] = ()
