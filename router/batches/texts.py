"""What goes into a batch: a job's missing texts, as many as a batch, its file and the budgets take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


Misses = Callable[[int], Mapping[bytes, str]]
"""The next at most n distinct chunks, texts by digest, in a fixed order, that the cache does not have; empty at the
end. Made anew for each step and called from a worker thread; those under way or failed are passed over here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Of one batch."""

    lines: int = MOST_LINES
    bytes: int = MOST_BYTES


WHOLE = BatchLimits()


def gather(
    ledger: Ledger, estimates: Estimates, endpoint: Endpoint, model: Model, misses: Misses, *, policy: str,
    tried: Mapping[bytes, int], limits: BatchLimits,
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
        block = {d: text for d, text in misses(min(BLOCK, limits.lines - len(units))).items() if d not in seen}
        if not block:
            break
        seen.update(block)
        busy = ledger.busy(kind, list(block))
        waiting += len(busy)
        free = {d: text for d, text in block.items() if d not in busy and 0 <= tried.get(d, 0) < MOST_TRIES}
        counts = tokens.count_for(model, "document", list(free.values()))
        guesses = estimates.of(model, "document", list(free.values()), counts)
        for (digest, text), count, estimate in zip(free.items(), counts, guesses, strict=True):
            size += len(request_line(endpoint, model, digest.hex(), text))
            money += price(count)
            if units and (size > limits.bytes or (room is not None and money > room)):
                return list(units.values()), waiting
            units[digest] = Unit(digest=digest, text=text, tokens=count, estimate=estimate)
    return list(units.values()), waiting


def write_file(path: Path, endpoint: Endpoint, model: Model, units: Sequence[Unit]) -> None:
    """The input file of a batch."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as out:
        for unit in units:
            out.write(request_line(endpoint, model, unit.digest.hex(), unit.text))
