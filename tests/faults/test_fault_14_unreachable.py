"""Fault 14: connection refused, no such host, no TLS; a time-out after the send. Figures: nanodollars unconfirmed of a
call that never left (0), and of one that may have arrived (all that it can cost)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from router.domain.errors import OutcomeUnknown, Unreachable
from router.domain.values import Budget, Policy
from router.sandbox import Fault, Sandbox
from tests.faults.paid_helpers import (
    PAID,
    SMALL,
    assert_books,
    connected,
    every_provider,
    open_router,
    quick_retries,
    right,
    some_texts,
    soon,
    wrong,
)

TIMEOUT_S = 0.5
URLS = {"openai": "OPENAI_BASE_URL", "cohere": "CO_API_URL", "voyage": "VOYAGE_BASE_URL"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_retries(monkeypatch)


def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@every_provider
@pytest.mark.parametrize("where", ["closed port", "no such host", "no TLS"])
async def test_what_never_left_is_released(
    sandbox: Sandbox, tmp_path: Path, name: str, where: str, figure: Callable[[int, str], None]
) -> None:
    """Nothing is charged, nothing unconfirmed, and the message says to look at the network and the address."""
    url = {
        "closed port": closed_port(),
        "no such host": "http://nobody.invalid/v1",
        "no TLS": f"{sandbox.url.replace('http:', 'https:')}/v1",
    }[where]
    async with open_router(tmp_path, sandbox, **{URLS[name]: url}) as router:
        for partial in (False, True):
            if partial:
                result = await router.embed(["a text"], model=PAID[name], policy="quality", partial=True)
                error = result.problems[0]
            else:
                with pytest.raises(Unreachable) as raised:
                    await router.embed(["a text"], model=PAID[name], policy="quality")
                error = raised.value
            assert isinstance(error, Unreachable)
        assert f"{name} cannot be reached" in router.limiters[name].health().last_error
        books = assert_books(router, sandbox)
        assert (books.settled, books.unconfirmed) == (0, 0)
    figure(14, f"{name}, {where}: {books.unconfirmed} nanodollars unconfirmed")


async def test_a_time_out_after_the_send_is_an_unconfirmed_charge(
    sandbox: Sandbox, tmp_path: Path, figure: Callable[[int, str], None]
) -> None:
    """Silence may have been billed (here it was, three times): each send is booked at the most it can have cost."""
    async with open_router(tmp_path, sandbox) as router:
        await connected(router, sandbox, *PAID)
        usual = {name: router.settings.endpoints[name].timeout_s for name in PAID}
        sandbox.faults.add(Fault("hang", times=None))

        async def one(name: str) -> None:
            router.settings.endpoints[name].timeout_s = TIMEOUT_S
            quote = await router.quote(["a text"], model=PAID[name], policy="quality")
            (most,) = [line.verdict.cost for line in quote.lines if line.verdict.chosen]
            with soon(), pytest.raises(OutcomeUnknown, match=r"did not answer in time|timed out"):
                await router.embed(["a text"], model=PAID[name], policy="quality")
            conn = router.database.reader()
            held = conn.execute("SELECT state, amount FROM holds WHERE model = ?", (PAID[name],)).fetchall()
            assert held == [("unconfirmed", most)] * 3
            figure(14, f"{name}, silence: 3 sends billed, {3 * (most or 0)} nanodollars unconfirmed")

        await asyncio.gather(*map(one, PAID))
        assert sandbox.bill().calls == 3 * len(PAID)
        assert assert_books(router, sandbox).settled == 0
        assert router.cache.size()[0] == 0
        sandbox.release()
        sandbox.faults.clear()
        for name, model in PAID.items():
            router.settings.endpoints[name].timeout_s = usual[name]
            result = await router.embed(["a text"], model=model, policy="quality")
            assert wrong(result.vectors, right(model, ["a text"])) == 0
        assert_books(router, sandbox)


async def test_no_money_for_another_send_ends_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """A send that may have been billed uses up its hold: where the budget has no room for another, none is sent."""
    text = some_texts(1)  # 4 tokens, 80 nanodollars
    async with open_router(tmp_path, sandbox) as router:
        await connected(router, sandbox, "openai")
        router.settings.endpoints["openai"].timeout_s = TIMEOUT_S
        sandbox.faults.add(Fault("hang", times=None))
        tight = Policy(name="tight", goal="quality", budgets=(Budget(amount=200, window="month"),))
        await router.policies.save(tight, [SMALL])
        with pytest.raises(OutcomeUnknown):
            await router.embed(text, model=SMALL, policy="tight")
        books = assert_books(router, sandbox)
        sends = sandbox.bill().calls
        assert sends == 200 // (sandbox.bill().nanodollars // sends) < 3
        assert books.unconfirmed == sandbox.bill().nanodollars <= 200
        sandbox.release()
