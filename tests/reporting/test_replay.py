"""Replay: the policy in force comes to the recorded cost exactly, and another one to what it would have cost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router import Router
from router.domain.errors import RouterError
from router.domain.money import NANO, price_tokens
from router.domain.values import Budget, Policy
from router.providers.base import EmbedCall, Reply
from router.reporting.replay import NO_DIGESTS, NO_FACTS
from router.sandbox import Fault, Sandbox
from router.store.usage import Outcome
from router.tokens import count as count_tokens
from tests.tokenizers import COUNTING

START = 1_793_800_000.0
"""4 November 2026, 11 h 46 UTC."""
DAY = 86_400.0
SMALL, LARGE, LOCAL = "openai/text-embedding-3-small", "openai/text-embedding-3-large", "local/all-MiniLM-L6-v2"


class Turned:
    """A clock that stands where it is put."""

    now = START

    def __call__(self) -> float:
        return self.now


class FakeLocal:
    """A local model that knows nothing and is quick."""

    async def embed(self, call: EmbedCall) -> Reply:
        dice = np.random.default_rng(len(call.texts))
        vectors = dice.normal(size=(len(call.texts), call.model.dimensions)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Reply(vectors=vectors, indices=None, tokens=None, model=None)

    async def aclose(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def opened(folder: Path, sandbox: Sandbox) -> AsyncIterator[tuple[Router, Turned]]:
    """A router on the sandbox with a quick local model, no account budget, and a clock to turn."""
    clock = Turned()
    providers = {"local": FakeLocal()}
    async with Router.open(folder, env=sandbox.environment, clock=clock, providers=providers) as router:
        await router.policies.set_account_budgets([])
        yield router, clock


def texts(*numbers: int) -> list[str]:
    """Texts of about thirty tokens."""
    return [f"The invoice of customer {n} was sent twice, and she asks to have one cancelled. " * 2 for n in numbers]


def millionths(amount: float, window: str, *, hard: bool = True) -> Budget:
    """A budget of so many millionths of a dollar: a few requests of these texts."""
    return Budget(amount=round(amount * NANO / 1e6), window=window, hard=hard)  # type: ignore[arg-type]  # a Window


ANYWHERE = ("openai/*", "local/*")
DRAFTS = (
    Policy(name="paced", allow=ANYWHERE, budgets=(millionths(60, "day"), millionths(600, "month"))),
    Policy(name="tight", goal="economy", allow=("openai/*",), when_exhausted="refuse",
           budgets=(millionths(25, "week"),)),
    Policy(name="waits", goal="quality", allow=("openai/*",), when_exhausted="wait", budgets=(millionths(90, "day"),)),
    Policy(name="best", goal="quality", allow=("voyage/*", "cohere/*"), budgets=(millionths(150, "day", hard=False),)),
    Policy(name="paris", goal="quality", allow=ANYWHERE, timezone="Europe/Paris",
           budgets=(millionths(40, "day"), millionths(20, "request"), millionths(200, "total"))),
    Policy(name="home", local_only=True),
)  # fmt: skip


async def record(router: Router, clock: Turned, *, days: int = 5, a_day: int = 14, seed: int = 3) -> None:
    """Traffic of every kind: cached, repeated, local, paid, by several at once, refused, sized, pinned, partial."""
    dice = random.Random(seed)
    for policy in DRAFTS:
        await router.policies.save(policy, [m.id for m in router.catalog.models])
    for day in range(days):
        for turn in range(a_day):
            clock.now = START + day * DAY + turn * 4_000 + dice.random() * 1_000
            at_once = [one_request(router, dice) for _ in range(dice.choice([1, 1, 2, 4]))]
            await asyncio.gather(*at_once)


async def one_request(router: Router, dice: random.Random) -> None:
    numbers = [int(dice.paretovariate(0.7)) % 400 for _ in range(dice.randrange(1, 40))]
    policy = dice.choice(DRAFTS).name
    options = dice.choice([
        {}, {}, {}, {"role": "query"}, {"partial": True},
        {"dimensions": 256} if policy != "home" else {},
        {"model": SMALL} if policy in ("paced", "tight") else {},
    ])  # fmt: skip
    with suppress(RouterError):
        await router.embed(texts(*numbers), policy=policy, **options)


def ledger_sum(router: Router, policy: str) -> int:
    """What the ledger has for a policy, by its own entries."""
    sql = "SELECT coalesce(sum(CASE kind WHEN 'struck' THEN -amount ELSE amount END), 0) FROM charges WHERE policy = ?"
    return int(router.database.reader().execute(sql, (policy,)).fetchone()[0])


async def test_the_policy_in_force_replays_to_what_was_recorded(tmp_path: Path) -> None:
    """Cost to the nanodollar, refusals, routes, models and saved money, whatever kind of policy and request."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            sandbox.faults.add(
                Fault(kind="reset", skip=9), Fault(kind="poison", skip=20), Fault(kind="half_json", skip=5)
            )
            await record(router, clock)
            spent = refused = cut_short = changed_rows = 0
            for policy in DRAFTS:
                same = await router.replay(router.policies.get(policy.name), since=START - DAY, until=clock.now + DAY)
                assert (same.changed, same.estimated, same.left_out) == (0, 0, {}), policy.name
                assert same.draft == same.real
                assert same.draft.cost == ledger_sum(router, policy.name)
                rows = router.usage.requests(
                    since=0, until=clock.now + DAY, where={"policy": policy.name}, limit=10_000
                )
                assert same.requests == len(rows)
                assert same.real.refused == sum(r["status"] in ("refused", "failed") for r in rows)
                assert same.real.saved == sum(r["avoided"] for r in rows)
                assert same.real.routes == Counter(**{k: sum(r[k] for r in rows) for k in ("cache", "local", "api")})
                assert sum(same.draft.models.values()) == same.draft.routes.total()
                spent += same.draft.cost
                refused += same.draft.refused
                cut_short += same.draft.cut_short
                changed_rows += len({r["model"] for r in rows})
            assert spent == sum(router.ledger.totals())
            assert spent >= sandbox.bill().nanodollars > 0
            assert refused > 0
            assert cut_short > 0
            assert changed_rows > len(DRAFTS)  # policies changed their model in between: pace and budgets were at work


async def test_the_recorded_budget_of_then_counts_and_not_that_of_now(tmp_path: Path) -> None:
    """The account budget is changed afterwards: the replay of the policy that was in force is the same."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            await router.policies.set_account_budgets([millionths(100, "month")])
            await record(router, clock, days=2)
            await router.policies.set_account_budgets([millionths(1, "day")])
            for policy in DRAFTS:
                same = await router.replay(router.policies.get(policy.name), since=0, until=clock.now + 1)
                assert (same.changed, same.draft.cost) == (0, ledger_sum(router, policy.name))


async def simple(router: Router, clock: Turned, policy: Policy, *requests: list[str]) -> Policy:
    """Save a policy and send requests under it, an hour apart."""
    saved = await router.policies.save(policy, [m.id for m in router.catalog.models])
    for asked in requests:
        with suppress(RouterError):
            await router.embed(asked, policy=policy.name)
        clock.now += 3_600
    return saved


PAID = Policy(name="p", goal="economy", allow=("openai/text-embedding-3-*",), when_exhausted="refuse")


async def test_another_model_costs_its_own_price_and_its_cache_fills_by_itself(tmp_path: Path) -> None:
    """Under a better model of the same tokenizer each distinct text is paid once, at that model's price."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            saved = await simple(router, clock, PAID, texts(1, 2, 3), texts(2, 3, 4, 4), texts(1, 4))
            better = await router.replay(replace(saved, goal="quality"), since=START, until=clock.now)
            counts = count_tokens("cl100k_base", texts(1, 2, 3, 4))
            prices = {m.id: m.prices[0].now for m in router.catalog.models if m.prices}
            paid = (sum(counts[:3]), counts[3])  # the first request pays for three, the second for one
            assert better.real.cost == sum(price_tokens(n, prices[SMALL]) for n in paid)  # type: ignore[arg-type]  # known
            assert better.draft.cost == sum(price_tokens(n, prices[LARGE]) for n in paid)  # type: ignore[arg-type]  # known
            assert better.draft.routes == better.real.routes == Counter(cache=4, api=4)
            assert (better.draft.models, better.real.models) == ({LARGE: 8}, {SMALL: 8})
            assert (better.requests, better.changed, better.estimated) == (3, 3, 0)
            assert better.draft.share(LARGE) == 1.0
            assert better.draft.saved > better.real.saved > 0


async def test_texts_that_were_cached_before_are_cached_in_the_replay(tmp_path: Path) -> None:
    """The simulated cache starts as the real one stood: what another model had before costs nothing there."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            await router.embed(texts(1, 2), model=LARGE)
            clock.now += 3_600
            since = clock.now
            saved = await simple(router, clock, PAID, texts(1, 2, 3))
            found = await router.replay(replace(saved, goal="quality"), since=since, until=clock.now)
            assert found.real.routes == Counter(api=3)
            assert found.draft.routes == Counter(cache=2, api=1)


async def test_a_larger_budget_refuses_less_and_a_smaller_one_more(tmp_path: Path) -> None:
    """A day's budget is simulated with its window: what was refused is answered, and the money turns at midnight."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            cost = price_tokens(sum(count_tokens("cl100k_base", texts(1))), router.catalog.get(SMALL).prices[0].now)  # type: ignore[arg-type]  # known
            day = Budget(amount=2 * cost, window="day")
            asked = [texts(n) for n in range(100, 130)]
            saved = await simple(router, clock, replace(PAID, budgets=(day,)), *asked)
            real = await router.replay(saved, since=0, until=clock.now)
            assert (real.changed, real.real.cost, real.real.refused) == (0, 4 * cost, 26)  # two days have 30 hours
            for amount, answered in ((0, 0), (1, 2), (3, 6), (99, 30)):
                draft = replace(saved, budgets=(replace(day, amount=amount * cost),))
                found = await router.replay(draft, since=0, until=clock.now)
                assert (found.draft.routes["api"], found.draft.refused) == (answered, 30 - answered)
                assert found.draft.cost == answered * cost
            month = await router.replay(replace(saved, budgets=(millionths(0, "month"),)), since=0, until=clock.now)
            assert (month.draft.cost, month.draft.refused) == (0, 30)
            none = await router.replay(replace(saved, budgets=()), since=0, until=clock.now)
            assert (none.draft.cost, none.draft.refused, none.estimated) == (30 * cost, 0, 0)


async def test_a_window_that_no_decision_looked_at_is_summed_from_the_charges(tmp_path: Path) -> None:
    """A budget of another window than the policy had counts what was really spent in it, before the stretch too."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            saved = await simple(router, clock, PAID, *[texts(n) for n in range(10)])
            cost = ledger_sum(router, "p") // 10
            since = START + 5 * 3_600
            draft = replace(saved, budgets=(Budget(amount=7 * cost, window="month"),))
            found = await router.replay(draft, since=since, until=clock.now)
            assert (found.requests, found.draft.routes["api"], found.draft.refused) == (5, 2, 3)
            longer = replace(saved, budgets=(Budget(amount=7 * cost, window="total"),))
            assert (await router.replay(longer, since=since, until=clock.now)).draft.cost == 2 * cost


async def test_money_that_ends_half_way_through_a_file_is_told(tmp_path: Path) -> None:
    """A file goes call by call: the draft spends what there is and is cut short."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            saved = await simple(router, clock, PAID)
            await router.embed(texts(*range(20)), policy="p", partial=True)
            spent = ledger_sum(router, "p")
            draft = replace(saved, budgets=(Budget(amount=spent // 2, window="day"),))
            found = await router.replay(draft, since=0, until=clock.now + 1)
            assert (found.draft.cost, found.draft.cut_short, found.draft.refused) == (spent // 2, 1, 0)
            assert 0 < found.draft.routes["api"] <= 10


async def test_a_tokenizer_that_was_not_counted_makes_an_estimate(tmp_path: Path) -> None:
    """Local requests under a paid draft: the tokens are scaled, near the truth, and said to be estimated."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            await simple(router, clock, Policy(name="p", local_only=True), texts(1, 2, 3))
            found = await router.replay(PAID, since=0, until=clock.now)
            assert found.estimated == 1
            exact = price_tokens(
                sum(count_tokens("cl100k_base", texts(1, 2, 3))), router.catalog.get(SMALL).prices[0].now
            )  # type: ignore[arg-type]  # known
            assert abs(found.draft.cost - exact) < exact / 4
            voyage = replace(PAID, allow=("voyage/voyage-4-lite",))
            assert abs((await router.replay(voyage, since=0, until=clock.now)).draft.cost - exact) < exact / 2


@pytest.mark.parametrize("name", ["voyage/voyage-4-lite", "cohere/embed-v4.0"])
async def test_a_tokenizer_that_is_not_at_hand_replays_to_the_bill(tmp_path: Path, name: str) -> None:
    """Billed by a tokenizer that the router does not have: to the nanodollar where the model stays, and what is likely,
    not the most, where the draft moves it to another of that tokenizer."""
    other = {"voyage/voyage-4-lite": "voyage/voyage-4", "cohere/embed-v4.0": "cohere/embed-v5.0-fast"}[name]
    with Sandbox(counting=COUNTING) as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            used = Policy(name="p", allow=(name,), when_exhausted="refuse")
            saved = await simple(router, clock, used, texts(1, 2, 3), texts(3, 4, 4), texts(1, 2), texts(*range(5, 30)))
            bill = sandbox.bill().nanodollars
            same = await router.replay(saved, since=START, until=clock.now)
            assert (same.changed, same.real.cost, same.draft.cost) == (0, bill, bill)
            assert bill == ledger_sum(router, "p")
            moved = await router.replay(replace(saved, allow=(other,)), since=START, until=clock.now)
            now, then = (router.catalog.get(one).prices[-1].now for one in (name, other))
            truth = bill * then / now
            assert abs(moved.draft.cost - truth) < truth * 3 / 10
            assert moved.draft.routes == moved.real.routes == Counter(cache=3, api=29)


async def test_what_cannot_be_replayed_is_left_out_and_said(tmp_path: Path) -> None:
    """Forgotten digests, and rows without the facts of their decision; another policy's requests are not considered."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            who = {"policy": "p", "version": 1, "collection": "", "role": "document"}
            saved = await simple(router, clock, PAID, texts(1))
            await router.usage.record(Outcome(status="done", model=SMALL), **who)  # type: ignore[arg-type]  # its own
            replay_only = (b"d" * 32, b"tttt", b"cccc")
            await router.usage.record(Outcome(status="done", model=SMALL), **who, replay=replay_only)  # type: ignore[arg-type]  # its own
            await router.embed(texts(2), policy="local")
            found = await router.replay(saved, since=0, until=clock.now + 1)
            assert (found.requests, found.left_out) == (1, {NO_DIGESTS: 1, NO_FACTS: 1})
            other = await router.replay(replace(saved, name="new"), since=0, until=clock.now + 1)
            assert (other.requests, other.draft.cost) == (0, 0)
            assert (await router.replay(replace(saved, name="new"), since=0, until=clock.now + 1, of="p")).requests == 1


async def test_a_request_that_was_refused_can_be_answered_by_the_draft(tmp_path: Path) -> None:
    """What the policy or its allow list refused is priced by the bound of its texts."""
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            saved = await simple(router, clock, replace(PAID, min_quality=99.0), texts(1, 2))
            found = await router.replay(replace(saved, min_quality=None), since=0, until=clock.now)
            assert (found.real.refused, found.draft.refused) == (1, 0)
            assert found.draft.routes == Counter(api=2)
            assert found.draft.cost > 0


@pytest.mark.parametrize("mutant", ["UPDATE pace SET used = 10000000", "UPDATE replay SET facts = {blank}"])
async def test_the_exactness_is_not_by_chance(tmp_path: Path, mutant: str) -> None:
    """With the pace, or with what the budgets had used, forgotten, the same replay comes to something else."""
    blank = (
        "(SELECT json_set(facts, '$.budgets', json_group_array(json_set(value, '$[4]', 0)))"
        " FROM json_each(facts, '$.budgets'))"
    )
    with Sandbox() as sandbox:
        async with opened(tmp_path, sandbox) as (router, clock):
            await record(router, clock, days=3)
            await router.database.write(lambda conn: conn.execute(mutant.format(blank=blank)))
            policies = [router.policies.get(p.name) for p in DRAFTS]
            found = [await router.replay(p, since=0, until=clock.now + 1) for p in policies]
            assert sum(f.changed for f in found) > 0
