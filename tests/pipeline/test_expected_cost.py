"""What a call will likely cost, against a sandbox that counts by tokenizers which the router does not have.

The texts learned from and those judged by have no words and no source files in common.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.domain.values import Policy, Unit
from router.engine import Router
from router.sandbox import Sandbox
from router.tokens import count as count_tokens
from tests.libraries import opened
from tests.tokenizers import COUNTING, LANGUAGES, PROGRAMMING, files

RICH = Policy(name="rich", goal="quality", when_exhausted="refuse")
MODELS = ["voyage/voyage-4-lite", "voyage/voyage-4-large", "cohere/embed-v4.0"]


@pytest.fixture(scope="module")
def counting() -> Iterator[Sandbox]:
    """The provider on loopback, with tokenizers of its own for Voyage and Cohere."""
    with Sandbox(counting=COUNTING) as found:
        yield found


async def expected(router: Router, texts: list[str], model: str) -> int:
    """Nanodollars that a quote expects for these texts, of which none is cached."""
    quote = await router.quote(texts, policy="rich", model=model)
    (line,) = [line for line in quote.lines if line.verdict.model.id == model]
    assert line.verdict.cached == 0
    assert line.verdict.expected is not None
    return line.verdict.expected


def billed_beyond_holds(router: Router) -> list[tuple[int, int]]:
    """Charges above what was held for them."""
    return (
        router.database.reader()
        .execute("SELECT c.amount, h.amount FROM charges c JOIN holds h ON h.id = c.hold WHERE c.amount > h.amount")
        .fetchall()
    )


@pytest.mark.parametrize("model", MODELS)
async def test_the_expected_cost_is_near_the_bill_and_nearer_after_fifty_calls(
    tmp_path: Path,
    counting: Sandbox,
    model: str,
    count: Callable[[int, int], int],
    record_property: Callable[[str, object], None],
) -> None:
    """Within 30 % before any call was learned from, within 10 % after fifty; and no bill passes its hold."""
    counting.reset()
    judged = files(count(54, 200), seed=7, half=1)
    assert {name for name, _ in judged} == {*LANGUAGES, *PROGRAMMING}
    texts = [text for _, text in judged]
    rng = random.Random(11)
    lessons = [text for _, text in files(count(108, 400), seed=3, half=0)]
    async with Router.open(tmp_path, env=counting.environment) as router:
        await router.policies.save(RICH, [m.id for m in router.catalog.models])
        before = await expected(router, texts, model)
        for number in range(50):
            some = rng.sample(lessons, count(3, 8))
            await router.embed([f"{number}. {text}" for text in some], policy="rich", model=model)
        after = await expected(router, texts, model)
        so_far = counting.bill().nanodollars
        result = await router.embed(texts, policy="rich", model=model)
        bill = counting.bill().nanodollars - so_far
        assert result.cost == bill
        assert billed_beyond_holds(router) == []
        errors = router.estimates.errors()[model]
    record_property("off before", round(before / bill - 1, 4))
    record_property("off after", round(after / bill - 1, 4))
    print(f"{model}: expected {before / bill - 1:+.1%} before, {after / bill - 1:+.1%} after; {errors}")
    assert abs(before - bill) <= 0.3 * bill
    assert abs(after - bill) <= 0.1 * bill
    assert errors.calls >= 51


async def test_savings_of_cached_vectors_are_near_what_they_cost(tmp_path: Path, counting: Sandbox) -> None:
    """What is stored with a vector is what was likely: the cache saves about the bill, and not five times that."""
    counting.reset()
    texts = [text for _, text in files(27, seed=5, half=0)]
    async with Router.open(tmp_path, env=counting.environment) as router:
        await router.policies.save(RICH, [m.id for m in router.catalog.models])
        first = await router.embed(texts, policy="rich", model="voyage/voyage-4")
        again = await router.embed(texts, policy="rich", model="voyage/voyage-4")
        assert again.counts.cache == len(texts)
        assert again.cost == 0
        assert abs(again.saved.total - first.cost) <= 0.3 * first.cost
        # A likely count is no bound: another model of the kind is counted anew.
        quote = await router.quote(texts, policy="rich", model="cohere/embed-v4.0")
        line = next(line for line in quote.lines if line.verdict.model.id == "cohere/embed-v4.0")
        assert line.verdict.tokens == sum(count_tokens("bytes", texts))
        assert line.verdict.expected_tokens < line.verdict.tokens / 2


async def test_savings_of_vectors_that_version_1_stored_are_not_five_times_too_high(
    tmp_path: Path, counting: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their counts are bounds, told by being the bytes and eight more."""
    counting.reset()
    texts = [text for _, text in files(27, seed=5, half=0)]
    async with Router.open(tmp_path, env=counting.environment) as router:
        await router.policies.save(RICH, [m.id for m in router.catalog.models])
        with monkeypatch.context() as version_1:
            version_1.setattr(Unit, "likely", property(lambda unit: len(unit.text.encode()) + 8))
            first = await router.embed(texts, policy="rich", model="voyage/voyage-4")
        again = await router.embed(texts, policy="rich", model="voyage/voyage-4")
        assert again.cost == 0
        assert 0.5 * first.cost <= again.saved.total <= 1.5 * first.cost


async def test_a_quoted_collection_is_expected_to_cost_about_its_bill(tmp_path: Path, counting: Sandbox) -> None:
    """By the kinds of its documents, at once and by the batch tier; and a batch is learned from when it is settled."""
    counting.reset()
    counting.configure(batch_seconds=0.01)
    for at, (_, text) in enumerate(files(45, seed=9, half=1)):
        (tmp_path / f"{at}.md").write_text(text)
    async with opened(tmp_path / "data", counting) as here:
        await here.router.policies.save(RICH, [m.id for m in here.router.catalog.models])
        await here.library.create("mixed", policy="rich")
        await here.library.add_files("mixed", sorted(tmp_path.glob("*.md")))
        quote = await here.library.quote("mixed", model="voyage/voyage-4")
        assert quote.chosen is not None
        assert quote.chosen.now_expected is not None
        assert quote.chosen.verdict.expected_batch is not None
        assert quote.chosen.now_expected < quote.chosen.now_cost / 2
        await here.library.confirm("mixed", model="voyage/voyage-4", route="batch")
        await here.worker.run_all()
        bill = counting.bill()
        assert bill.nanodollars > 0
        assert abs(quote.chosen.verdict.expected_batch - bill.nanodollars) <= 0.3 * bill.nanodollars
        (one,) = here.router.estimates.errors().values()
        assert (one.calls, one.billed) == (1, bill.tokens)
        assert billed_beyond_holds(here.router) == []
        # What was billed for a text is what its vector's count is.
        kept = here.router.cache.database.reader().execute("SELECT sum(tokens) FROM vectors").fetchone()[0]
        assert kept == bill.tokens
