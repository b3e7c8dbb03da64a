"""What goes into a batch: a job's missing texts, as many as a batch, its file and the budgets take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from router import tokens
from router.batches.results import MOST_TRIES
from router.config import Endpoint
from router.domain.values import Model, Unit
from router.pipeline.estimates import Estimates
from router.providers.batch import MOST_BYTES, MOST_LINES, request_line
from router.store.batches import line_price
from router.store.entries import claim_kind
from router.store.ledger import Ledger

BLOCK = 1_000


class BatchJob(Protocol):
    """What the tier needs to know of a job. `collection` is a name; `model` a paid model's id."""

    @property
    def id(self) -> int: ...
    @property
    def policy(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def collection(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkText:
    """A chunk to embed: BLAKE2b-256 of its exact text, the text, and its tokens as the collection counted them."""

    digest: bytes
    text: str = field(repr=False)
    tokens: int


Misses = Callable[[int], Sequence[ChunkText]]
"""The next at most n distinct chunks, in a fixed order, that the cache does not have; empty at the end. Made anew
for each step and called from a worker thread; those under way or failed may be among them and are passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one batch."""

    lines: int = MOST_LINES
    bytes: int = MOST_BYTES


WHOLE = Limits()


def gather(
    ledger: Ledger, estimates: Estimates, endpoint: Endpoint, model: Model, misses: Misses, *, policy: str,
    tried: Mapping[bytes, int], limits: Limits,
) -> tuple[list[Unit], int]:  # fmt: skip
    """Texts for one batch, at least one if there is any, and how many were passed over because others pay for them.

    Tokens are counted here, with the model's own tokenizer: a hold must be the most that a line can cost. `tried` says
    how many batches a text was in, in vain.
    """
    price = line_price(model, ledger.clock())
    kind = claim_kind(model, "document")
    room = min((state.left for state in ledger.states(policy) if state.budget.hard), default=None)
    units: dict[bytes, Unit] = {}
    seen: set[bytes] = set()
    size = money = waiting = 0
    while len(units) < limits.lines:
        block = [c for c in misses(min(BLOCK, limits.lines - len(units))) if c.digest not in seen]
        if not block:
            break
        seen.update(c.digest for c in block)
        busy = ledger.busy(kind, [c.digest for c in block])
        waiting += len(busy)
        free = [c for c in block if c.digest not in busy and 0 <= tried.get(c.digest, 0) < MOST_TRIES]
        texts = [c.text for c in free]
        counts = tokens.count_for(model, "document", texts)
        for chunk, count, estimate in zip(free, counts, estimates.of(model, "document", texts, counts), strict=True):
            size += len(request_line(endpoint, model, chunk.digest.hex(), chunk.text))
            money += price(count)
            if units and (size > limits.bytes or (room is not None and money > room)):
                return list(units.values()), waiting
            units[chunk.digest] = Unit(digest=chunk.digest, text=chunk.text, tokens=count, estimate=estimate)
    return list(units.values()), waiting


def write_file(path: Path, endpoint: Endpoint, model: Model, units: Sequence[Unit]) -> None:
    """The input file of a batch."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as out:
        for unit in units:
            out.write(request_line(endpoint, model, unit.digest.hex(), unit.text))
