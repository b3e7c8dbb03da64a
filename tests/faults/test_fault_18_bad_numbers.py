"""Fault 18: NaN, infinity, null, zeros, a wrong size, broken base64. Figures: vectors cached (0), nanodollars
billed and not charged (0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from router.domain.errors import BadReply
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import MIRROR, PAID, assert_books, open_router, quick_retries, right, some_texts, wrong

Kind = Literal["nan", "infinity", "null", "zeros", "wrong_size", "broken_base64"]
KINDS: tuple[Kind, ...] = ("nan", "infinity", "null", "zeros", "wrong_size", "broken_base64")
WHAT = {"nan": "not finite", "infinity": "not finite", "zeros": "a vector of zeros"}
MODELS = {**PAID, "mirror": "mirror/text-embedding-3-small"}
"""OpenAI and Voyage answer in base64, Cohere and the mirror in numbers."""
MOST_CALLS = 6
"""Five texts twice, then their halves, and the halves of one of these: log2(5) failures, and the other half."""


@pytest.mark.parametrize("name", MODELS)
async def test_bad_numbers_are_paid_for_and_not_kept(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None], name: str
) -> None:
    """One bad vector sinks its answer: charged as billed, nothing cached, no warning on the way; the next is taken."""
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.dispatch.limiter.BREAK_AFTER", 10**6)
    texts = some_texts(5)
    async with open_router(tmp_path, sandbox, MIRROR.format(url=f"{sandbox.url}/openai/v1")) as router:
        for sort in KINDS:
            sandbox.faults.add(Fault(sort, times=None))
            with pytest.raises(BadReply, match=WHAT.get(sort, "vectors that cannot be read|not finite")):
                await router.embed(texts, model=MODELS[name], policy="quality")
            assert router.cache.size()[0] == 0
            sandbox.faults.clear()
        assert 2 * len(KINDS) < sandbox.bill().calls <= MOST_CALLS * len(KINDS)
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (sandbox.bill().nanodollars, 0)

        result = await router.embed(texts, model=MODELS[name], policy="quality")
        assert wrong(result.vectors, right(PAID.get(name, PAID["openai"]), texts)) == 0
        assert_books(router, sandbox)
    figure(18, f"{name}: {len(KINDS)} kinds of bad numbers, 0 cached, all that was billed charged")
