"""Fault 15: a reset, half a JSON, HTML with status 200. Figures: vectors stored (0), nanodollars billed and not in the
ledger (0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from router.domain.errors import BadReply, OutcomeUnknown
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import (
    PAID,
    assert_books,
    every_provider,
    open_router,
    quick_retries,
    right,
    some_texts,
    wrong,
)

Kind = Literal["reset", "half_json", "html", "refuse"]
kinds = pytest.mark.parametrize("kind", ["reset", "half_json", "html", "refuse"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_retries(monkeypatch)


@kinds
@every_provider
async def test_what_breaks_every_time_is_given_up_and_each_send_booked(
    sandbox: Sandbox, tmp_path: Path, name: str, kind: Kind, figure: Callable[[int, str], None]
) -> None:
    """Nothing of it is stored; each send is an unconfirmed charge, since its bill cannot be read.

    Three at most, and two where a page comes instead of JSON: a proxy's or another address's will come again.
    """
    sends = 2 if kind == "html" else 3
    sandbox.faults.add(Fault(kind, times=None))
    async with open_router(tmp_path, sandbox) as router:
        with pytest.raises((BadReply, OutcomeUnknown)) as raised:
            await router.embed(["a text"], model=PAID[name], policy="quality")
        assert name in str(raised.value)
        assert "<html>" not in str(raised.value)
        assert sandbox.bill().requests == sends
        assert router.cache.size()[0] == 0
        books = assert_books(router, sandbox)
        assert books.settled == 0
        assert books.unconfirmed >= sandbox.bill().nanodollars
        assert books.unconfirmed > 0
        figure(15, f"{name} {kind}: {sends} sends, {router.cache.size()[0]} vectors stored,"
               f" {books.unconfirmed} nanodollars unconfirmed of {sandbox.bill().nanodollars} billed")  # fmt: skip


@kinds
@every_provider
async def test_what_breaks_once_is_sent_again(sandbox: Sandbox, tmp_path: Path, name: str, kind: Kind) -> None:
    """The second answer is taken, whole; the first stays booked as unconfirmed."""
    texts = some_texts(30)
    sandbox.faults.add(Fault(kind))
    async with open_router(tmp_path, sandbox) as router:
        result = await router.embed(texts, model=PAID[name], policy="quality")
        assert wrong(result.vectors, right(PAID[name], texts)) == 0
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (result.cost, result.unconfirmed)
        assert books.unconfirmed > 0
        assert router.cache.size()[0] == 30
        assert sandbox.bill().requests == 2
