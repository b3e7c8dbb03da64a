"""The rows of batches in `router.db`: what was intended, what was sent, what came of it, in the ledger's transactions.

A batch goes `intended` (its money held, its texts claimed, nothing sent that could cost) -> `uploaded` (its file is at
the provider and it may have been submitted: `remote` is the file) -> `submitted` (`remote` is the batch) -> `settled`.
One that was never submitted ends `withdrawn`; a settled one whose failures are forgiven is `closed`. Each step is
taken by whoever finds the row in the state before it, so no two programs take the same one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Literal

import numpy as np

from router.batches.results import OPEN, STORED, Records, Settlement, digests_of, from_bytes, to_records
from router.domain.money import price_tokens
from router.domain.pricing import price_on
from router.domain.ratios import features_of
from router.domain.values import Avoided, Model, Policy, RouteCounts, Unit
from router.engine import Router
from router.store.database import Connection
from router.store.entries import Hold, Purpose, change, claim_kind
from router.store.learned import learn
from router.store.ledger import SETTLE_PATIENCE_S
from router.store.usage import Outcome, close_request, insert_request
from router.store.vectors import kind_of

State = Literal["intended", "uploaded", "submitted", "settled", "withdrawn", "closed"]
UNDER_WAY: tuple[State, ...] = ("intended", "uploaded", "submitted")
_COLUMNS = "id, job, key, provider, model, state, remote, hold, texts, tokens, created, submitted, ended, reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One batch as the books have it. `remote` is its file's id while `uploaded`, then its own. Times in epoch s."""

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


class BatchRows:
    """Reads and writes batches."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._db = router.database

    # ---- reading ----

    def of_job(self, job: int, *states: State) -> list[BatchRow]:
        """A job's batches, oldest first; those in these states, or all."""
        wanted = f" AND state IN ({', '.join('?' * len(states))})" if states else ""
        rows = self._db.reader().execute(
            f"SELECT {_COLUMNS} FROM batches WHERE job = ?{wanted} ORDER BY id", (job, *states)
        )
        names = [column.strip() for column in _COLUMNS.split(",")]
        return [BatchRow(**dict(zip(names, row, strict=True))) for row in rows]

    def jobs_under_way(self) -> list[int]:
        """Jobs that have a batch at a provider, or on its way there."""
        rows = self._db.reader().execute(
            "SELECT DISTINCT job FROM batches WHERE state IN ('intended', 'uploaded', 'submitted') ORDER BY job"
        )
        return [job for (job,) in rows]

    def records(self, row: BatchRow) -> Records:
        """The texts of a batch."""
        (packed,) = self._db.reader().execute("SELECT digests FROM batches WHERE id = ?", (row.id,)).fetchone()
        return from_bytes(packed)

    def spent(self, job: int) -> int:
        """Nanodollars charged for a job's batches, unconfirmed ones included."""
        row = self._db.reader().execute(
            "SELECT coalesce(sum(CASE kind WHEN 'struck' THEN -amount ELSE amount END), 0) FROM charges"
            " WHERE hold IN (SELECT hold FROM batches WHERE job = ?)",
            (job,),
        )
        return int(row.fetchone()[0])

    def tries(self, job: int) -> dict[bytes, int]:
        """Texts of a job that settled batches have not embedded: how many tried. Those failed for good: -1."""
        tried: dict[bytes, int] = {}
        for row in self.of_job(job, "settled"):
            records = self.records(row)
            for digest in digests_of(records[records["state"] == OPEN]):
                tried[digest] = tried.get(digest, 0) + 1
            for digest in digests_of(records[records["state"] > STORED]):
                tried[digest] = -1
        return tried

    def failures(self, job: int) -> dict[bytes, str]:
        """Why texts of a job failed for good, by digest."""
        why: dict[bytes, str] = {}
        for row in self.of_job(job, "settled"):
            records, reasons = self.records(row), row.reason.split("\n")
            failed = records[records["state"] > STORED]
            for digest, state in zip(digests_of(failed), failed["state"].tolist(), strict=True):
                why[digest] = reasons[state - 1]
        return why

    def price(self, row: BatchRow, model: Model) -> Callable[[int], int]:
        """Nanodollars for the tokens of one line of a batch, at the price of the day on which it was made."""
        return line_price(model, row.created)

    # ---- writing ----

    async def intend(
        self, job: int, units: Sequence[Unit], model: Model, policy: Policy, collection: str
    ) -> tuple[BatchRow, Hold] | None:
        """Hold the batch price of these texts, claim them and note the batch, in one commit.

        None: every text is claimed by somebody else, or in the cache by now.

        Raises:
            BudgetExceeded, Refused, StoreBusy: nothing is held or noted.
        """
        router = self._router
        now, key = router.clock(), secrets.token_hex(16)
        price = line_price(model, now)
        purpose = Purpose(
            request=0,
            policy=policy.name,
            model=model.id,
            kind=claim_kind(model, "document"),
            route="batch",
            collection=collection,
        )

        def write(conn: Connection) -> tuple[BatchRow, Hold] | None:
            number = insert_request(conn, now, policy.name, policy.version, collection, "document")
            opened = router.ledger.open_in(
                conn,
                [units],
                replace(purpose, request=number),
                lambda group: sum(price(u.tokens) for u in group),
                stored=lambda digests: self.stored(model, digests),
                sent=True,
                owner=f"batch {key}",
            )
            if not opened.holds:
                conn.execute("DELETE FROM requests WHERE id = ?", (number,))
                return None
            hold = opened.holds[0]
            row = BatchRow(
                id=0,
                job=job,
                key=key,
                provider=model.provider,
                model=model.id,
                state="intended",
                remote="",
                hold=hold.id,
                texts=len(hold.units),
                tokens=sum(u.tokens for u in hold.units),
                created=now,
                submitted=None,
                ended=None,
                reason="",
            )
            call = features_of(hold.units)
            seen = "" if call is None else json.dumps({"features": call[0], "expected": call[1]})
            packed = to_records(hold.units)
            cursor = conn.execute(
                "INSERT INTO batches (job, key, provider, model, state, hold, digests, texts, tokens, created,"
                " estimate) VALUES (?, ?, ?, ?, 'intended', ?, ?, ?, ?, ?, ?)",
                (job, key, row.provider, row.model, hold.id, packed, row.texts, row.tokens, now, seen),
            )
            return replace(row, id=int(cursor.lastrowid or 0)), hold

        return await self._db.write(write)

    def stored(self, model: Model, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these texts the cache has for this model."""
        cache = self._router.cache
        wanted = kind_of(model, "document", "whole")
        numbers = [n for n, kind in cache.kinds().items() if kind == wanted]
        found = cache.lookup(digests)
        return {digest for number in numbers for digest in found.get(number, ())}

    async def move(self, row: BatchRow, to: State, remote: str) -> BatchRow | None:
        """Take a batch to its next state (or note the time of another try); None: somebody else moved it first."""
        now = self._router.clock()

        def write(conn: Connection) -> int:
            return change(
                conn,
                "UPDATE batches SET state = ?, remote = ?, submitted = ? WHERE id = ? AND state = ?"
                " AND remote = ? AND submitted IS ?",
                (to, remote, now, row.id, row.state, row.remote, row.submitted),
            )

        if await self._db.write(write, patience_s=SETTLE_PATIENCE_S) != 1:
            return None
        return replace(row, state=to, remote=remote, submitted=now)

    async def withdraw(self, row: BatchRow, reason: str) -> bool:
        """Release the money and the texts of a batch that was never submitted."""
        nothing = Settlement(
            billed=0, unconfirmed=0, tokens=0, stored=0, failed=0, records=self.records(row).tobytes(), reason=reason
        )
        return await self._end(row, "withdrawn", nothing, avoided=0)

    async def settle(self, row: BatchRow, model: Model, result: Settlement) -> bool:
        """Book an ended batch: its charge, its request and its state, in one commit. The vectors are stored by then."""
        price = price_on(model, _day(row.created))
        normal = 0 if price is None or price.now is None else price_tokens(result.tokens, price.now)
        return await self._end(row, "settled", result, avoided=max(0, normal - result.billed))

    async def forgive(self, job: int) -> int:
        """Let the texts of a job that failed for good be tried again. Returns how many batches had any."""
        return await self._db.write(
            lambda conn: change(conn, "UPDATE batches SET state = 'closed' WHERE job = ? AND state = 'settled'", (job,))
        )

    async def _end(self, row: BatchRow, state: State, result: Settlement, *, avoided: int) -> bool:
        router = self._router
        now = router.clock()
        records = from_bytes(result.records)
        model = router.catalog.get(row.model)
        outcome = Outcome(
            status="done" if result.stored == row.texts else "partial" if result.stored else "failed",
            model=row.model,
            space=model.space,
            dimensions=model.dimensions,
            texts=row.texts,
            distinct=row.texts,
            routes=RouteCounts(batch=result.stored),
            refused=row.texts - result.stored,
            tokens=result.tokens,
            charged=result.billed,
            unconfirmed=result.unconfirmed,
            avoided=Avoided(batch=avoided),
            latency_ms=(now - row.created) * 1000,
            decision=f"A batch at {row.provider}: {result.reason.splitlines()[0]}.",
            error="" if result.stored == row.texts else result.reason.splitlines()[0],
        )
        replay = (
            records["digest"].tobytes(),
            records["tokens"].astype("<u4").tobytes(),
            np.ones(len(records), dtype="<u4").tobytes(),
        )

        def write(conn: Connection) -> bool:
            moved = change(
                conn,
                "UPDATE batches SET state = ?, ended = ?, reason = ?, digests = ? WHERE id = ? AND state = ?",
                (state, now, result.reason, result.records, row.id, row.state),
            )
            if moved != 1:
                return False
            if result.confirmed:
                _learn(conn, row, result.tokens)
            who = conn.execute("SELECT request, policy, collection FROM holds WHERE id = ?", (row.hold,)).fetchone()
            router.ledger.end_in(
                conn,
                row.hold,
                billed=result.billed,
                tokens=result.tokens,
                texts=result.stored,
                unconfirmed=result.unconfirmed,
                reason=result.doubt,
            )
            number, policy, collection = who
            if state == "withdrawn":  # nothing was asked of anybody
                conn.execute("DELETE FROM requests WHERE id = ?", (number,))
            else:
                close_request(conn, number, now, policy, collection, outcome, replay, route="batch")
            return True

        return await self._db.write(write, patience_s=SETTLE_PATIENCE_S)


def _learn(conn: Connection, row: BatchRow, billed: int) -> None:
    """Learn from a batch of a model whose tokenizer is not at hand what it was billed."""
    (estimate,) = conn.execute("SELECT estimate FROM batches WHERE id = ?", (row.id,)).fetchone()
    if estimate:
        call = json.loads(estimate)
        learn(conn, row.model, call["features"], expected=call["expected"], billed=billed, most=row.tokens)


def line_price(model: Model, at: float) -> Callable[[int], int]:
    """Nanodollars, rounded up, for the tokens of one line of a batch made at a time.

    Raises:
        LookupError: the model has no batch price.
    """
    price = price_on(model, _day(at))
    per_million = None if price is None else price.batch
    if per_million is None:
        raise LookupError(f"{model.id} has no batch price")
    return lambda tokens: price_tokens(tokens, per_million)


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()
