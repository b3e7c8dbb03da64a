"""What a collection would cost: the same as it does cost, for every candidate, before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.domain.money import price_tokens
from router.domain.values import Plan
from router.jobs.quote import QUERY_TOKENS, looks_english
from router.sandbox import Sandbox
from tests.libraries import LARGE, SMALL, billed, jsonl, opened, texts

VOYAGE = "voyage/voyage-4"


@pytest.fixture
def rows() -> list[str]:
    """Texts, with five exact repeats and two that are near-empty."""
    some = texts(60)
    return [*some, *some[:5], "--", "7"]


@pytest.fixture
def file(tmp_path: Path, rows: list[str]) -> Path:
    """The texts as a file."""
    return jsonl(tmp_path / "letters.jsonl", rows)


async def test_a_quote_counts_what_there_is(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Chunks, distinct ones, exact repeats, near-empty ones; and a quote spends nothing."""
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("letters", policy="quality")
        await here.library.add_files("letters", [file])
        quote = await here.library.quote("letters")
        assert (quote.documents, quote.new_documents) == (1, 1)
        assert (quote.chunks, quote.distinct, quote.duplicates, quote.near_empty) == (67, 60, 5, 2)
        assert quote.english
        assert [c.text for c in quote.preview][:2] == texts(2)
        assert {c.model.id for c in quote.candidates} == {m.id for m in here.router.catalog.models}
        assert billed(provider)[0] == 0
        assert here.router.ledger.totals() == (0, 0, 0)


@pytest.mark.parametrize("model", [SMALL, LARGE, "voyage/voyage-3.5", "cohere/embed-v4.0"])
async def test_what_is_quoted_is_what_is_billed(tmp_path: Path, provider: Sandbox, file: Path, model: str) -> None:
    """To the nanodollar where the tokenizer is at hand; else the quote is the most that it can cost."""
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("letters", policy="quality")
        await here.library.add_files("letters", [file])
        quote = await here.library.quote("letters", model=model)
        assert quote.chosen is not None
        assert quote.chosen.model.id == model
        job = await here.library.confirm("letters", model=model)
        await here.worker.run_all()
        spent = here.library.job(job.id).spent
        assert here.library.job(job.id).state == "done"
        assert spent == provider.bill().nanodollars > 0
        assert quote.chosen.now_cost is not None
        if quote.chosen.exact:
            assert quote.chosen.now_cost <= spent <= quote.chosen.now_cost + 4  # rounded up once a call
        else:
            assert spent <= quote.chosen.now_cost
        again = await here.library.quote("letters")
        assert again.chosen is not None
        assert (again.chosen.verdict.cached, again.chosen.now_cost, again.chosen.verdict.route) == (60, 0, "cache")


async def test_the_engine_and_the_collection_quote_alike(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """The same distinct texts cost the same by both doors, for every model whose tokens are counted."""
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("letters", policy="quality")
        await here.library.add_files("letters", [file])
        await here.router.embed(texts(25), policy="quality", model=SMALL)
        ours = await here.library.quote("letters")
        theirs = await here.router.quote(texts(60), policy="quality", partial=True)
        for line in theirs.lines:
            [candidate] = [c for c in ours.candidates if c.model.id == line.verdict.model.id]
            assert candidate.verdict.cached == line.verdict.cached
            assert candidate.now_cost == line.verdict.cost
        assert isinstance(ours.outcome, Plan)
        assert ours.outcome.model.id == theirs.model


async def test_batch_year_and_budgets(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Half the price by batch, a year of queries on top, and what is left of each budget."""
    async with opened(tmp_path / "data", provider) as here:
        await here.allow("0.00001/month", "1/request")
        await here.library.create("letters", policy="quality")
        await here.library.add_files("letters", [file])
        quote = await here.library.quote("letters", queries_a_month=1_000)
        [small] = [c for c in quote.candidates if c.model.id == SMALL]
        assert small.now_cost is not None
        assert small.batch_cost == small.now_cost // 2
        price = small.model.prices[0].now
        assert price is not None
        assert small.year_cost == small.now_cost + price_tokens(12_000 * QUERY_TOKENS, price)
        assert {(e.owner, e.window): (e.before, e.fits) for e in small.budgets} == {
            ("policy/quality", "month"): (10_000, False),
            ("policy/quality", "request"): (1_000_000_000, True),
            ("account", "month"): (10_000_000_000, True),
        }
        assert {e.after for e in small.budgets if e.owner == "account"} == {10_000_000_000 - small.now_cost}
        [local] = [c for c in quote.candidates if c.model.id == "local/all-MiniLM-L6-v2"]
        assert (local.now_cost, local.batch_cost, local.year_cost) == (0, None, 0)


async def test_starting_locally_and_improving_overnight_is_offered(
    tmp_path: Path, provider: Sandbox, file: Path
) -> None:
    """The best local model now, the best paid one by batch; not where a collection is pinned, nor without keys."""
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("letters", policy="quality")
        await here.library.add_files("letters", [file])
        over = (await here.library.quote("letters")).overnight
        assert over is not None
        assert (over.start.id, over.then.id) == ("local/all-MiniLM-L6-v2", "voyage/voyage-4-large")
        assert over.cost > 0
        await here.library.create("pinned", policy="quality", model=SMALL)
        await here.library.add_files("pinned", [file])
        assert (await here.library.quote("pinned")).overnight is None
    async with opened(tmp_path / "nokeys") as here:
        await here.library.create("letters")
        await here.library.add_files("letters", [file])
        quote = await here.library.quote("letters")
        assert quote.overnight is None
        assert quote.chosen is not None
        assert quote.chosen.model.local


async def test_a_collection_is_quoted_in_its_own_space_only(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Every other model says that the collection is pinned; `anew` quotes them all."""
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", file)
        quote = await here.library.quote("letters")
        assert [c.model.id for c in quote.candidates if c.verdict.eligible] == [SMALL]
        assert {c.verdict.reason for c in quote.candidates if c.model.id == LARGE} == {
            f"the collection 'letters' is pinned to space {SMALL}"
        }
        anew = await here.library.quote("letters", anew=True)
        assert sum(c.verdict.eligible for c in anew.candidates) > 5


async def test_texts_that_are_not_english_are_warned_of(tmp_path: Path) -> None:
    """Where a model and its scores are for English only."""
    german = [
        f"Der Brief Nummer {n} beschreibt, wie man die Dinge im Haus wieder in Ordnung bringt." for n in range(30)
    ]
    async with opened(tmp_path / "data") as here:
        await here.library.create("briefe")
        await here.library.add_files("briefe", [jsonl(tmp_path / "briefe.jsonl", german)])
        quote = await here.library.quote("briefe")
        assert not quote.english
        warned = {c.model.id for c in quote.candidates if "English" in c.warning}
        assert warned == {m.id for m in here.router.catalog.models if m.languages == "en"} != set()


async def test_chunks_that_a_model_takes_in_pieces_are_warned_of(tmp_path: Path) -> None:
    """Chunks may be longer than the local model takes, if somebody wants them so."""
    async with opened(tmp_path / "data") as here:
        await here.library.create("long", chunk_tokens=1_000)
        await here.library.add_files("long", [jsonl(tmp_path / "long.jsonl", ["word " * 600, "short text of words"])])
        quote = await here.library.quote("long")
        [local] = [c for c in quote.candidates if c.model.id == "local/all-MiniLM-L6-v2"]
        assert local.over_long == 1
        assert "1 chunks are longer than the 256 tokens" in local.warning


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("The cat is on the mat and it is not in the house with you, so that is what we know of it by now.", True),
        ("Die Katze sitzt auf der Matte, und sie ist nicht im Haus bei dir, das ist alles, was wir bisher wissen,"
         " aber morgen ist auch noch ein Tag fuer alle", False),
        ("Кошка сидит на коврике и не собирается уходить the of and to a in is it for on that with as are be", False),
        ("4711", True),
    ],
)  # fmt: skip
def test_what_looks_english(text: str, english: bool) -> None:
    """By letters and common words; too little to tell is no reason to warn."""
    assert looks_english([text]) == english
