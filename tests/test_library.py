"""The one door: what is refused before it can do harm, what is brought in, and what is taken out for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.domain.errors import BadInput, Refused, StoreBusy
from router.domain.values import Policy
from router.pipeline.validate import digest
from router.sandbox import Sandbox, expected_vectors
from tests.libraries import LARGE, SMALL, assert_right, billed, jsonl, opened, texts, vectors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small corpus."""
    return jsonl(tmp_path / "letters.jsonl", texts(40))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "nobody"}, "no policy"),
        ({"model": "nobody/nothing"}, "no model"),
        ({"model": "local/all-MiniLM-L6-v2", "chunk_tokens": 257}, "takes 256"),
        ({"model": SMALL, "dimensions": 4_000}, "4000 dimensions"),
        ({"chunk_tokens": 8}, "8 tokens"),
        ({"overlap": 200}, "share 200"),
    ],
)
async def test_a_collection_that_cannot_work_is_not_made(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """Refused at once, and not when the first job runs."""
    async with opened(tmp_path) as here:
        with pytest.raises(BadInput, match=words):
            await here.library.create("letters", **options)
        assert here.library.collections() == []


async def test_confirming_pins_the_space_for_life(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """By the decision, or by the person's choice; another model is refused from then on."""
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("letters", policy="economy")
        await here.library.add_files("letters", [file])
        assert here.library.info("letters").active is None
        chosen = (await here.library.quote("letters")).chosen
        assert chosen is not None
        job = await here.library.confirm("letters", model=SMALL, dimensions=512)
        active = here.library.info("letters").active
        assert active is not None
        assert (active.space, active.dimensions, job.model) == (SMALL, 512, SMALL)
        assert chosen.model.id != SMALL
        with pytest.raises(BadInput, match=f"pinned to {SMALL}"):
            await here.library.confirm("letters", model=LARGE)
        await here.worker.run_all()
        assert (await here.library.confirm("letters")).model == SMALL


async def test_nothing_to_embed_is_refused(tmp_path: Path, provider: Sandbox) -> None:
    """An empty collection, and one of rules and page numbers only."""
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("letters", model=SMALL)
        with pytest.raises(BadInput, match="nothing to embed"):
            await here.library.confirm("letters")
        await here.library.add_files("letters", [jsonl(tmp_path / "rules.jsonl", ["---", "7"])])
        with pytest.raises(BadInput, match="nothing to embed"):
            await here.library.confirm("letters")
        assert here.library.jobs.all() == []


async def test_a_model_that_the_policy_does_not_allow_is_refused(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """And nothing is confirmed by it."""
    async with opened(tmp_path / "data", provider) as here:
        await here.router.policies.save(
            Policy(name="ours", allow=("local/*",)), [m.id for m in here.router.catalog.models]
        )
        await here.library.create("letters", policy="ours")
        await here.library.add_files("letters", [file])
        with pytest.raises(Refused, match="allow list"):
            await here.library.confirm("letters", model=SMALL)
        assert here.library.info("letters").new_documents == 1
        assert here.library.info("letters").active is None


async def test_discarding_leaves_what_was_confirmed(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """A quote that is too dear is simply forgotten."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        await here.library.add_files("letters", [jsonl(tmp_path / "more.jsonl", texts(9, "another"))])
        assert here.library.info("letters").new_documents == 1
        assert await here.library.discard("letters") == 1
        info = here.library.info("letters")
        assert (info.documents, info.chunks, info.new_documents) == (1, 40, 0)


async def test_deleting_a_document_deletes_its_vectors_only_where_nothing_needs_them(
    tmp_path: Path, provider: Sandbox, file: Path
) -> None:
    """And only if the person wants it."""
    rows = texts(40)
    shared = jsonl(tmp_path / "shared.jsonl", [*rows[:10], *texts(5, "mine")])
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        await here.embed("other", shared)
        assert here.router.cache.size()[0] == 45
        assert await here.library.delete_documents("other", ["shared.jsonl"]) == 1
        assert here.router.cache.size()[0] == 45
        await here.library.add_files("other", [shared])
        await here.library.confirm("other")
        assert await here.library.delete_documents("other", ["shared.jsonl"], vectors=True) == 1
        assert here.router.cache.size()[0] == 40
        assert_right(here.router, rows)


async def test_deleting_a_collection_ends_its_jobs(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """With its vectors, if the person wants it, but for those that another collection needs."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        await here.fill("other", jsonl(tmp_path / "other.jsonl", [*texts(10), *texts(5, "mine")]))
        job = await here.library.confirm("other")
        await here.worker.run_all()
        again = await here.library.confirm("other")
        await here.library.delete("other", vectors=True)
        assert here.library.job(again.id).state == "cancelled"
        assert here.library.job(job.id).state == "done"
        assert [info.collection.name for info in here.library.collections()] == ["letters"]
        assert here.router.cache.size()[0] == 40
        await here.worker.run_all()


async def test_erasing_a_text_takes_it_out_everywhere(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """Chunks, vectors in every space, and the digests that replay and batches keep; what was spent stays."""
    secret = texts(40)[7]
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        await here.embed("other", file, model=LARGE)
        await here.fill("third", file, model="voyage/voyage-4")
        await here.library.confirm("third", route="batch")
        await here.worker.run_all()
        assert {job.state for job in here.library.jobs.all()} == {"done"}
        spent = here.router.ledger.totals()
        erased = await here.library.erase(secret)
        assert sorted(erased.chunks) == [(name, "letters.jsonl") for name in ("letters", "other", "third")]
        assert erased.vectors == 3
        assert erased.requests >= 3
        key = digest(secret)
        assert here.router.cache.lookup([key]) == {}
        assert here.router.ledger.totals() == spent
        assert (await here.library.coverage("letters")) == (39, 39)
        for request, digests, counts, copies in here.router.database.reader().execute(
            "SELECT request, digests, tokens, counts FROM replay"
        ):
            assert key not in digests
            assert len(digests) // 32 == len(counts) // 4 == len(copies) // 4, request
        assert await here.library.erase(secret) == type(erased)(chunks=(), vectors=0, requests=0)


async def test_an_erased_text_leaves_no_byte_on_disk(
    tmp_path: Path, provider: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its words, nor its digest, nor its vector, in any file or log, while the program runs on."""
    rows = texts(800)
    gone = rows[::100]

    def left() -> set[str]:
        data = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        wanted = {
            "words": [text.encode() for text in gone],
            "digest": [digest(text) for text in gone],
            "vector": [vector.tobytes() for vector in kept],
        }
        return {what for what, some in wanted.items() if any(one in data for one in some)}

    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", rows))
        kept = vectors(here.router, gone)
        assert left() == {"words", "digest", "vector"}
        for text in gone:
            await here.library.erase(text)
        assert left() == set()
        monkeypatch.setattr("router.store.database.LOG_TRIES", 1)
        reader = here.router.database.reader()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM requests").fetchone()
        with pytest.raises(StoreBusy, match=r"router\.db is being read"):
            await here.library.erase(rows[1])
        reader.execute("ROLLBACK")
        assert (await here.library.erase(rows[1])).vectors == 0


async def test_an_over_long_text_is_erased_with_its_pieces(tmp_path: Path, provider: Sandbox) -> None:
    """The pieces that it was embedded in are vectors of it too."""
    long = " ".join(f"word{n}" for n in range(9_000))
    async with opened(tmp_path / "data", provider) as here:
        await here.router.embed([long, "another text"], policy="quality", model=SMALL)
        assert here.router.cache.size()[0] > 3
        assert (await here.library.erase(long)).vectors > 2
        assert here.router.cache.size()[0] == 1


# ---- vectors that were paid for elsewhere ----


def vector_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of rows as .jsonl or .parquet."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
async def test_imported_vectors_are_never_paid_for_again(
    tmp_path: Path, provider: Sandbox, file: Path, ending: str
) -> None:
    """A collection of the same texts is embedded for nothing."""
    rows = texts(40)
    vectors = expected_vectors(SMALL, rows)
    made = vector_file(
        tmp_path / f"vectors.{ending}",
        [{"text": t, "model": SMALL, "vector": v.tolist()} for t, v in zip(rows, vectors, strict=True)],
    )
    async with opened(tmp_path / "data", provider) as here:
        report = await here.library.import_vectors(made)
        assert (report.stored, report.refused, dict(report.models)) == (40, 0, {SMALL: 40})
        number = await here.embed("letters", file)
        assert (here.library.job(number).done, here.library.job(number).spent) == (40, 0)
        assert billed(provider)[0] == 0
        assert_right(here.router, rows)


async def test_our_own_export_can_be_imported(tmp_path: Path, provider: Sandbox, file: Path) -> None:
    """What one data folder paid for, another one takes."""
    async with opened(tmp_path / "data", provider) as here:
        await here.embed("letters", file)
        for ending in ("jsonl", "parquet"):
            await here.library.export("letters", tmp_path / f"out.{ending}", with_text=True)
    for ending in ("jsonl", "parquet"):
        async with opened(tmp_path / ending) as here:
            report = await here.library.import_vectors(tmp_path / f"out.{ending}")
            assert (report.stored, dict(report.reasons)) == (40, {})


async def test_a_wrong_row_is_refused_and_the_others_are_kept(tmp_path: Path) -> None:
    """Size, finiteness, length, model, text: each is named with its row, and nothing of it is stored."""
    good = expected_vectors(SMALL, ["good"])[0]
    nan, long = good.copy(), good * 3
    nan[5] = np.nan
    rows: list[dict[str, Any]] = [
        {"text": "good", "model": SMALL, "vector": good.tolist()},
        {"text": "short", "model": SMALL, "vector": good[:512].tolist()},
        {"text": "nan", "model": SMALL, "vector": [None if np.isnan(x) else float(x) for x in nan]},
        {"text": "infinite", "model": SMALL, "vector": [1e300, *good[1:].tolist()]},
        {"text": "long", "model": SMALL, "vector": long.tolist()},
        {"text": "zeros", "model": SMALL, "vector": [0.0] * 1536},
        {"text": "whose", "model": "nobody/nothing", "vector": good.tolist()},
        {"text": "no model", "vector": good.tolist()},
        {"text": "", "model": SMALL, "vector": good.tolist()},
        {"model": SMALL, "vector": good.tolist()},
        {"text": "no vector", "model": SMALL},
        {"text": "words", "model": SMALL, "vector": "one two three"},
        {"text": "role", "model": SMALL, "role": "poet", "vector": good.tolist()},
    ]
    path = vector_file(tmp_path / "vectors.jsonl", rows)
    path.write_text(f"{path.read_text('utf-8')}\n{{broken\n", "utf-8")
    async with opened(tmp_path / "data") as here:
        report = await here.library.import_vectors(path)
        assert (report.stored, report.refused) == (1, 13)
        assert sorted(report.reasons) == list(range(2, 15))
        assert report.reasons[14] == "Line 14 is not valid JSON."
        said = {row: report.reasons[row] for row in report.reasons}
        assert "(512,)" in said[2]
        assert "length 3" in said[5]
        assert "length 0" in said[6]
        assert "no model" in said[7]
        assert here.router.cache.size()[0] == 1
        assert_right(here.router, ["good"])


async def test_an_imported_vector_never_takes_the_place_of_a_paid_one(tmp_path: Path, provider: Sandbox) -> None:
    """What is cached stays as it is."""
    async with opened(tmp_path / "data", provider) as here:
        await here.router.embed(["mine"], policy="quality", model=SMALL)
        wrong = expected_vectors(SMALL, ["another"])[0]
        rows = [{"text": "mine", "model": SMALL, "vector": wrong.tolist()}]
        await here.library.import_vectors(vector_file(tmp_path / "vectors.jsonl", rows))
        assert_right(here.router, ["mine"])


@pytest.mark.parametrize(("name", "content"), [("a.csv", "x"), ("a.parquet", "not parquet")])
async def test_a_file_that_is_not_of_vectors_is_refused(tmp_path: Path, name: str, content: str) -> None:
    """With its name."""
    path = tmp_path / name
    path.write_text(content, "utf-8")
    async with opened(tmp_path / "data") as here:
        with pytest.raises(BadInput, match=name):
            await here.library.import_vectors(path)


async def test_imported_queries_are_no_documents(tmp_path: Path, provider: Sandbox) -> None:
    """A query's vector is not taken for a document's where the model tells them apart."""
    model = "voyage/voyage-4"
    query = expected_vectors(model, ["text"], "query", 2048)[0]
    rows = [{"text": "text", "model": model, "role": "query", "vector": query.tolist()}]
    async with opened(tmp_path / "data", provider) as here:
        await here.library.import_vectors(vector_file(tmp_path / "vectors.jsonl", rows))
        result = await here.router.embed(["text"], policy="quality", model=model, role="document")
        assert result.counts.api == 1
        result = await here.router.embed(["text"], policy="quality", model=model, role="query")
        assert result.counts.cache == 1
