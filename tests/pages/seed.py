"""Made-up traffic, written through the engine's own books: for the tests of the pages."""

from __future__ import annotations

import asyncio
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import dashboard
from router import Router
from router.domain.money import price_tokens
from router.domain.pricing import price_on
from router.domain.values import Budget, Policy, RouteCounts, Saved, Unit
from router.library import Library
from router.reporting.figures import today
from router.store.entries import Purpose
from router.store.usage import Outcome

SMALL, LARGE, LOCAL = "openai/text-embedding-3-small", "voyage/voyage-4-large", "local/all-MiniLM-L6-v2"


class Turned:
    """A clock that stands where it is put."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def traffic(path: Path, *, now: float, days: int, requests_a_day: int, seed: int = 1) -> None:
    """Requests over the last `days` days: cached, local, paid, refused, and one whose outcome is not known."""
    clock, dice = Turned(now), random.Random(seed)
    async with Router.open(path, env={}, clock=clock) as router:
        for ago in range(days - 1, -1, -1):
            if ago % 11 == 9:  # a day without requests
                continue
            start = now - ago * 86_400
            for turn in range(requests_a_day):
                clock.now = min(now, start - 3_600 * dice.random() * 8)
                await _request(router, clock, dice, last=ago == 0 and turn == requests_a_day - 1)


async def _request(router: Router, clock: Turned, dice: random.Random, *, last: bool) -> None:
    model = router.catalog.get(SMALL if last else dice.choices([SMALL, LARGE, LOCAL], weights=[5, 2, 3])[0])
    policy = {SMALL: "default", LARGE: "quality", LOCAL: "local"}[model.id]
    distinct = dice.randrange(20, 900)
    cached = int(distinct * dice.uniform(0.4, 0.95))
    missed, repeated, tokens_each = distinct - cached, dice.randrange(0, 60), dice.randrange(60, 160)
    who = {"policy": policy, "version": 1, "collection": "", "role": "document"}
    price = price_on(model if not model.local else router.catalog.get(SMALL), today_of(clock.now))
    assert price is not None
    assert price.now is not None
    per_million = price.now
    worth = price_tokens(tokens_each, per_million)
    if dice.random() < 0.04 and not last:
        reason = "this month's $5.00 is spent; $0.0031 more is needed."
        refused = Outcome(
            status="refused", model=model.id, texts=distinct, distinct=distinct, refused=distinct, latency_ms=3,
            decision=f"Refused: {reason}", error=reason, candidates=_candidates(model.id, None),
        )  # fmt: skip
        await router.usage.record(refused, **who)
        return
    number = await router.usage.begin(**who)
    charged = unconfirmed = 0
    if not model.local:
        digests = [hashlib.blake2b(f"{number}.{n}".encode(), digest_size=32).digest() for n in range(missed)]
        units = [Unit(digest=digest, text="", tokens=tokens_each) for digest in digests]
        purpose = Purpose(request=number, policy=policy, model=model.id, kind=model.space, route="api")
        cost = worth * missed * 20
        opened = await router.ledger.open([units], purpose, price=lambda _: cost, stored=lambda _: set(), sent=True)
        if last:
            unconfirmed = cost
            await router.ledger.fail(opened.holds[0], "time-out after sending", billed=None, price=lambda _: cost)
        else:
            charged = cost
            await router.ledger.settle(opened.holds[0], cost, missed * tokens_each)
    outcome = Outcome(
        status="done", model=model.id, space=model.space, dimensions=model.default_dimensions,
        texts=distinct + repeated,
        distinct=distinct, repeated=repeated,
        routes=RouteCounts(cache=cached, **({"local": missed} if model.local else {"api": missed})),
        tokens=distinct * tokens_each, charged=charged, unconfirmed=unconfirmed,
        saved=Saved(
            cache=worth * cached * 20, repeats=worth * repeated, local=worth * missed if model.local else 0
        ),
        latency_ms=dice.lognormvariate(4.5, 0.9), candidates=_candidates(model.id, charged + unconfirmed),
        decision=f"{cached} of {distinct} texts are in the cache; the other {missed} go to {model.id}. The goal is"
        f" balanced: 12 % of the month's budget is used, which is on pace. $4.12 of this month's $5.00 is left.",
    )  # fmt: skip
    await router.usage.record(outcome, **who, request=number)


def unconfirmed(path: Path, *amounts: int) -> None:
    """Unconfirmed charges of these nanodollars, booked by an engine of their own, as another process would."""

    async def book() -> None:
        async with Router.open(path, env={}) as router:
            for amount in amounts:
                number = await router.usage.begin(policy="default", version=1, collection="", role="document")
                purpose = Purpose(request=number, policy="default", model=SMALL, kind=SMALL, route="api")
                unit = Unit(digest=amount.to_bytes(32, "big"), text="", tokens=9)
                price = {"price": lambda _, cost=amount: cost}
                opened = await router.ledger.open([[unit]], purpose, stored=lambda _: set(), sent=True, **price)
                await router.ledger.fail(opened.holds[0], "the reply was lost", billed=None, **price)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(book())).result()


def write_large(path: Path, *, texts: Path) -> None:
    """Twenty thousand requests, many policies, collections and documents."""
    path.mkdir()
    dashboard.fill(path / "router.db", 20_000)
    texts.mkdir()
    for n in range(250):
        (texts / f"letter-{n:03}.txt").write_text(f"Letter number {n}, on the sale of {n} horses.")
    rows = (
        f'{{"id": "{n}", "text": "Sale number {n}, of {n % 97} horses to customer {n % 13}."}}' for n in range(3_000)
    )
    (texts / "sales.jsonl").write_text("\n".join(rows))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(_many(path, texts))).result()


async def _many(path: Path, texts: Path) -> None:
    async with Router.open(path, env={}) as router:
        library = Library(router)
        ids = [model.id for model in router.catalog.models]
        for n in range(40):
            budgets = (Budget(amount=10**9 * (n + 1), window="month"),)
            await router.policies.save(Policy(name=f"team-{n:02}", budgets=budgets), ids)
            await library.create(f"shelf-{n:02}", policy=f"team-{n:02}")
        await library.add_files("shelf-00", [texts])
        await library.aclose()


def today_of(now: float):  # type: ignore[no-untyped-def]  # a date
    return today(now, "UTC")


def _candidates(chosen: str, cost: int | None) -> list[dict[str, object]]:
    return [
        {
            "model": name, "route": "api", "eligible": name == chosen, "chosen": name == chosen and cost is not None,
            "quality": score, "cached": 12, "cost_usd": None if cost is None else f"0.{cost:09d}"[-11:],
            "seconds": 0.5, "reason": "is the best of 3" if name == chosen else "costs $0.0012 more",
        }
        for name, score in ((SMALL, 54.8), (LARGE, 78.4), (LOCAL, 42.7))
    ]  # fmt: skip


def write(path: Path, *, now: float, days: int = 45, requests_a_day: int = 8) -> None:
    """`traffic`, in a thread of its own: Playwright keeps an event loop running in the one that it is used in."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(traffic(path, now=now, days=days, requests_a_day=requests_a_day))).result()
