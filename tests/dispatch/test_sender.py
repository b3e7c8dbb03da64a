"""One call between its hold and its settlement, where things go wrong that are not a provider's fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.dispatch.local import GROUP, embed_locally
from router.domain.errors import (
    BadReply,
    CallRejected,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    Refused,
    StoreFull,
)
from router.domain.values import Unit
from router.engine import Router
from router.providers.base import EmbedCall, Reply
from router.sandbox import expected_vectors
from router.store.entries import Hold
from tests.faults.ledger_oracle import MODEL, Books, audit
from tests.faults.paid_helpers import quick_retries

LOCAL = "local/all-MiniLM-L6-v2"


class Stub:
    """A provider that answers rightly, unless it is told to do something first; it counts its calls."""

    def __init__(self, do: Callable[[], object] = lambda: None, seconds: float = 0) -> None:
        self.calls = 0
        self._do = do
        self.seconds = seconds

    async def embed(self, call: EmbedCall) -> Reply:
        """One token a text."""
        self.calls += 1
        self._do()
        await asyncio.sleep(self.seconds)
        vectors = (
            np.eye(len(call.texts), call.model.dimensions, dtype=np.float32)
            if call.model.local
            else expected_vectors(MODEL, list(call.texts))
        )
        return Reply(vectors=vectors, indices=None, tokens=len(call.texts), model=None)

    async def aclose(self) -> None:
        """Nothing to close."""


class Choosy(Stub):
    """It fails on calls that hold one of some texts, always with the same error object."""

    def __init__(self, bad: set[str], error: ProviderError) -> None:
        super().__init__()
        self._bad = bad
        self._error = error

    async def embed(self, call: EmbedCall) -> Reply:
        """Fail, or answer."""
        if self._bad & set(call.texts):
            raise self._error
        return await super().embed(call)


@asynccontextmanager
async def routed(folder: Path, stub: Stub) -> AsyncIterator[Router]:
    """A router whose OpenAI is the stub."""
    async with Router.open(folder, env={}, providers={"openai": stub}) as router:
        yield router


def quiet(router: Router) -> Books:
    """The books, with nothing held."""
    books = audit(router.database.reader())
    assert (books.held, books.pending) == (0, 0), "a hold leaks"
    return books


def _stumble() -> None:
    raise ZeroDivisionError("a bug in an SDK")


@pytest.mark.parametrize("partial", [False, True], ids=["request", "file"])
async def test_an_unknown_error_leaves_no_hold(tmp_path: Path, partial: bool) -> None:
    """It is passed on as it is; the call may have left, so its hold becomes an unconfirmed charge."""
    stub = Stub(_stumble)
    async with routed(tmp_path, stub) as router:
        with pytest.raises(ZeroDivisionError):
            await router.embed(["one two three"], model=MODEL, policy="quality", partial=partial)
        assert quiet(router).unconfirmed == 60
    assert stub.calls == 1


async def test_a_full_disk_after_the_answer_is_charged_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors are lost, the charge is not; the call is not sent again."""
    stub = Stub()
    async with routed(tmp_path, stub) as router:

        async def full(*args: object) -> None:
            raise StoreFull("vectors.db cannot be written.", "Make room.")

        monkeypatch.setattr(router.cache, "store", full)
        with pytest.raises(StoreFull, match="2 of 2 texts were not embedded"):
            await router.embed(["a", "b"], model=MODEL, policy="quality")
        assert quiet(router).settled == 40
    assert stub.calls == 1


async def test_a_call_whose_hold_was_swept_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that slept past its lease finds its holds gone: without a hold nothing leaves."""
    stub = Stub()
    (tmp_path / "router.toml").write_text("[providers.openai]\nmax_texts_per_call = 1\n", "utf-8")
    async with routed(tmp_path, stub) as router:
        mark = router.ledger.mark_sent

        async def sweep_first(hold):  # type: ignore[no-untyped-def]
            await router.ledger.release(hold)
            return await mark(hold)

        monkeypatch.setattr(router.ledger, "mark_sent", sweep_first)
        with pytest.raises(OutcomeUnknown, match="The hold of this call had run out"):
            await router.embed(["a", "b"], model=MODEL, policy="quality")
        assert quiet(router).shown == 0
    assert stub.calls == 0


async def test_what_has_left_is_waited_for_past_the_requests_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline ends waiting; a call that is under way is paid for, and has a deadline of its own."""
    monkeypatch.setattr("router.engine.REQUEST_S", -1.0)
    stub = Stub()
    async with routed(tmp_path, stub) as router:
        with pytest.raises(Exception, match="did not take the call in time"):
            await router.embed(["a"], model=MODEL, policy="quality")
        assert stub.calls == 0

        monkeypatch.setattr("router.engine.REQUEST_S", 0.2)
        stub.seconds = 0.4
        result = await router.embed(["a"], model=MODEL, policy="quality")
        assert result.cost == quiet(router).settled == 20
        assert quiet(router).unconfirmed == 0


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (CallRejected("400.", "Look."), "Leave the text out, or shorten it"),
        (Overloaded("500.", "Wait."), "fails on this text and not on others"),
        (BadReply("NaN.", "Look.", action="resend_then_divide"), "fails on this text and not on others"),
    ],
)
async def test_an_error_that_texts_share_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ProviderError, hint: str
) -> None:
    """What is found out of one text is said in an error of its own; nobody else who holds the first sees it."""

    quick_retries(monkeypatch)
    before = dict(vars(error))
    async with routed(tmp_path, Choosy({"bad"}, error)) as router:
        result = await router.embed(["a", "b", "bad", "c"], model=MODEL, policy="quality", partial=True)
        told = result.problems[2]
    assert list(result.problems) == [2]
    assert told is not error
    assert (type(told), told.passes) == (type(error), False)
    assert hint in told.hint
    assert vars(error) == before


@pytest.mark.parametrize("nth", range(1, 8))
async def test_a_division_that_the_database_ends_leaves_no_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Whichever of its parts cannot be halved for want of disk: the halves that are held by then are released."""
    stub = Choosy({str(i) for i in range(0, 32, 3)}, CallRejected("400.", "Look."))
    async with routed(tmp_path, stub) as router:
        fail, halved = router.ledger.fail, 0

        async def full_at_last(hold: Hold, reason: str, **how: Any) -> object:
            nonlocal halved
            halved += len(how.get("again", ())) == 2
            if halved < nth:
                return await fail(hold, reason, **how)
            await router.ledger.release(hold)
            raise StoreFull("router.db cannot be written.", "Make room.")

        monkeypatch.setattr(router.ledger, "fail", full_at_last)
        with pytest.raises(StoreFull):
            await router.embed([str(i) for i in range(32)], model=MODEL, policy="quality", partial=True)
        assert halved >= nth
        quiet(router)


def units(n: int) -> list[Unit]:
    """Texts of one token each."""
    return [Unit(digest=i.to_bytes(32), text=str(i), tokens=n - i) for i in range(n)]


async def test_a_local_run_stops_between_groups_and_names_the_rest(tmp_path: Path) -> None:
    """Cancelled: what is done or under way (two groups) is stored, the others have a reason, none has both."""
    work, ends = units(4 * GROUP), 2 * GROUP
    reported: list[int] = []
    async with Router.open(tmp_path, env={}) as router:
        done = await embed_locally(
            Stub(), router.cache, router.catalog.get(LOCAL), "document", work, cancelled=lambda: len(reported) > 0,
            progress=reported.append,
        )  # fmt: skip
        assert reported == [GROUP, ends]
        assert (len(done.vectors), router.cache.size()[0]) == (ends, ends)
        assert set(done.vectors) == {u.digest for u in work[-ends:]}, "not the shortest first"
        assert set(done.failed) == {u.digest for u in work[:-ends]}
        assert {type(e) for e in done.failed.values()} == {Refused}
        assert (done.charged, done.unconfirmed) == (0, 0)


async def test_a_local_run_that_fails_does_not_go_on_with_the_rest(tmp_path: Path) -> None:
    """What stopped one group would stop all: the error comes at once, and not after a long run."""
    stub = Stub(_stumble)
    async with Router.open(tmp_path, env={}) as router:
        with pytest.raises(ZeroDivisionError):
            await embed_locally(
                stub, router.cache, router.catalog.get(LOCAL), "document", units(6 * GROUP), cancelled=lambda: False,
                progress=lambda done: None,
            )  # fmt: skip
    assert stub.calls <= 2
