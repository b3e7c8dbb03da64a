"""What goes into a batch: a job's missing texts, as many as a batch, its file and the budgets take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from router import tokens
from router.batches.results import MOST_TRIES
from router.batches.rows import BatchRows, line_price
from router.domain.values import Model, Unit
from router.engine import Router
from router.providers.batch import MOST_BYTES, MOST_LINES, request_line
from router.store.entries import claim_kind

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
    router: Router, rows: BatchRows, job: BatchJob, model: Model, misses: Misses, limits: Limits
) -> tuple[list[Unit], int]:
    """Texts for one batch, at least one if there is any, and how many were passed over because others pay for them.

    Tokens are counted here, with the model's own tokenizer: a hold must be the most that a line can cost.
    """
    endpoint = router.settings.endpoints[model.provider]
    price = line_price(model, router.clock())
    kind = claim_kind(model, "document")
    tried = rows.tries(job.id)
    room = room_of(router, job.policy)
    units: dict[bytes, Unit] = {}
    seen: set[bytes] = set()
    size = money = waiting = 0
    while len(units) < limits.lines:
        block = [c for c in misses(min(BLOCK, limits.lines - len(units))) if c.digest not in seen]
        if not block:
            break
        seen.update(c.digest for c in block)
        busy = router.ledger.busy(kind, [c.digest for c in block])
        waiting += len(busy)
        free = [c for c in block if c.digest not in busy and 0 <= tried.get(c.digest, 0) < MOST_TRIES]
        texts = [c.text for c in free]
        counts = tokens.count_for(model, "document", texts)
        estimates = router.estimates.of(model, "document", texts, counts)
        for chunk, count, estimate in zip(free, counts, estimates, strict=True):
            size += len(request_line(endpoint, model, chunk.digest.hex(), chunk.text))
            money += price(count)
            if units and (size > limits.bytes or (room is not None and money > room)):
                return list(units.values()), waiting
            units[chunk.digest] = Unit(digest=chunk.digest, text=chunk.text, tokens=count, estimate=estimate)
    return list(units.values()), waiting


def room_of(router: Router, policy: str) -> int | None:
    """Nanodollars that the tightest hard budget over a policy still takes at once; None where there is none."""
    hard = [state for state in router.ledger.states(policy) if state.budget.hard]
    return min((s.budget.amount if s.budget.window == "request" else s.left for s in hard), default=None)


def write_file(router: Router, path: Path, model: Model, units: Sequence[Unit]) -> None:
    """The input file of a batch."""
    endpoint = router.settings.endpoints[model.provider]
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as out:
        for unit in units:
            out.write(request_line(endpoint, model, unit.digest.hex(), unit.text))
