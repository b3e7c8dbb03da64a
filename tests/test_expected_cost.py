"""What a call will likely cost, against a sandbox that counts by tokenizers which the router does not have.

The texts learned from and those judged by have no words and no source files in common.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.domain.values import Policy
from router.engine import Router
from router.sandbox import Sandbox, SandboxConfig
from tests.tokenizers import COUNTING, LANGUAGES, PROGRAMMING, files

RICH = Policy(name="rich", goal="quality", when_exhausted="refuse")
MODELS = ["voyage/voyage-4-lite", "voyage/voyage-4-large", "cohere/embed-v4.0"]


@pytest.fixture(scope="module")
def counting() -> Iterator[Sandbox]:
    """The provider on loopback, with tokenizers of its own for Voyage and Cohere."""
    with Sandbox(SandboxConfig(), counting=COUNTING) as found:
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


@pytest.mark.filterwarnings("ignore:Sending a large body directly")  # of voyageai's client, for calls over a megabyte
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
