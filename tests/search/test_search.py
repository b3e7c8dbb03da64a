"""Search is exact, and says what it cost; export gives back what is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.domain.errors import BadInput, Refused
from router.pipeline.validate import digest
from router.sandbox import Sandbox, expected_vectors
from router.search.vectors import Embedded
from tests.libraries import SMALL, billed, jsonl, opened, texts

VOYAGE = "voyage/voyage-4"


@pytest.mark.parametrize(
    ("model", "size", "held"),
    [(SMALL, None, True), (SMALL, 256, True), (SMALL, 256, False), (VOYAGE, None, False), (VOYAGE, 2048, True)],
)
async def test_the_nearest_are_those_of_a_plain_sum(
    tmp_path: Path, provider: Sandbox, model: str, size: int | None, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the blocks, the size, the model's roles, and whether it fits in memory: NumPy says the same."""
    monkeypatch.setattr("router.search.index.BLOCK", 7)
    if not held:
        monkeypatch.setattr("router.search.index.MOST_BYTES", 100)
    rows = texts(100)
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", [*rows, rows[3]]), model=model, dimensions=size)
        for query in (rows[3], "how do I mend the things in my house?"):
            found = await here.library.search("letters", query, k=12)
            document = None if model == SMALL else "document"
            asked = None if model == SMALL else "query"
            (wanted,) = expected_vectors(model, [query], asked, found.query.dimensions)
            scores = expected_vectors(model, rows, document, found.query.dimensions) @ wanted
            best = np.argsort(-scores)[:12]
            assert [hit.chunk.text for hit in found.hits] == [rows[at] for at in best]
            assert np.allclose([hit.score for hit in found.hits], scores[best], atol=1e-5)
            assert (found.searched, found.missing, found.query.model) == (100, 0, model)
            assert found.query.dimensions == (size or here.router.catalog.get(model).default_dimensions)
        [hit] = (await here.library.search("letters", rows[3], k=1)).hits
        assert (hit.copies, hit.chunk.document, hit.chunk.key) == (2, "letters.jsonl", "letters.jsonl#r3")


async def test_the_second_query_reads_no_vector(
    tmp_path: Path, provider: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of another collection that fits beside it; the one searched longest ago makes room for a third."""
    reads: list[int] = []
    fetch = Embedded.fetch
    monkeypatch.setattr(Embedded, "fetch", lambda self, rows: reads.append(len(rows)) or fetch(self, rows))
    monkeypatch.setattr("router.search.index.MOST_BYTES", 25 * 4 * 1536)
    async with opened(tmp_path / "data", provider) as here:
        for name in ("one", "two", "three"):
            await here.embed(name, jsonl(tmp_path / f"{name}.jsonl", texts(10, name)))
        read: dict[str, list[int]] = {}
        for name in ("one", "two", "one", "three", "one", "two"):
            reads.clear()
            await here.library.search(name, "anything at all", k=3)
            read.setdefault(name, []).extend(reads or [0])
        assert read == {"one": [10, 0, 0], "two": [10, 10], "three": [10]}


async def test_what_changes_is_seen_by_the_next_query(tmp_path: Path, provider: Sandbox) -> None:
    """A text that is added is found at once, one that is erased never again, whoever did it."""
    rows = texts(10)
    async with opened(tmp_path / "data", provider) as here, opened(tmp_path / "data", provider) as other:

        async def search() -> tuple[set[str], int, int]:
            found = await here.library.search("letters", "anything at all", k=20)
            return {hit.chunk.text for hit in found.hits}, found.searched, found.missing

        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", rows))
        assert await search() == (set(rows), 10, 0)
        await other.library.add_files("letters", [jsonl(tmp_path / "more.jsonl", ["a text that is new"])])
        await other.library.confirm("letters")
        assert await search() == (set(rows), 10, 1)
        await other.worker.run_all()
        assert await search() == ({*rows, "a text that is new"}, 11, 0)
        await other.library.erase(rows[3])
        assert await search() == ({*rows, "a text that is new"} - {rows[3]}, 10, 0)
        await other.router.cache.erase([digest(rows[4])])  # the vector alone, behind everybody's back
        assert await search() == ({*rows, "a text that is new"} - {rows[3], rows[4]}, 9, 1)
        await other.library.delete_documents("letters", ["more.jsonl"])
        assert await search() == (set(rows) - {rows[3], rows[4]}, 8, 1)


async def test_a_query_costs_once_and_says_so(tmp_path: Path, provider: Sandbox) -> None:
    """The second time it is in the cache; a document's vector of the same text is not taken for a query's."""
    rows = texts(10)
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", rows), model=VOYAGE)
        before = provider.bill().nanodollars
        first = await here.library.search("letters", rows[0])
        assert first.query.cost == provider.bill().nanodollars - before > 0
        assert first.query.routes[0] == "api"
        again = await here.library.search("letters", rows[0])
        assert (again.query.cost, again.query.routes[0]) == (0, "cache")
        assert billed(provider) == (11, 2)  # the same text, once as a document and once as a query
        [query, *_] = here.router.usage.requests(since=0, until=9e9, limit=1)
        assert (query["collection"], query["role"]) == ("letters", "query")


async def test_what_is_not_embedded_yet_is_counted(tmp_path: Path, provider: Sandbox) -> None:
    """While a job runs, what is there is searched."""
    rows = texts(20)
    async with opened(tmp_path / "data", provider) as here:
        await here.fill("letters", jsonl(tmp_path / "letters.jsonl", rows))
        await here.library.confirm("letters")
        with pytest.raises(BadInput, match="is embedded yet"):
            await here.library.export("letters", tmp_path / "out.jsonl")
        assert not (tmp_path / "out.jsonl").exists()
        await here.router.embed(rows[:8], policy="quality", model=SMALL)
        found = await here.library.search("letters", "anything at all")
        assert (found.searched, found.missing, len(found.hits)) == (8, 12, 8)


async def test_a_query_that_may_not_be_paid_for_is_refused(tmp_path: Path, provider: Sandbox) -> None:
    """It never falls to a local model: that would be another space."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", texts(10)))
        await here.allow("0.000000001/month", when_exhausted="local")
        with pytest.raises(Refused, match="month's"):
            await here.library.search("letters", "a query that is new")


@pytest.mark.parametrize("k", [0, 1_001])
async def test_a_wrong_k_is_refused(tmp_path: Path, provider: Sandbox, k: int) -> None:
    """Before anything is paid for."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", texts(3)))
        before = billed(provider)
        with pytest.raises(BadInput, match=f"{k} results"):
            await here.library.search("letters", "query", k=k)
        assert billed(provider) == before


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "npz"])
async def test_an_export_holds_every_chunk_with_its_vector(tmp_path: Path, provider: Sandbox, ending: str) -> None:
    """Repeats too, in the order of the documents, with the space as metadata."""
    rows = texts(30)
    rows += rows[:4]
    out = tmp_path / f"out.{ending}"
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", rows))
        assert await here.library.export("letters", out) == 34
    right = expected_vectors(SMALL, rows)
    if ending == "jsonl":
        lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert [line["text"] for line in lines] == rows
        assert np.allclose([line["vector"] for line in lines], right, atol=1e-5)
        assert {(line["space"], line["model"], line["dimensions"]) for line in lines} == {(SMALL, SMALL, 1536)}
    elif ending == "npz":
        with np.load(out) as file:
            assert file["id"].tolist() == [f"letters.jsonl#r{at}" for at in range(34)]
            assert np.allclose(file["vector"], right, atol=1e-5)
            assert str(file["space"]) == SMALL
    else:
        import pyarrow.parquet as pq

        table = pq.read_table(out)
        assert table.column("text").to_pylist() == rows
        assert np.allclose(np.stack(table.column("vector").to_numpy(zero_copy_only=False)), right, atol=1e-5)
        assert table.schema.metadata[b"space"].decode() == SMALL
