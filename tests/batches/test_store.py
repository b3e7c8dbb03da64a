"""Batches in the store: the moves that are allowed, texts as rows, and what an erased text leaves behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from router.domain.values import Model, Unit
from router.engine import Router
from router.pipeline.validate import digest
from router.store.batches import (
    MOVES,
    Batch,
    BatchStore,
    BatchText,
    Settlement,
    State,
    check_move,
    close_settled,
    forget_texts,
)
from tests.batches.batches import SMALL
from tests.faults.ledger_oracle import audit

STATES: tuple[State, ...] = get_args(State)
WAYS = {"intended": (), "uploaded": ("uploaded",), "submitted": ("uploaded", "submitted")}


class Stored:
    """A store with its router and what a batch is made of."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.store = BatchStore(router.database, router.ledger, router.clock)
        self.model: Model = router.catalog.get(SMALL)

    async def intend(self, *names: str, job: int = 1) -> Batch:
        """A batch of texts of ten tokens each, in this order."""
        units = [Unit(digest=digest(name), text=name, tokens=10) for name in names]
        policy = self.router.policies.get("quality")
        made = await self.store.intend(job, units, self.model, policy, "letters", lambda digests: set())
        assert made is not None
        return made[0]

    async def at(self, state: str, *names: str) -> Batch:
        """A batch that has come so far."""
        batch: Batch | None = await self.intend(*names)
        for to in WAYS[state]:
            assert batch is not None
            batch = await self.store.move(batch, to, f"a {to} one")  # type: ignore[arg-type]  # a state
        assert batch is not None
        return batch

    async def settle(self, batch: Batch, *texts: BatchText) -> bool:
        """End a batch, of which nothing was billed."""
        result = Settlement(
            billed=0, unconfirmed=0, tokens=0, confirmed=False, texts=texts, reason="over", doubt="none"
        )
        return await self.store.settle(batch, self.model, result)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Stored]:
    """A store on a fresh folder."""
    async with Router.open(tmp_path, env={}) as router:
        yield Stored(router)


def outcome(name: str, state: str, reason: str = "") -> BatchText:
    """What became of a text of ten tokens."""
    return BatchText(digest(name), 10, state, reason)  # type: ignore[arg-type]  # a state


def test_what_has_ended_never_comes_back() -> None:
    """Every pair is either allowed or refused by name; from what is withdrawn or closed, nothing leads on."""
    for was, to in itertools.product(STATES, STATES):
        if (was, to) in MOVES:
            check_move(was, to)
        else:
            with pytest.raises(ValueError, match=f"{was} cannot become {to}"):
                check_move(was, to)
    assert {to for was, to in MOVES if was in ("withdrawn", "closed")} == set()
    assert {to for was, to in MOVES if was == "settled"} == {"closed"}
    assert {was for was, to in MOVES if to == "submitted"} == {"uploaded"}  # it is noted before it may be submitted


@pytest.mark.parametrize(("state", "to"), [("intended", "submitted"), ("submitted", "uploaded")])
async def test_a_move_that_is_not_allowed_changes_nothing(here: Stored, state: str, to: State) -> None:
    """It is a fault of the program, and raised as one; the batch stays as it is."""
    batch = await here.at(state, "a")
    with pytest.raises(ValueError, match="cannot become"):
        await here.store.move(batch, to, "elsewhere")
    assert here.store.of_job(1) == [batch]


async def test_a_batch_that_was_never_uploaded_cannot_be_settled(here: Stored) -> None:
    """Nor is anything booked for it: the money stays held."""
    batch = await here.intend("a")
    held = here.router.ledger.totals()
    with pytest.raises(ValueError, match="intended cannot become settled"):
        await here.settle(batch, outcome("a", "stored"))
    assert here.router.ledger.totals() == held
    assert [text.state for text in here.store.texts(batch)] == ["open"]


@pytest.mark.parametrize("state", ["intended", "uploaded", "submitted"])
async def test_one_of_many_takes_a_step(here: Stored, state: str) -> None:
    """Sixteen that read the same batch end it; it ends once, its hold and claims with it, and texts that were never
    sent are forgotten."""
    batch = await here.at(state, "a", "b")
    assert sum(await asyncio.gather(*(here.store.withdraw(batch, f"by {n}") for n in range(16)))) == 1
    assert here.store.texts(batch) == []
    sums = audit(here.router.database.reader())
    assert (sums.held, sums.pending, sums.shown) == (0, 0, 0)
    conn = here.router.database.reader()
    assert conn.execute("SELECT (SELECT count(*) FROM claims), (SELECT count(*) FROM requests)").fetchone() == (0, 0)
    assert await here.settle(batch, outcome("a", "stored")) is False if state != "intended" else True


async def test_texts_keep_the_order_of_their_lines(here: Stored) -> None:
    """A provider's complaint names a line, so the order of the file counts and not that of the digests."""
    names = [f"text {n}" for n in range(50)]
    batch = await here.at("submitted", *names)
    assert [text.digest for text in here.store.texts(batch)] == [digest(name) for name in names]
    assert sorted(map(digest, names)) != [digest(name) for name in names]


async def test_tries_failures_and_counts_of_a_job(here: Stored) -> None:
    """By text, over the batches that were settled; closed ones count no more, but what they embedded does."""
    first = await here.at("submitted", "a", "b", "c")
    await here.settle(first, outcome("a", "stored"), outcome("b", "open"), outcome("c", "failed", "too odd"))
    second = await here.at("submitted", "b", "d")
    assert here.store.tries(1) == {digest("b"): 1, digest("c"): -1}  # what is under way is no try yet
    await here.settle(second, outcome("b", "open"), outcome("d", "failed", "odd too"))
    assert here.store.tries(1) == {digest("b"): 2, digest("c"): -1, digest("d"): -1}
    assert here.store.failures(1) == {digest("c"): "too odd", digest("d"): "odd too"}
    assert here.store.counts(1) == (1, 2)
    assert (here.store.tries(2), here.store.failures(2), here.store.counts(2)) == ({}, {}, (0, 0))
    await here.router.database.write(lambda conn: close_settled(conn, 1))
    assert (here.store.tries(1), here.store.failures(1), here.store.counts(1)) == ({}, {}, (1, 0))
    assert {batch.state for batch in here.store.of_job(1)} == {"closed"}


async def test_an_erased_text_is_out_of_ended_batches_only(here: Stored) -> None:
    """One under way is at the provider, and its result must still be booked."""
    ended = await here.at("submitted", "a", "b")
    await here.settle(ended, outcome("a", "stored"), outcome("b", "failed", "too odd"))
    under_way = await here.at("uploaded", "a", "c")
    await here.router.database.write(lambda conn: forget_texts(conn, [digest("a"), digest("b")]))
    assert here.store.texts(ended) == []
    assert [text.digest for text in here.store.texts(under_way)] == [digest("a"), digest("c")]
