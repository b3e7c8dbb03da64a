"""Fault 20: the answer names another model than was asked. Figure: vectors of it that were stored (0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from router.domain.errors import BadReply
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import PAID, assert_books, open_router, quick_retries, right, wrong


@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
@pytest.mark.parametrize("name", ["openai", "voyage"])
async def test_vectors_of_another_model_are_refused(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None], name: str,
    partial: bool,
) -> None:  # fmt: skip
    """They look right and are of another space: charged as billed, not stored, not asked for again (it would be the
    same), and the message names both models."""
    quick_retries(monkeypatch)
    model = PAID[name]
    sandbox.faults.add(Fault("wrong_model"))
    async with open_router(tmp_path, sandbox) as router:
        if partial:
            result = await router.embed(["a text"], model=model, policy="quality", partial=True)
            error: Exception = result.problems[0]
        else:
            with pytest.raises(BadReply) as raised:
                await router.embed(["a text"], model=model, policy="quality")
            error = raised.value
        assert f"'some-other-model' for '{model.split('/')[1]}'" in str(error)
        stored = router.cache.size()[0]
        assert stored == 0
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (sandbox.bill().nanodollars, 0)
        assert sandbox.bill().calls == 1

        result = await router.embed(["a text"], model=model, policy="quality")
        assert wrong(result.vectors, right(model, ["a text"])) == 0
    figure(20, f"{name}: {sandbox.bill().calls - 1} answers of another model, {stored} vectors stored")
