"""Faults 38, 39 and 43: servers that choke on a text, refuse everything, or say what cannot be true of their usage.

Figures: texts that are lost beside the one to blame (0), its sends that may have been billed (2 + log2 n at most),
requests to a server that refuses everything (about 2 log2 n), and money booked beyond belief (0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from math import ceil, log2
from pathlib import Path
from typing import Any

import pytest

from router import tokens
from router.domain.errors import BadReply, BudgetExceeded, CallRejected, Overloaded
from router.domain.values import Budget, Policy
from router.engine import Router
from tests.cli.conftest import Shell
from tests.faults.habits import MODEL, Habits, running_habits, vector
from tests.faults.ledger_oracle import audit
from tests.faults.paid_helpers import quick_retries, some_texts
from tests.libraries import Opened, jsonl
from tests.libraries import opened as opened_library

FREE, PAID = "0", "0.02"
A_TOKEN = 20
"""Nanodollars."""


@pytest.fixture(scope="module")
def server() -> Iterator[Habits]:
    """The server, which the tests of this file share."""
    with running_habits() as habits:
        yield habits


@pytest.fixture(autouse=True)
def _fresh(server: Habits, monkeypatch: pytest.MonkeyPatch) -> None:
    server.calls.clear()
    quick_retries(monkeypatch)


def at(folder: Path, toml: str) -> Any:
    """A router whose model is at the server."""
    folder.mkdir(exist_ok=True)
    (folder / "router.toml").write_text(toml, "utf-8")
    return Router.open(folder, env={})


def poisoned(n: int, *places: int) -> list[str]:
    """Texts, with POISON at some places."""
    texts = some_texts(n)
    for place in places:
        texts[place] = f"POISON number {place}"
    return texts


def worth(texts: Sequence[str]) -> int:
    """Nanodollars that are held for texts."""
    return A_TOKEN * sum(tokens.count("cl100k_base", texts))


def quiet(router: Router) -> tuple[int, int]:
    """(settled, unconfirmed), with balances that are the fold of the entries, and nothing held or claimed."""
    conn = router.database.reader()
    books = audit(conn)
    assert (books.held, books.pending, conn.execute("SELECT count(*) FROM claims").fetchone()[0]) == (0, 0, 0)
    return books.settled, books.unconfirmed


# ---- one text that the server chokes on ----


@pytest.mark.parametrize("habit", ["nan500", "nullrow", "emptyrow"])
@pytest.mark.parametrize("price", [FREE, PAID])
@pytest.mark.parametrize("place", [0, 7, 19])
async def test_nineteen_of_twenty_are_answered(
    server: Habits, tmp_path: Path, figure: Callable[[int, str], None], habit: str, price: str, place: int
) -> None:
    """The one to blame is named with what the server said; what it may have cost is booked, a hold a send."""
    texts = poisoned(20, place)
    async with at(tmp_path, server.toml(habit, price=price)) as router:
        result = await router.embed(texts, model=MODEL, policy="quality", partial=True)
        assert list(result.problems) == [place]
        assert isinstance(result.problems[place], Overloaded if habit == "nan500" else BadReply)
        said = {"nan500": "unsupported value: NaN", "nullrow": "not finite", "emptyrow": "cannot be read"}[habit]
        assert said in str(result.problems[place])
        kept = [i for i in range(20) if i != place]
        assert all(abs(result.vectors[i] - vector(texts[i])).max() < 1e-5 for i in kept)
        sends = server.with_poison()
        assert 2 + int(log2(20)) <= sends <= 2 + ceil(log2(20))
        assert sum(len(call) == 20 for call in server.calls) == 2, "the whole call is not sent a third time"
        settled, unconfirmed = quiet(router)
        assert (settled, unconfirmed) == (result.cost, result.unconfirmed)
        if price == FREE:
            assert settled == unconfirmed == 0
        elif habit == "nan500":
            failed = [call for call in server.calls if any("POISON" in text for text in call)]
            assert unconfirmed == sum(map(worth, failed))
            assert settled == sum(len(texts[i].split()) for i in kept) * A_TOKEN
        assert "The server failed on a call, so the texts were sent in parts" in result.decision
        assert not router.limiters["habit"].unhealthy()
    figure(43, f"{habit} at ${price}: 19 of 20 answered, the one to blame was sent {sends} times")


async def test_two_of_twenty_do_not_take_the_others_with_them_where_it_is_free(server: Habits, tmp_path: Path) -> None:
    """In both halves: the breaker stays closed, because it is texts that are to blame."""
    async with at(tmp_path, server.toml("nan500", price=FREE)) as router:
        result = await router.embed(poisoned(20, 3, 15), model=MODEL, policy="quality", partial=True)
        assert list(result.problems) == [3, 15]
        assert not router.limiters["habit"].unhealthy()


async def test_a_paid_server_that_fails_on_everything_is_not_asked_for_each_text(
    server: Habits, tmp_path: Path
) -> None:
    """At most log2(n) parts fail, and one more, beside the two sends of the whole."""
    texts = [f"POISON {n}" for n in range(64)]
    async with at(tmp_path, server.toml("nan500")) as router:
        result = await router.embed(texts, model=MODEL, policy="quality", partial=True)
        assert len(result.problems) == 64
        assert len(server.calls) <= 2 + 6 + 1
        assert quiet(router) == (0, result.unconfirmed)


async def test_parts_keep_to_the_budget(server: Habits, tmp_path: Path) -> None:
    """Where there is no money for the halves they are not sent; the limit is not passed."""
    async with at(tmp_path, server.toml("nan500")) as router:
        texts = poisoned(20, 3)
        budget = Budget(amount=worth(texts) * 5 // 2, window="total")
        await router.policies.save(Policy(name="tight", goal="quality", budgets=(budget,)), [MODEL])
        result = await router.embed(texts, model=MODEL, policy="tight", partial=True)
        assert len(result.problems) == 20
        assert [len(call) for call in server.calls] == [20, 20]
        assert sum(quiet(router)) <= budget.amount


# ---- answers that sending again does not cure ----


@pytest.mark.parametrize(("habit", "said"), [("otherone", "another model"), ("small", "cannot be read")])
async def test_what_would_be_wrong_again_is_not_asked_for_again(
    server: Habits, tmp_path: Path, habit: str, said: str
) -> None:
    """Another model, another size: one send a call that was under way, and the rest of the request is not sent."""
    toml = server.toml(habit, texts=2) + "[providers.openai]\n"
    async with at(tmp_path, toml) as router:
        router.limiters["habit"].endpoint.max_in_flight = 3
        result = await router.embed(some_texts(40), model=MODEL, policy="quality", partial=True)
        assert len(result.problems) == 40
        assert all(isinstance(error, BadReply) and said in str(error) for error in result.problems.values())
        assert len(server.calls) <= 3
        assert router.cache.size()[0] == 0
        assert quiet(router)[0] == sum(len(t.split()) for call in server.calls for t in call) * A_TOKEN


# ---- 400 ----


@pytest.mark.parametrize("texts_per_call", [2_048, 96, 1])
async def test_a_server_that_refuses_everything_is_asked_a_few_times(
    server: Habits, tmp_path: Path, figure: Callable[[int, str], None], texts_per_call: int
) -> None:
    """2,000 texts: the calls that are under way at first, and then the way down to one text; one clear error."""
    async with at(tmp_path, server.toml("refuses", texts=texts_per_call)) as router:
        first = min(32, len(_packed(router, 2_000)))
        result = await router.embed(some_texts(2_000), model=MODEL, policy="quality", partial=True)
        assert len(result.problems) == 2_000
        assert len(server.calls) <= first + 2 * ceil(log2(2_000))
        last = result.problems[1_999]
        assert isinstance(last, CallRejected)
        assert "no such parameter" in str(last)
        assert "it refused every call" in str(last)
        assert quiet(router) == (0, 0)
    figure(38, f"2,000 texts, {texts_per_call} a call: {len(server.calls)} requests, {first} of them at once at first")


def _packed(router: Router, n: int) -> list[Any]:
    from router.dispatch.packing import pack
    from router.domain.values import Unit

    units = [Unit(digest=bytes(32), text="", tokens=3)] * n
    return pack(units, router.catalog.get(MODEL).limits, limiters=32)


@pytest.mark.parametrize("places", [(1_234,), (0, 1, 2, 500, 999, 1_000, 1_500, 1_998, 1_999)])
async def test_bad_texts_among_two_thousand_are_found(server: Habits, tmp_path: Path, places: tuple[int, ...]) -> None:
    """One by one, whoever else is answered, within 2 log2(n) requests each and the calls themselves."""
    async with at(tmp_path, server.toml("bad400")) as router:
        calls = len(_packed(router, 2_000))
        result = await router.embed(poisoned(2_000, *places), model=MODEL, policy="quality", partial=True)
        assert list(result.problems) == list(places)
        assert len(server.calls) <= calls + len(places) * 2 * ceil(log2(2_000))


async def test_a_tenth_of_bad_texts_does_not_look_like_a_wrong_set_up(server: Habits, tmp_path: Path) -> None:
    """Every first call is refused, and most halves: the way down finds texts that are answered, and all are told."""
    places = tuple(range(5, 300, 10))
    async with at(tmp_path, server.toml("bad400")) as router:
        result = await router.embed(poisoned(300, *places), model=MODEL, policy="quality", partial=True)
        assert set(places) <= set(result.problems)
        assert len(result.problems) <= 2 * len(places)
        assert len(server.calls) <= 2 * ceil(log2(300)) + 300


@pytest.mark.parametrize(
    ("habit", "said", "most"),
    [("refuses", "no such parameter", 1 + 2 * ceil(log2(20))), ("otherone", "another model, 'somebody-else'", 1)],
)
async def test_a_job_is_paused_where_every_text_would_fail(
    server: Habits, tmp_path: Path, habit: str, said: str, most: int
) -> None:
    """It is the set-up: no text is marked as failed, and the reason says what the server said."""
    async with _library(tmp_path, server.toml(habit)) as (here, number):
        await here.worker.run_all()
        job = here.library.job(number)
        assert (job.state, job.failed, job.done) == ("paused", 0, 0)
        assert said in job.reason
        assert len(server.calls) <= most


# ---- the same from the shell and in a job ----


class _library:
    """A library with a job of twenty texts, of which the seventh may be poison, that was not run yet."""

    def __init__(self, folder: Path, toml: str, *, poison: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "data").mkdir()
        (folder / "data" / "router.toml").write_text(toml, "utf-8")
        texts = [f"a letter of its own, with the number {n}, about this and that in the house" for n in range(20)]
        if poison:
            texts[7] = "a letter with POISON in it, about this and that in the house"
        self._file = jsonl(folder / "letters.jsonl", texts)
        self._opening = opened_library(folder / "data")

    async def __aenter__(self) -> tuple[Opened, int]:
        here = await self._opening.__aenter__()
        await here.fill("letters", self._file, model=MODEL)
        return here, (await here.library.confirm("letters")).id

    async def __aexit__(self, *exc: Any) -> None:
        await self._opening.__aexit__(*exc)


@pytest.mark.parametrize("price", [FREE, PAID])
async def test_a_job_embeds_nineteen_of_twenty(server: Habits, tmp_path: Path, price: str) -> None:
    """The one to blame is named, and not tried again: others of its call were answered."""
    async with _library(tmp_path, server.toml("nan500", price=price), poison=True) as (here, number):
        await here.worker.run_all()
        job = here.library.job(number)
        assert (job.done, job.failed) == (19, 1), job.reason
        [(chunk, why)] = here.library.failures(number)
        assert "POISON" in chunk.text
        assert "unsupported value: NaN" in why
        quiet(here.router)


async def test_a_job_without_usage_is_booked_at_the_bound(server: Habits, tmp_path: Path) -> None:
    """Every text is embedded; the job has spent what was held, and each charge says why."""
    async with _library(tmp_path, server.toml("usage0")) as (here, number):
        await here.worker.run_all()
        job = here.library.job(number)
        assert (job.state, job.done, job.failed) == ("done", 20, 0)
        assert quiet(here.router) == (job.spent, 0)
        assert job.spent == worth([text for call in server.calls for text in call])
        reasons = {reason for (reason,) in here.router.database.reader().execute("SELECT reason FROM charges")}
        assert reasons == {"the answer says 0 tokens for 20 texts"}


@pytest.mark.parametrize(
    ("habit", "embedded", "code", "said"),
    [
        ("nan500", 19, 1, "unsupported value: NaN"),
        ("refuses", 0, 1, "it refused every call"),
        ("usage0", 20, 0, "not confirmed by the provider: the answer says 0 tokens for 20 texts"),
        ("gemini", 20, 0, "not confirmed by the provider: the answer names no usage"),
    ],
)
def test_the_shell_says_it(
    server: Habits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str, embedded: int, code: int, said: str
) -> None:
    """`embed --json` of a file of twenty: how many were embedded, how it ended, and what was the matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROUTER_DATA", str(tmp_path / "data"))
    shell = Shell(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "router.toml").write_text(server.toml(habit), "utf-8")
    ended = shell("embed", shell.jsonl(poisoned(20, 7)), "--model", MODEL, "--json")
    found = json.loads(ended.out)
    assert (found["texts"], found["refused"], found["routes"]["api"]) == (20, 20 - embedded, embedded)
    assert said in ended.out + ended.err
    assert ended.code == code


async def test_a_server_that_leaves_index_and_usage_out_is_asked_once(server: Habits, tmp_path: Path) -> None:
    """A row without an index counts by its position: every text has its own vector after one call, in a job too."""
    texts = some_texts(20)
    async with at(tmp_path / "python", server.toml("gemini")) as router:
        result = await router.embed(texts, model=MODEL, policy="quality")
        assert all(abs(row - vector(text)).max() < 1e-5 for row, text in zip(result.vectors, texts, strict=True))
        assert [len(call) for call in server.calls] == [20]
    server.calls.clear()
    async with _library(tmp_path / "job", server.toml("gemini")) as (here, number):
        await here.worker.run_all()
        job = here.library.job(number)
        assert (job.state, job.done, job.failed, len(server.calls)) == ("done", 20, 0, 1)


# ---- usage ----


@pytest.mark.parametrize(
    ("habit", "beyond", "doubt"),
    [
        ("silent", 0, "names no usage"),
        ("gemini", 0, "names no usage"),
        ("usage0", 0, "says 0 tokens for 20 texts"),
        ("usage-5", 0, "names no usage that can be true"),
        ("usage1000000000000", 10**12, "1,000,000,000,000 tokens, where the texts can be"),
    ],
)
async def test_what_cannot_be_true_is_booked_at_the_bound_and_said(
    server: Habits, tmp_path: Path, figure: Callable[[int, str], None], habit: str, beyond: int, doubt: str
) -> None:
    """Settled at what was held (or what the bytes can be), the rest unconfirmed; the charge and the decision say so."""
    texts = some_texts(20)
    async with at(tmp_path, server.toml(habit)) as router:
        await router.policies.set_account_budgets([])
        free = Policy(name="free", goal="quality")
        await router.policies.save(free, [MODEL])
        result = await router.embed(texts, model=MODEL, policy="free")
        most = sum(tokens.count("bytes", texts))
        held = worth(texts)
        settled, unconfirmed = quiet(router)
        assert (settled, unconfirmed) == (result.cost, result.unconfirmed)
        assert settled == (most * A_TOKEN if beyond else held)
        assert settled + unconfirmed == max(held, beyond * A_TOKEN)
        assert doubt in result.decision
        assert "not confirmed by the provider" in result.decision
        reasons = router.database.reader().execute("SELECT reason FROM charges").fetchall()
        assert all(doubt in reason for (reason,) in reasons)
        assert len(reasons) == 1 + bool(beyond)
        if beyond:
            (open_charge,) = router.ledger.unconfirmed()
            assert await router.ledger.reconcile(open_charge.id, confirm=False)
            assert quiet(router) == (settled, 0)
    figure(39, f"{habit}: {settled} nanodollars settled of {held} held, {unconfirmed} unconfirmed")


async def test_a_hard_budget_fills_where_no_usage_is_told(server: Habits, tmp_path: Path) -> None:
    """Zero tokens a call are not a free service: the limit is reached, and then nothing is sent."""
    async with at(tmp_path, server.toml("usage0", texts=1)) as router:
        texts = some_texts(20)
        budget = Budget(amount=worth(texts[:10]), window="total")
        await router.policies.save(Policy(name="tight", goal="quality", budgets=(budget,)), [MODEL])
        result = await router.embed(texts, model=MODEL, policy="tight", partial=True)
        assert len(server.calls) == 10
        assert {type(error) for error in result.problems.values()} == {BudgetExceeded}
        assert quiet(router) == (budget.amount, 0)


async def test_a_limit_that_is_passed_refuses_what_is_free_too(server: Habits, tmp_path: Path) -> None:
    """Lowered below what was spent: nothing is sent under it, and the refusal comes at once."""
    toml = server.toml("silent", price=FREE).replace("habit/model", "habit/free")
    toml += server.toml("silent").split("[[models]]")[1].join(["[[models]]", ""])
    async with at(tmp_path, toml) as router:
        models = [MODEL, "habit/free"]
        budget = Budget(amount=10**6, window="total")
        await router.policies.save(Policy(name="tight", goal="quality", budgets=(budget,)), models)
        await router.embed(some_texts(5), model=MODEL, policy="tight")
        lower = Policy(name="tight", goal="quality", budgets=(Budget(amount=1, window="total"),), when_exhausted="wait")
        await router.policies.save(lower, models)
        result = await router.embed(some_texts(5), model="habit/free", policy="tight", partial=True)
        assert {type(error) for error in result.problems.values()} == {BudgetExceeded}
        assert len(server.calls) == 1


async def test_a_free_server_without_usage_is_no_matter(server: Habits, tmp_path: Path) -> None:
    """Where nothing is charged nothing is said."""
    async with at(tmp_path, server.toml("silent", price=FREE)) as router:
        result = await router.embed(some_texts(3), model=MODEL, policy="quality")
        assert "confirmed" not in result.decision
        assert quiet(router) == (0, 0)
