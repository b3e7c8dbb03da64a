"""Fault 11: 429 in every form. Figures: sends earlier than asked (0), texts lost (0)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from router.domain.errors import RateLimited, Refused, Unreachable
from router.sandbox import Fault, Received, Sandbox
from tests.faults.paid_helpers import (
    PAID,
    SMALL,
    assert_books,
    connected,
    every_provider,
    limits,
    open_router,
    quick_retries,
    right,
    some_texts,
    soon,
    wrong,
)

CLOCKS_S = 0.002
"""Server and client reckon a date each for itself."""
FORMS: dict[str, float | str | None] = {
    "seconds": 1, "date": "date:1", "retry-after-ms": "ms:300", "absent": None, "NaN": "NaN", "negative": "-5",
    "infinite": "inf", "words": "soon", "both": "0.2",
}  # fmt: skip


def too_early(received: list[Received]) -> int:
    """Sends of a text before the moment that its last 429 asked for."""
    early = 0
    for text in {digest for entry in received for digest in entry.digests}:
        sends = [entry for entry in received if text in entry.digests]
        early += sum(a.not_before is not None and b.at < a.not_before - CLOCKS_S for a, b in pairwise(sends))
    return early


async def test_a_429_is_sent_again_never_earlier_than_asked(
    sandbox: Sandbox, tmp_path: Path, figure: Callable[[int, str], None]
) -> None:
    """In whatever form it asks for time, it gets it, and then the text is embedded and paid for once."""
    cases = {f"({name}, {form})": (name, form) for name in PAID for form in FORMS}
    for text, (_, form) in cases.items():
        times = 1 if form in ("date", "seconds") else 2
        sandbox.faults.add(Fault("rate_limited", times=times, match=text, retry_after=FORMS[form]))

    async def one(text: str) -> int:
        model = PAID[cases[text][0]]
        async with open_router(tmp_path / text, sandbox) as router:  # a limiter of its own: one does not slow another
            result = await router.embed([text], model=model, policy="quality")
            assert wrong(result.vectors, right(model, [text])) == 0
            assert (result.unconfirmed, router.ledger.totals()) == (0, (result.cost, 0, 0))
            return result.cost

    spent = sum(await asyncio.gather(*map(one, cases)))
    assert (spent, len(cases)) == (sandbox.bill().nanodollars, sandbox.bill().texts)
    received = sandbox.received()
    refused = [entry for entry in received if entry.status == 429]
    assert len(refused) == len(received) - len(cases) == 2 * len(cases) - 2 * len(PAID)
    assert sum(entry.not_before is not None for entry in refused) >= 4 * len(PAID)
    assert too_early(received) == 0
    figure(11, f"429 in {len(FORMS)} forms, {len(PAID)} providers: {len(received)} sends, {too_early(received)} earlier"
           " than asked, 0 texts lost")  # fmt: skip


@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
async def test_nothing_is_lost_at_a_limit_that_nobody_told_of(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None],
    partial: bool,
) -> None:  # fmt: skip
    """Many calls at once against a rate of so many requests a second: all arrive, each is paid once."""
    n, a_second = count(20, 2_000), count(10, 50)  # so low that a slow machine meets the limit too
    sandbox.configure(requests_per_minute=60 * a_second, burst_seconds=0.2, latency_ms=5)
    texts = some_texts(n)
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=1, max_in_flight=16)) as router:
        result = await router.embed(texts, model=SMALL, policy="quality", partial=partial)
        assert wrong(result.vectors, right(SMALL, texts)) == 0
        assert assert_books(router, sandbox).settled == sandbox.bill().nanodollars
    received = sandbox.received()
    refused = sum(e.status == 429 for e in received)
    assert refused > 0, "the limit was not met"
    assert sandbox.bill().most_often == 1
    assert too_early(received) == 0
    figure(11, f"{n:,} calls at a limit of {a_second} a second: {refused} were told 429, 0 too early again, 0 lost")


@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
async def test_it_ends_at_the_deadline(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool
) -> None:
    """A provider that is busy for good is asked until the request's deadline, and every text is named."""
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.engine.REQUEST_S", 1.0)
    texts = some_texts(6)
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=2)) as router:
        await connected(router, sandbox, "openai")
        sandbox.faults.add(Fault("rate_limited", times=None, retry_after="ms:50"))
        with soon():
            if partial:
                result = await router.embed(texts, model=SMALL, policy="quality", partial=True)
                errors = list(result.problems.values())
                assert len(errors) == 6
            else:
                with pytest.raises((RateLimited, Unreachable), match="6 of 6 texts were not embedded") as raised:
                    await router.embed(texts, model=SMALL, policy="quality")
                errors = [raised.value]
        for error in errors:
            assert "Nothing was billed for it. Try again later." in str(error)
        assert 3 < sandbox.bill().requests <= 60
        assert too_early(sandbox.received()) == 0
        assert assert_books(router, sandbox).shown == 0


@every_provider
@pytest.mark.parametrize("asked", ["864000", "1e300"])
async def test_an_absurd_wait_is_told_at_once(sandbox: Sandbox, tmp_path: Path, name: str, asked: str) -> None:
    """Ten days are not waited for: the request ends at once, and later ones do not go earlier than asked."""
    sandbox.faults.add(Fault("rate_limited", retry_after=asked))
    async with open_router(tmp_path, sandbox) as router:
        with soon(), pytest.raises(RateLimited, match=r"asked for a pause of [\d,]+ s: the request cannot wait"):
            await router.embed(["a text"], model=PAID[name], policy="quality")
        with soon(), pytest.raises(Refused, match="asked to be sent nothing for"):
            await router.embed(["a text"], model=PAID[name], policy="quality")
        assert sandbox.bill().requests == 1
        (health,) = [h for h in router.health() if h.provider == name]
        assert health.open_until > 0  # the pages show that it is passed over, and until when
        assert assert_books(router, sandbox).shown == 0
