"""Fault 22: batch results shuffled, doubled, unknown, without `custom_id` or missing; some requests fail.

Figures: vectors at the wrong text (0); texts neither stored nor reported (0); texts stored twice (0).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from router.batches.results import Results
from router.batches.states import BatchTier
from router.pipeline.validate import digest
from router.sandbox import Fault, Sandbox
from tests.batches.batches import SMALL, SomeJob, assert_right, misses_of, opened, stored
from tests.faults.ledger_oracle import audit

LINE_FAULTS = ("one_short", "one_too_many", "doubled_index", "nan", "infinity", "null", "zeros", "wrong_size",
               "broken_base64", "wrong_model", "overbill", "status", "poison")  # fmt: skip
FILE_FAULTS = ("batch_doubled", "batch_unknown", "batch_missing", "batch_no_custom_id")
UNTOLD = {"batch_missing", "batch_no_custom_id"}
"""These leave a request out that was billed: what it cost can only be estimated."""
HOPELESS = {"poison"}


async def end(tier: BatchTier, router: object, texts: list[str], job: SomeJob) -> int:
    """Step until the job is through; how many steps met results that were looked at again."""
    again = 0
    for _ in range(60):
        progress = await tier.step(job, misses_of(router, texts, job.model))  # type: ignore[arg-type]
        assert progress.error is None, progress.reason
        again += "incomplete" in progress.reason
        if not progress.open and not progress.moved:
            return again
    raise AssertionError("the job does not end")


@pytest.mark.parametrize("model", [SMALL, "voyage/voyage-4-lite"])
async def test_each_text_is_stored_once_or_reported(
    sandbox: Sandbox, fresh: Callable[[str], Path], count: Callable[[int, int], int],
    figure: Callable[[int, str], None], model: str,
) -> None:  # fmt: skip
    """Any mixture of faults: a text has its own vector, or a reason; the ledger holds the whole bill."""
    trials = count(10, 200)
    texts_in_all = reported_in_all = retried = unconfirmed = 0
    for number in range(trials):
        rng = random.Random(f"{model} {number}")
        sandbox.reset()
        sandbox.configure(batch_seconds=0)
        texts = [f"trial {number}, text {n}{' again' * rng.randrange(3)}" for n in range(rng.randint(1, 12))]
        kinds = rng.sample(LINE_FAULTS, rng.randint(0, 3)) + rng.sample(FILE_FAULTS, rng.randint(0, 2))
        doomed: set[str] = set()
        for kind in kinds:
            text = rng.choice(texts)
            for_good = kind in LINE_FAULTS and rng.random() < 0.3
            match = text if kind in LINE_FAULTS else None
            sandbox.faults.add(Fault(kind, match=match, times=None if for_good else rng.randint(1, 2)))  # type: ignore[arg-type]  # a kind
            if (for_good and kind != "overbill") or kind in HOPELESS:
                doomed.update(t for t in texts if text in t)
        job = SomeJob(model=model)
        async with opened(fresh(str(number)), sandbox) as (router, tier):
            await end(tier, router, texts, job)
            there, why = stored(router, texts, model), tier.store.failures(job.id)
            assert_right(router, sorted(there), model)
            assert {digest(text) for text in set(texts) - there} == set(why)
            assert all(reason.strip() for reason in why.values())
            if not set(kinds) - HOPELESS:
                assert set(texts) - there <= doomed
            (rows,) = router.cache.database.reader().execute("SELECT count(*) FROM vectors").fetchone()
            assert rows == len(there)
            sums, bill = audit(router.database.reader()), sandbox.bill()
            assert sums.settled <= bill.nanodollars <= sums.shown
            if not (UNTOLD | {"overbill"}) & set(kinds):  # more than the texts can be is not confirmed
                assert sums.unconfirmed == 0
            assert (sums.held, sums.pending) == (0, 0)
            assert bill.most_often <= 3
            retried += bill.most_often > 1
        texts_in_all += len(texts)
        reported_in_all += len(why)
        unconfirmed += sums.unconfirmed > 0
    assert retried > 0
    assert reported_in_all > 0
    provider = model.partition("/")[0]
    figure(22, f"{trials} jobs at {provider}, {texts_in_all} texts: 0 at the wrong place, 0 stored twice, 0"
           f" neither stored nor reported ({reported_in_all} reported; {unconfirmed} jobs with an unconfirmed charge)",
    )  # fmt: skip


@pytest.mark.parametrize("kind", FILE_FAULTS)
async def test_one_strange_line_costs_one_text_at_most(
    sandbox: Sandbox, fresh: Callable[[str], Path], kind: str
) -> None:
    """Doubled and unknown lines change nothing; a line left out is looked for again, then its text is sent again."""
    sandbox.configure(batch_seconds=0)
    sandbox.faults.add(Fault(kind))  # type: ignore[arg-type]  # a kind
    texts = [f"{kind} {n}" for n in range(8)]
    async with opened(fresh(kind), sandbox) as (router, tier):
        again = await end(tier, router, texts, SomeJob())
        assert again == (2 if kind in UNTOLD else 0)
        assert stored(router, texts) == set(texts)
        assert_right(router, texts)
        sums, bill = audit(router.database.reader()), sandbox.bill()
        assert bill.texts == (9 if kind in UNTOLD else 8)
        assert sums.shown == bill.nanodollars
        assert (sums.unconfirmed > 0) == (kind in UNTOLD)


async def test_a_rejected_text_is_reported_at_once_and_a_failed_one_is_sent_again(
    sandbox: Sandbox, fresh: Callable[[str], Path]
) -> None:
    """What the provider will never embed is not sent twice; a 500 is; the rest is not sent again with them."""
    sandbox.configure(batch_seconds=0)
    sandbox.faults.add(Fault("poison", match="bad text", times=None), Fault("status", match="unlucky"))
    texts = ["a bad text", "an unlucky text", *(f"text {n}" for n in range(6))]
    async with opened(fresh("rejected"), sandbox) as (router, tier):
        await end(tier, router, texts, SomeJob())
        assert stored(router, texts) == set(texts[1:])
        why = tier.store.failures(SomeJob().id)
        assert list(why) == [digest("a bad text")]
        assert "content" in why[digest("a bad text")]
        counts = [texts for (texts,) in router.database.reader().execute("SELECT texts FROM batches ORDER BY id")]
    assert counts == [8, 1]
    assert sandbox.bill().most_often == 1


async def test_going_by_the_order_of_the_lines_is_found_out(
    sandbox: Sandbox, fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: the nth line for the nth text; the same check finds it out."""
    take = Results._take

    def by_order(self: Results, data: dict[str, object]) -> object:
        n = len(self._finished)
        return take(self, {**data, "custom_id": self._texts[n].digest.hex()})

    monkeypatch.setattr(Results, "_take", by_order)
    sandbox.configure(batch_seconds=0)
    texts = [f"text {n}" for n in range(8)]
    async with opened(fresh("mutant"), sandbox) as (router, tier):
        await end(tier, router, texts, SomeJob())
        with pytest.raises(AssertionError):
            assert_right(router, texts)
