"""Faults that the sandbox commits on request: which there are, and which call each is for.

A fault is taken by the first call that it fits. How it looks on the wire is in `wire.py` (bodies) and `reply.py`
(connections).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from threading import Lock
from typing import Any, Literal, get_args

from router.sandbox.models import PROVIDERS, Provider

# Refused with a status, before any work.
Refusal = Literal["rate_limited", "quota", "key_revoked", "status", "poison"]
# The connection or the reply as a whole goes wrong, after the work.
Transport = Literal["refuse", "hang", "reset", "half_json", "html", "drip", "sleep"]
# The reply is well-formed and wrong.
Shape = Literal[
    "one_short", "one_too_many", "shuffled_index", "doubled_index", "missing_index", "nan", "infinity", "null",
    "zeros", "wrong_size", "broken_base64", "wrong_model", "overbill",
]  # fmt: skip
# The batch tier.
BatchFault = Literal["batch_failed", "batch_doubled", "batch_unknown", "batch_missing", "batch_no_custom_id"]
Kind = Refusal | Transport | Shape | BatchFault

REFUSALS: frozenset[str] = frozenset(get_args(Refusal))
TRANSPORTS: frozenset[str] = frozenset(get_args(Transport))
SHAPES: frozenset[str] = frozenset(get_args(Shape))
BATCH_FAULTS: frozenset[str] = frozenset(get_args(BatchFault))
KINDS = REFUSALS | TRANSPORTS | SHAPES | BATCH_FAULTS
CALL_KINDS = REFUSALS | TRANSPORTS | SHAPES
BATCH_CALL_KINDS = REFUSALS | TRANSPORTS
TAMPERING = BATCH_FAULTS - {"batch_failed"}  # what can befall the results of a batch
LINE_KINDS = SHAPES | {"poison", "status"}  # what can befall one request of a batch
COHERE_HAS_NOT = frozenset({"shuffled_index", "doubled_index", "missing_index", "wrong_model"})  # no such fields

EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to commit.

    Attributes:
        kind:
            `rate_limited` 429 (with `retry_after`), `quota` 429 insufficient_quota, `key_revoked` 401, `status` the
            HTTP status in `status`, `poison` 400 as a content error;
            `refuse` the connection is reset before anything is read (after reading, where `match` is given);
            `hang` bill, then say nothing for `seconds` or until released, then answer; `reset` half a body, then a
            TCP reset; `half_json`, `html` with status 200; `drip` a byte each `seconds`; `sleep` `seconds` more;
            `one_short`, `one_too_many` vectors; `shuffled_index` right but in another order, `doubled_index`,
            `missing_index`; `nan`, `infinity`, `null`, `zeros`, `wrong_size`, `broken_base64` in one row (the first
            whose text holds `match`, else the middle one); `wrong_model` in the answer; `overbill` bills and
            reports `factor` times the tokens;
            `batch_failed` at validation; `batch_doubled`, `batch_unknown`, `batch_missing`, `batch_no_custom_id`:
            one output line twice, with a `custom_id` that was not sent, left out, without its `custom_id`.
        on: `embeddings`, or the beginning of another operation, such as `POST /batches` or `GET /files`; the refusals
            and the faults of the connection work there too.
        times: how many calls it befalls; None is every one, for good.
        skip: how many fitting calls pass before the first.
        match: only calls of which a text contains this.
        provider: only calls to this provider.
        bill: whether the call is billed; None is what such a fault does by itself: refusals, `status` and `refuse`
            bill nothing, all others bill.
        retry_after: seconds (a number), `date:SECONDS` for an HTTP date, `ms:MILLISECONDS` for `retry-after-ms`, any
            other string as it stands (`NaN`), None for no header.
    """

    kind: Kind
    _: KW_ONLY
    on: str = EMBEDDINGS
    times: int | None = 1
    skip: int = 0
    match: str | None = None
    provider: Provider | None = None
    bill: bool | None = None
    status: int = 500
    retry_after: float | str | None = None
    seconds: float = 30.0
    factor: int = 10

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"'{self.kind}' is not a fault; there are: {', '.join(sorted(KINDS))}")
        if self.provider is not None and self.provider not in PROVIDERS:
            raise ValueError(f"'{self.provider}' is not a provider; there are: {', '.join(PROVIDERS)}")
        if self.provider == "cohere" and self.kind in COHERE_HAS_NOT:
            raise ValueError(f"Cohere's answers have no field for the fault '{self.kind}'")

    @property
    def bills(self) -> bool:
        """Whether the call is billed."""
        if self.bill is not None:
            return self.bill
        return self.kind not in REFUSALS and self.kind != "refuse"

    def fits(self, provider: Provider, texts: Sequence[str], operation: str) -> bool:
        """True where the fault is meant for a call."""
        if self.on != operation and (self.on == EMBEDDINGS or not operation.startswith(self.on)):
            return False
        if self.provider not in {None, provider} or (provider == "cohere" and self.kind in COHERE_HAS_NOT):
            return False
        return self.match is None or any(self.match in text for text in texts)


NO_FAULT = Fault("sleep", seconds=0)


class Faults:
    """The faults still to commit, in order. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._queue: list[list[Any]] = []  # [fault, calls still to skip, times left or None]

    def add(self, *faults: Fault) -> None:
        """Put faults at the end of the queue."""
        with self._lock:
            self._queue += [[fault, fault.skip, fault.times] for fault in faults]

    def clear(self) -> None:
        """Forget all faults that are still to come."""
        with self._lock:
            self._queue.clear()

    def pending(self) -> list[Fault]:
        """The faults still to come, in order."""
        with self._lock:
            return [fault for fault, _, _ in self._queue]

    def take(
        self, provider: Provider, texts: Sequence[str], kinds: frozenset[str], operation: str = EMBEDDINGS
    ) -> Fault | None:
        """The fault for a call, if there is one: the first in the queue that fits; it counts as committed once."""
        with self._lock:
            for slot in self._queue:
                fault: Fault = slot[0]
                if fault.kind not in kinds or not fault.fits(provider, texts, operation):
                    continue
                if slot[1] > 0:
                    slot[1] -= 1
                    continue
                if slot[2] is not None:
                    slot[2] -= 1
                    if slot[2] <= 0:
                        self._queue.remove(slot)
                return fault
        return None
