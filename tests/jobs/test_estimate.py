"""A large corpus is priced by a sample first: right as often as it says, in the same work whatever the size."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router.ingest import sample
from router.ingest.archives import expand
from router.ingest.files import Ingest, Reading
from router.ingest.sample import BLOCK, HEAD, LONGEST, PLACES, Sampler
from router.jobs import estimate as estimating
from router.jobs.estimate import CorpusEstimate, students_t
from router.jobs.quote import CorpusQuote
from router.sandbox import Sandbox
from router.store.models import NewChunk
from tests.libraries import SMALL, Opened, billed, opened

LOOKED_AT = PLACES * 2 * BLOCK
"""Bytes of lines that a sample may look at, where lines are short."""


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    """Words of the samples."""
    root = Path(__file__).resolve().parents[2] / "samples"
    return [word for path in sorted(root.rglob("*.md")) for word in path.read_text("utf-8").split()]


def made(rng: random.Random, vocabulary: Sequence[str], size: int, *, drift: bool = True) -> list[dict[str, str]]:
    """Rows of about `size` bytes in all: of lengths that differ by a hundred times, longer ones towards the end."""
    rows: list[dict[str, str]] = []
    done = 0
    while done < size:
        length = 1 + int(rng.lognormvariate(3.5 + (done / size if drift else 0.0), 0.9)) % 400
        at = rng.randrange(len(vocabulary) - 400)
        text = " ".join(vocabulary[at : at + length]) if rng.random() > 0.02 else rng.choice(["", " ", "--", "7"])
        rows.append({"id": f"r{len(rows)}", "text": f"{len(rows)} {text}" if len(text) > 2 else text})
        done += len(text) + 30
    return rows


def lines(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


async def both(here: Opened, name: str, files: Sequence[Path], **options: Any) -> tuple[CorpusEstimate, CorpusQuote]:
    """What a sample says of files, and what they are."""
    await here.library.create(name, policy="quality", model=SMALL)
    found: list[CorpusEstimate | str] = []
    await here.library.add_files(name, files, estimated=found.append, **options)
    (one,) = found
    assert isinstance(one, CorpusEstimate), one
    return one, await here.library.quote(name)


@pytest.fixture(autouse=True)
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test hangs on how busy the machine is: a sample takes the time that it takes."""
    monkeypatch.setattr(estimating, "SECONDS", 600.0)
    monkeypatch.setattr(estimating, "LEAST_BYTES", 1)


async def test_an_estimate_holds_the_exact_quote(
    tmp_path: Path,
    provider: Sandbox,
    vocabulary: list[str],
    count: Callable[[int, int], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of corpora by a hundred seeds the interval holds the quote's tokens in nine of ten, and is no barn door."""
    monkeypatch.setattr(sample, "PLACES", 12)
    tries = count(10, 100)
    held = held_texts = 0
    widths = []
    async with opened(tmp_path / "data", provider) as here:
        for seed in range(tries):
            rows = made(random.Random(seed), vocabulary, count(800_000, 2_400_000))
            some = f"corpus-{seed}"
            one, quote = await both(here, some, [lines(tmp_path / f"{some}.jsonl", rows)])
            assert one.share < 1
            assert one.chosen is not None
            assert quote.chosen is not None
            tokens = one.chosen.tokens
            assert tokens.low is not None
            assert tokens.high is not None
            held += tokens.low <= quote.chosen.verdict.expected_tokens <= tokens.high
            assert one.texts.low is not None
            assert one.texts.high is not None
            held_texts += one.texts.low <= quote.distinct <= one.texts.high
            widths.append((tokens.high - tokens.low) / tokens.likely)
            await here.library.delete(some)
    print(f"\ntokens held {held} of {tries}, texts {held_texts}; the interval is {np.median(widths):.1%} wide")
    few = 0 if tries == 100 else 2  # of ten by chance
    assert min(held, held_texts) >= 0.9 * tries - few
    assert np.median(widths) < 0.1


async def test_the_work_is_the_same_whatever_the_size(
    tmp_path: Path, vocabulary: list[str], count: Callable[[int, int], int]
) -> None:
    """Ten times the corpus: no more bytes are looked at, and no more rows."""
    rows = made(random.Random(1), vocabulary, 2_000_000, drift=False)
    size = count(20, 200) << 20
    looked = []
    async with opened(tmp_path / "data") as here:
        collection = await here.library.create("c")
        for times in (1, 10):
            path = tmp_path / f"{times}.jsonl"
            data = lines(path, rows).read_bytes()
            with path.open("wb") as file:
                while file.tell() < size * times // 10:
                    file.write(data)
            counted: list[int] = []

            class Counting(Ingest):
                def chunks_of(self, rows: Any) -> list[NewChunk]:
                    counted.append(len(rows))  # noqa: B023
                    return super().chunks_of(rows)

            reading = Reading(columns={})
            sampler = Sampler(expand([path], tmp_path), Counting(here.library.corpora, collection, reading, run=print),
                              reading)  # fmt: skip
            sampler.run(lambda: False)
            assert sampler.total >= size * times // 10
            assert sampler.bytes <= LOOKED_AT
            assert len(counted) <= PLACES
            looked.append((sampler.bytes, sum(counted)))
    (small, few), (large, many) = looked
    assert large < 1.3 * small
    assert many < 1.3 * few


async def test_a_line_belongs_to_one_block(tmp_path: Path) -> None:
    """All blocks of a file together have each of its lines once, wherever the lines end, also longer ones than that."""
    rng = random.Random(3)
    file = [b"x" * (BLOCK - 1)] * 2  # which end where their blocks do
    file += [b"x" * rng.choice([0, 1, 10, 400, BLOCK - 1, BLOCK, 3 * BLOCK]) for _ in range(200)]
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n".join(file))
    blocks = [sample._lines_of_block(path, n, "a") for n in range(-(-path.stat().st_size // BLOCK))]
    assert b"".join(blocks) == path.read_bytes()
    assert all(len(block) <= BLOCK + LONGEST for block in blocks)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "md"])
async def test_every_kind_of_file_is_estimated(
    tmp_path: Path, provider: Sandbox, vocabulary: list[str], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables by their first rows, Parquet by row groups, documents by some of them: near the quote, and it is said."""
    rows = made(random.Random(2), vocabulary, 900_000, drift=False)
    monkeypatch.setattr(sample, "ROWS", len(rows) // 2)
    path = tmp_path / f"rows.{ending}"
    files = [path]
    if ending == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "text"])
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "json":
        path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=len(rows) // 10)
    else:
        texts = [row["text"] for row in rows if len(row["text"]) > 2]
        files = [tmp_path / f"{n}.md" for n in range(120)]
        for n, one in enumerate(files):
            one.write_text("\n\n".join(texts[n::120]), "utf-8")
    async with opened(tmp_path / "data", provider) as here:
        one, quote = await both(here, "c", files)
        assert one.share < 1
        assert one.chosen is not None
        assert quote.chosen is not None
        assert one.chosen.tokens.likely == pytest.approx(quote.chosen.verdict.expected_tokens, rel=0.15)
        said = " ".join(one.notes)
        assert (one.texts.low is None) == (ending in {"csv", "json"}) == ("There is no interval: of" in said)
        assert ("the first rows were looked at" in said) == (ending != "md")
        assert billed(provider)[0] == 0


async def test_what_is_looked_at_whole_is_exact(tmp_path: Path, provider: Sandbox, vocabulary: list[str]) -> None:
    """Where the sample is all of it, the estimate is the quote, for each candidate; cached texts cost nothing."""
    rows = made(random.Random(4), vocabulary, 200_000)
    cached = [row["text"] for row in rows if len(row["text"]) > 2][:30]
    async with opened(tmp_path / "data", provider) as here:
        await here.router.embed(cached, policy="quality", model=SMALL)
        one, quote = await both(here, "c", [lines(tmp_path / "a.jsonl", rows + rows[:50])])
        assert one.share == 1
        assert (one.texts.low, one.texts.likely, one.texts.high) == (quote.distinct,) * 3
        exact = {c.model.id: c for c in quote.candidates}
        for candidate in one.candidates:
            assert candidate.low == candidate.likely == candidate.high
            theirs = exact[candidate.likely.model.id]
            assert candidate.likely.now_cost == theirs.now_cost
            assert candidate.likely.verdict.cached == theirs.verdict.cached
        assert (one.likely.outcome.verdicts, one.likely.decision) == (quote.outcome.verdicts, quote.decision)


async def test_nothing_is_invented(tmp_path: Path, provider: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small corpus has no estimate; one of endless lines has none either, and says why."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps("word " * 230_000) + "\n" + json.dumps("short") + "\n", "utf-8")
    found: list[CorpusEstimate | str] = []
    async with opened(tmp_path / "data", provider) as here:
        await here.library.create("c", model=SMALL)
        await here.library.add_files("c", [path], estimated=found.append)
        assert found == ["No estimate: a.jsonl has lines of more than 1 MB."]
        monkeypatch.undo()
        await here.library.add_files("c", [path], estimated=found.append)
        assert len(found) == 1


async def test_no_trouble_of_a_sample_touches_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw, and a file that goes meanwhile, leave no estimate, and the files are read all the same."""
    good = lines(tmp_path / "a.jsonl", [{"text": f"a text {n}"} for n in range(50)])
    found: list[CorpusEstimate | str] = []

    def trouble(self: Any, rows: Any) -> Any:
        raise ZeroDivisionError

    async with opened(tmp_path / "data") as here:
        await here.library.create("c")
        with monkeypatch.context() as patch:
            patch.setattr(Ingest, "chunks_of", trouble)
            [report] = await here.library.add_files("c", [good], estimated=found.append)
        assert (found, report.state) == (["No estimate: the sample holds no text."], "added")
        with monkeypatch.context() as patch:
            patch.setattr(sample, "_starts_wide", lambda path: (path.with_suffix(".gone")).read_bytes())
            [report] = await here.library.add_files("c", [good], estimated=found.append)
        assert (found[1:], report.state) == (["No estimate: No such file or directory."], "unchanged")


async def test_documents_are_looked_at_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No document is begun after so many bytes of a kind; what cannot be read counts as nothing, as in the quote."""
    monkeypatch.setattr(sample, "DOCUMENT_BYTES", 100_000)
    for n in range(10):
        (tmp_path / f"{n}.md").write_text("word " * 8_000, "utf-8")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-nothing")
    async with opened(tmp_path / "data") as here:
        collection = await here.library.create("c")
        reading = Reading(columns={})
        ingest = Ingest(here.library.corpora, collection, reading, run=print)
        sampler = Sampler(expand(sorted(tmp_path.glob("*.*")), tmp_path), ingest, reading)
        sampler.run(lambda: False)
        ingest.close()
        kinds = {kind.name: kind for kind in sampler.kinds}
        assert len(kinds[".md"].looked) == 3
        assert [place.chunks for place in kinds[".pdf"].looked] == [[]]


@pytest.mark.parametrize(("freedom", "t"), [(4, 2.776), (9, 2.262), (30, 2.042), (math.inf, 1.960)])
def test_students_t(freedom: float, t: float) -> None:
    """As in the tables."""
    assert students_t(freedom) == pytest.approx(t, rel=5e-3)


def test_a_head_ends_at_a_character(tmp_path: Path) -> None:
    """A table that is cut in a character of several bytes is still UTF-8."""
    path = tmp_path / "a.csv"
    for shift in range(4):
        path.write_bytes(b"x" * shift + "€".encode() * HEAD)
        assert sample._head(path).decode("utf-8")
