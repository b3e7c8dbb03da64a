"""Batches in `router.db`: what was intended, what was sent, what became of each text, in the ledger's transactions.

A batch goes `intended` (its money held, its texts claimed, nothing sent that could cost) -> `uploaded` (its file is at
the provider and it may have been submitted: `remote` is the file) -> `submitted` (`remote` is the batch) -> `settled`.
One that was never submitted ends `withdrawn`; a settled one whose failed texts may be tried again is `closed`. A batch
is moved only if it is still as its caller read it, so no two programs take the same step.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Literal, NamedTuple

import numpy as np

from router.domain.money import price_tokens
from router.domain.pricing import price_on
from router.domain.ratios import features_of
from router.domain.values import Model, Policy, RouteCounts, Saved, Unit
from router.store.balances import SIGNED
from router.store.database import Connection, Database, insert, marks, select
from router.store.entries import Hold, Purpose, claim_kind
from router.store.learned import learn
from router.store.ledger import SETTLE_PATIENCE_S, Ledger, Stored
from router.store.usage import Outcome, close_request, insert_request

State = Literal["intended", "uploaded", "submitted", "settled", "withdrawn", "closed"]
TextState = Literal["open", "stored", "failed"]
UNDER_WAY: tuple[State, ...] = ("intended", "uploaded", "submitted")
MOVES: frozenset[tuple[State, State]] = frozenset(
    {
        ("intended", "uploaded"),
        ("intended", "withdrawn"),
        ("uploaded", "uploaded"),  # submitted once more, or never to be submitted (`remote` is "")
        ("uploaded", "submitted"),
        ("uploaded", "settled"),  # given up: it may have been submitted
        ("uploaded", "withdrawn"),
        ("submitted", "settled"),
        ("submitted", "withdrawn"),  # the provider's queue was full
        ("settled", "closed"),
    }
)
"""The allowed moves of a batch, (from, to)."""


def check_move(was: State, to: State) -> None:
    """Raise ValueError where a batch may not go from one state to the other."""
    if (was, to) not in MOVES:
        raise ValueError(f"a batch that is {was} cannot become {to}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch as the ledger has it. `remote` is its file's id while `uploaded`, then its own. Times in epoch s."""

    id: int
    job: int
    key: str
    provider: str
    model: str
    state: State
    remote: str
    hold: int
    texts: int
    tokens: int
    created: float
    submitted: float | None
    ended: float | None
    reason: str


class BatchText(NamedTuple):
    """A text of a batch: the tokens that are held for it, and what became of it.

    `open`: not answered yet, or to be sent again; `stored`: its vector is in the cache; `failed`: for good, and why.
    """

    digest: bytes
    tokens: int
    state: TextState = "open"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What an ended batch comes to.

    Attributes:
        billed, unconfirmed: nanodollars; unconfirmed is for requests that the provider finished, and of which it
            gave no result.
        tokens: billed, as the provider said.
        confirmed: True where every text is in the cache, and the provider said what it billed for each.
        texts: all texts of the batch, each with its state.
        reason: a line on the batch.
        doubt: why `unconfirmed` is that.
    """

    billed: int
    unconfirmed: int
    tokens: int
    confirmed: bool
    texts: Sequence[BatchText] = field(repr=False)
    reason: str
    doubt: str


def line_price(model: Model, at: float) -> Callable[[int], int]:
    """Nanodollars, rounded up, for the tokens of one line of a batch that was made at this time (epoch seconds).

    Raises:
        LookupError: the model has no batch price.
    """
    price = price_on(model, _day(at))
    per_million = None if price is None else price.batch
    if per_million is None:
        raise LookupError(f"{model.id} has no batch price")
    return lambda tokens: price_tokens(tokens, per_million)


class BatchStore:
    """Reads and writes batches and their texts."""

    def __init__(self, database: Database, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._database = database
        self.ledger = ledger
        self.clock = clock

    # ---- reading ----

    def of_job(self, job: int, *states: State) -> list[Batch]:
        """A job's batches, oldest first; those in these states, or all."""
        wanted = f" AND state IN ({marks(states)})" if states else ""
        return select(self._database.reader(), Batch, f"FROM batches WHERE job = ?{wanted} ORDER BY id", (job, *states))

    def texts(self, batch: Batch) -> list[BatchText]:
        """The texts of a batch, in the order of its file's lines."""
        rows = self._database.reader().execute(
            "SELECT digest, tokens, state, reason FROM batch_texts WHERE batch = ? ORDER BY line", (batch.id,)
        )
        return [BatchText(*row) for row in rows]

    def counts(self, job: int) -> tuple[int, int]:
        """Texts of a job that its ended batches embedded, and those that failed for good."""
        stored, failed = self._database.row(
            "SELECT coalesce(sum(t.state = 'stored'), 0), coalesce(sum(t.state = 'failed' AND b.state = 'settled'), 0)"
            " FROM batches b JOIN batch_texts t ON t.batch = b.id WHERE b.job = ? AND b.state IN ('settled', 'closed')",
            job,
        )
        return stored, failed

    def spent(self, job: int) -> int:
        """Nanodollars charged for a job's batches, unconfirmed ones included."""
        (spent,) = self._database.row(
            f"SELECT coalesce(sum({SIGNED}), 0) FROM charges WHERE hold IN (SELECT hold FROM batches WHERE job = ?)",
            job,
        )
        return int(spent)

    def tries(self, job: int) -> dict[bytes, int]:
        """Texts of a job that settled batches have not embedded: how many tried. Those failed for good: -1."""
        rows = self._database.reader().execute(
            "SELECT t.digest, CASE WHEN max(t.state = 'failed') THEN -1 ELSE count(*) END FROM batches b"
            " JOIN batch_texts t ON t.batch = b.id WHERE b.job = ? AND b.state = 'settled' AND t.state <> 'stored'"
            " GROUP BY t.digest",
            (job,),
        )
        return dict(rows.fetchall())

    def failures(self, job: int) -> dict[bytes, str]:
        """Why texts of a job failed for good, by digest."""
        rows = self._database.reader().execute(
            "SELECT t.digest, t.reason FROM batches b JOIN batch_texts t ON t.batch = b.id"
            " WHERE b.job = ? AND b.state = 'settled' AND t.state = 'failed' ORDER BY b.id, t.line",
            (job,),
        )
        return dict(rows.fetchall())

    # ---- writing ----

    async def intend(
        self, job: int, units: Sequence[Unit], model: Model, policy: Policy, collection: str, stored: Stored
    ) -> tuple[Batch, Hold] | None:
        """Hold the batch price of these texts, claim them and note the batch, in one commit.

        `stored` says which of some digests the cache has by now; it is asked under the write lock. None: every text is
        claimed by somebody else, or in the cache.

        Raises:
            BudgetExceeded, Refused, StoreBusy: nothing is held or noted.
        """
        now, key = self.clock(), secrets.token_hex(16)
        price = line_price(model, now)

        def write(conn: Connection) -> tuple[Batch, Hold] | None:
            request = insert_request(conn, now, policy.name, policy.version, collection, "document")
            purpose = Purpose(
                request=request, policy=policy.name, model=model.id, kind=claim_kind(model, "document"), route="batch",
                collection=collection,
            )  # fmt: skip
            opened = self.ledger.open_in(
                conn, [units], purpose, lambda group: sum(price(u.tokens) for u in group), stored=stored, sent=True,
                owner=f"batch {key}",
            )  # fmt: skip
            if not opened.holds:
                conn.execute("DELETE FROM requests WHERE id = ?", (request,))
                return None
            hold = opened.holds[0]
            call = features_of(hold.units)
            estimate = "" if call is None else json.dumps({"features": call[0], "expected": call[1]})
            batch = {
                "job": job, "key": key, "provider": model.provider, "model": model.id, "state": "intended",
                "hold": hold.id, "texts": len(hold.units), "tokens": sum(u.tokens for u in hold.units),
                "created": now, "estimate": estimate,
            }  # fmt: skip
            number = insert(conn, "batches", batch)
            conn.executemany(  # in the order of the table's key: the fastest
                "INSERT INTO batch_texts (batch, digest, line, tokens) VALUES (?, ?, ?, ?)",
                sorted((number, u.digest, line, u.tokens) for line, u in enumerate(hold.units, 1)),
            )
            return select(conn, Batch, "FROM batches WHERE id = ?", (number,))[0], hold

        return await self._database.write(write)

    async def move(self, batch: Batch, to: State, remote: str) -> Batch | None:
        """Take a batch to its next state (or note the time of another try); None: somebody else moved it first."""
        now = self.clock()
        moved = await self._database.write(
            lambda conn: _move(conn, batch, to, remote=remote, submitted=now), patience_s=SETTLE_PATIENCE_S
        )
        return replace(batch, state=to, remote=remote, submitted=now) if moved else None

    async def withdraw(self, batch: Batch, reason: str) -> bool:
        """Release the money and the texts of a batch that was never submitted. False: somebody else moved it first."""
        now = self.clock()

        def write(conn: Connection) -> bool:
            if not _move(conn, batch, "withdrawn", ended=now, reason=reason):
                return False
            self.ledger.end_in(conn, batch.hold, billed=0, tokens=0, texts=0, unconfirmed=0, reason="")
            conn.execute("DELETE FROM requests WHERE id = (SELECT request FROM holds WHERE id = ?)", (batch.hold,))
            conn.execute("DELETE FROM batch_texts WHERE batch = ?", (batch.id,))
            return True

        return await self._database.write(write, patience_s=SETTLE_PATIENCE_S)

    async def settle(self, batch: Batch, model: Model, result: Settlement) -> bool:
        """Charge an ended batch, close its request and note what became of its texts, in one commit.

        The vectors are stored by then. False: somebody else moved it first.
        """
        now = self.clock()
        stored = sum(text.state == "stored" for text in result.texts)
        price = price_on(model, _day(batch.created))
        normal = 0 if price is None or price.now is None else price_tokens(result.tokens, price.now)
        outcome = Outcome(
            status="done" if stored == batch.texts else "partial" if stored else "failed",
            model=batch.model, space=model.space, dimensions=model.dimensions,
            texts=batch.texts, distinct=batch.texts, refused=batch.texts - stored, routes=RouteCounts(batch=stored),
            tokens=result.tokens, charged=result.billed, unconfirmed=result.unconfirmed,
            saved=Saved(batch=max(0, normal - result.billed)), latency_ms=(now - batch.created) * 1000,
            decision=f"A batch at {batch.provider}: {result.reason}.",
            error="" if stored == batch.texts else result.reason,
        )  # fmt: skip
        replay = (
            b"".join(text.digest for text in result.texts),
            np.array([text.tokens for text in result.texts], dtype="<u4").tobytes(),
            np.ones(len(result.texts), dtype="<u4").tobytes(),
        )
        others = sorted((t.digest, t.state, t.reason) for t in result.texts if t.state != "stored")

        def write(conn: Connection) -> bool:
            if not _move(conn, batch, "settled", ended=now, reason=result.reason):
                return False
            conn.execute("UPDATE batch_texts SET state = 'stored' WHERE batch = ?", (batch.id,))
            conn.executemany(
                "UPDATE batch_texts SET state = ?, reason = ? WHERE batch = ? AND digest = ?",
                [(state, reason, batch.id, digest) for digest, state, reason in others],
            )
            request, estimate = conn.execute(
                "SELECT h.request, b.estimate FROM batches b JOIN holds h ON h.id = b.hold WHERE b.id = ?", (batch.id,)
            ).fetchone()
            if result.confirmed and estimate:  # of a model whose tokenizer is not at hand
                call = json.loads(estimate)
                learn(
                    conn, batch.model, call["features"], expected=call["expected"], billed=result.tokens,
                    most=batch.tokens,
                )  # fmt: skip
            self.ledger.end_in(
                conn, batch.hold, billed=result.billed, tokens=result.tokens, texts=stored,
                unconfirmed=result.unconfirmed, reason=result.doubt,
            )  # fmt: skip
            close_request(conn, request, now, outcome, replay, route="batch")
            return True

        return await self._database.write(write, patience_s=SETTLE_PATIENCE_S)


def close_settled(conn: Connection, job: int) -> None:
    """Let the texts of a job that failed for good be tried again, in the caller's transaction."""
    check_move("settled", "closed")
    conn.execute("UPDATE batches SET state = 'closed' WHERE job = ? AND state = 'settled'", (job,))


def forget_texts(conn: Connection, digests: Sequence[bytes]) -> None:
    """Delete texts from all batches that have ended, in the caller's transaction."""
    conn.executemany(
        "DELETE FROM batch_texts WHERE digest = ? AND batch IN (SELECT id FROM batches WHERE state IN"
        " ('settled', 'withdrawn', 'closed'))",
        [(digest,) for digest in digests],
    )


def _move(conn: Connection, batch: Batch, to: State, **columns: object) -> bool:
    """Take a batch to a state, with what changes besides; False: it is not as it was read any more."""
    check_move(batch.state, to)
    moved = conn.execute(
        f"UPDATE batches SET {' = ?, '.join(['state', *columns])} = ? WHERE id = ? AND state = ? AND remote = ?"
        " AND submitted IS ?",
        (to, *columns.values(), batch.id, batch.state, batch.remote, batch.submitted),
    )
    return moved.rowcount == 1


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()
