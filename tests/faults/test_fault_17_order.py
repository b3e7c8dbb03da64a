"""Fault 17: one vector short or too many; shuffled, doubled, missing `index`. Figure: vectors at a wrong text (0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from router.domain.errors import BadReply
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import (
    PAID,
    assert_books,
    every_provider,
    limits,
    open_router,
    quick_retries,
    right,
    some_texts,
    wrong,
)

Kind = Literal["one_short", "one_too_many", "shuffled_index", "doubled_index", "missing_index"]
COUNTS: tuple[Kind, ...] = ("one_short", "one_too_many")
INDICES: tuple[Kind, ...] = ("shuffled_index", "doubled_index", "missing_index")
KINDS: dict[str, tuple[Kind, ...]] = {"openai": COUNTS + INDICES, "voyage": COUNTS + INDICES, "cohere": COUNTS}
"""Cohere's answers have no index."""
RIGHT = ("shuffled_index", "missing_index")
"""What can be put in order: by the index, and by position where no row has one."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_retries(monkeypatch)


@every_provider
async def test_no_vector_is_ever_at_the_wrong_text(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[int, int], int],
    figure: Callable[[int, str], None], name: str,
) -> None:  # fmt: skip
    """Of many calls each second one is answered wrongly: reordered where that can be, else refused and sent again."""
    monkeypatch.setattr("router.dispatch.limiter.BREAK_AFTER", 10**6)
    monkeypatch.setattr("router.dispatch.limiter.RESENDS_A_SUCCESS", 1.0)
    texts = [f"{text}." for text in some_texts(count(600, 10_000))]  # so that ` 40.` is in one of them
    calls = len(texts) // 20
    for turn in range(calls // 2):
        kinds = KINDS[name]
        sandbox.faults.add(Fault(kinds[turn % len(kinds)], match=f" {turn * 40 + turn % 20}."))
    async with open_router(tmp_path, sandbox, limits(name, max_texts_per_call=20)) as router:
        result = await router.embed(texts, model=PAID[name], policy="quality", partial=True)
        assert not result.problems
        misplaced = wrong(result.vectors, right(PAID[name], texts))
        assert misplaced == 0
        again = await router.embed(texts[::-1], model=PAID[name], policy="quality")
        assert wrong(again.vectors, right(PAID[name], texts[::-1])) == 0, "the cache holds a wrong vector"
        books = assert_books(router, sandbox)
        assert books.settled == sandbox.bill().nanodollars  # each said what it billed
        assert books.unconfirmed == 0
    bad = [e.fault for e in sandbox.received() if e.fault]
    assert len(bad) == calls // 2
    assert set(bad) == set(KINDS[name])
    repeated = sum(fault not in RIGHT for fault in bad)
    assert len(sandbox.received()) == calls + repeated
    figure(17, f"{name}: {len(bad)} wrong answers in {calls:,} calls, {misplaced} of {len(texts):,} vectors misplaced")


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, kinds in KINDS.items() for k in kinds])
async def test_an_answer_that_stays_wrong_is_refused(sandbox: Sandbox, tmp_path: Path, name: str, kind: Kind) -> None:
    """It is asked for twice, each charged as billed; nothing is stored. One that can be ordered is right at once."""
    texts = some_texts(5)
    sandbox.faults.add(Fault(kind, times=None))
    async with open_router(tmp_path, sandbox) as router:
        if kind in RIGHT:
            result = await router.embed(texts, model=PAID[name], policy="quality")
            assert wrong(result.vectors, right(PAID[name], texts)) == 0
        else:
            what = f"answered a call of 5 texts with ({'4|6' if kind in COUNTS else 'an `index`'}).*"
            with pytest.raises(BadReply, match=what):
                await router.embed(texts, model=PAID[name], policy="quality")
            assert router.cache.size()[0] == 0
        assert sandbox.bill().calls == (1 if kind in RIGHT else 2)
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (sandbox.bill().nanodollars, 0)
