"""Fault 36: bits that flip in `vectors.db`, wherever; and databases that are damaged, empty or missing beside others.

Figures: wrong vectors served after single random flips (0).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.cli.doctor import Check, _files
from router.domain.errors import BadInput, StoreError
from router.engine import Router
from router.library import Library
from router.pipeline.validate import digest
from router.sandbox import Sandbox
from router.store.database import sqlite3
from router.store.vectors import Cache, Damaged, VectorKey
from tests.faults.paid_helpers import right, wrong
from tests.libraries import SMALL, jsonl, opened, texts

TINY = VectorKey(space="s", model="openai/tiny", role="document", variant="whole", dimensions=16)
KINDS = (TINY, replace(TINY, role="query"), replace(TINY, space="t", model="voyage/tiny"))


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.standard_normal((n, TINY.dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def written(path: Path, n: int) -> dict[tuple[VectorKey, bytes], np.ndarray]:
    """A cache of n texts in three kinds, closed; what it holds. Small vectors: a flip often hits other things."""
    cache, rng = Cache(path), np.random.default_rng(7)
    truth = {}
    for kind in KINDS:
        keys, vectors = [digest(f"text {i}") for i in range(n)], unit(rng, n)
        await cache.store(kind, keys, [3] * n, vectors)
        truth |= {(kind, key): vector for key, vector in zip(keys, vectors, strict=True)}
    cache.close()
    return truth


def served(path: Path, keys: list[bytes]) -> dict[tuple[VectorKey, bytes], np.ndarray]:
    """All that the cache gives for these texts, as a reader asks it: damaged vectors are removed, and asked again."""
    cache = Cache(path)
    try:
        while True:
            kinds, found = cache.keys(), cache.lookup(keys)
            rows = [(kinds[n], key, row) for n, of in found.items() if n in kinds for key, row in of.items()]
            try:
                answers = {}
                for kind in {kind for kind, _, _ in rows}:
                    mine = [(key, row) for k, key, row in rows if k == kind]
                    vectors = cache.fetch([row for _, row in mine], kind.dimensions)
                    answers |= {(kind, key): vector for (key, _), vector in zip(mine, vectors, strict=True)}
                return answers
            except Damaged as damage:
                cache.remove_now(damage.rows)
    finally:
        cache.close()


async def test_a_flipped_bit_is_never_served(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """In a vector, a digest, a row number, the index, the kinds or a page's own bytes: right, missing or said."""
    path, n = tmp_path / "vectors.db", 60
    truth = await written(path, n)
    keys = [digest(f"text {i}") for i in range(n)]
    whole = path.read_bytes()
    rng = random.Random(36)
    outcomes: Counter[str] = Counter()
    trials = count(60, 1_000)
    for _ in range(trials):
        at = rng.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        for old in tmp_path.glob("vectors.db*"):
            old.unlink()
        path.write_bytes(flipped)
        try:
            answers = await asyncio.to_thread(served, path, keys)
        except StoreError:
            outcomes["said"] += 1
            continue
        for (kind, key), vector in answers.items():
            if (kind, key) in truth:
                assert np.array_equal(vector, truth[kind, key]), f"bit {at}"
            else:
                assert kind not in KINDS  # a kind whose words were hit: no model asks for it
        outcomes["whole" if len(answers) == len(truth) else "missed"] += 1
    assert outcomes["missed"]
    figure(36, f"{trials:,} single bit flips in vectors.db: 0 wrong vectors served ({dict(outcomes)})")


async def test_each_bit_beside_a_digest_may_flip(tmp_path: Path, figure: Callable[[int, str], None]) -> None:
    """Header, kind, tokens and row number, in the table and in the index: single random flips hardly ever meet them."""
    path, keys = tmp_path / "vectors.db", [digest(f"text {i}") for i in range(10)]
    truth, flips = await written(path, len(keys)), 0
    whole = path.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(keys[4], at)]
    assert len(places) == 2 * len(KINDS)
    for at in (place + off for place in places for off in (*range(-9, 0), *range(32, 40))):
        for bit in range(8):
            for old in tmp_path.glob("vectors.db*"):
                old.unlink()
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            flips += 1
            try:
                answers = await asyncio.to_thread(served, path, keys)
            except StoreError:
                continue
            for found, vector in answers.items():
                assert np.array_equal(vector, truth[found]), f"byte {at}, bit {bit}"
    figure(36, f"each of {flips:,} bits beside a digest flipped: 0 wrong vectors served, no error but StoreError")


async def test_rows_without_a_checksum_that_are_of_another_type_are_removed(tmp_path: Path) -> None:
    """They are removed, and the rest gets its checksums."""
    path = tmp_path / "vectors.db"
    truth = await written(path, 10)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE vectors SET checksum = NULL")
        conn.execute("UPDATE vectors SET tokens = -108 WHERE id = 1")
        conn.execute("UPDATE vectors SET digest = x'00' WHERE id = 2")
        conn.execute("INSERT INTO unchecked SELECT 0, max(id) FROM vectors")
        conn.execute("DELETE FROM unchecked WHERE last = 0")
    cache = Cache(path)
    while await cache.add_checksums():
        pass
    assert sum(cache.damages().values()) == 2
    cache.close()
    answers = await asyncio.to_thread(served, path, [digest(f"text {i}") for i in range(10)])
    assert len(answers) == len(truth) - 2
    assert all(np.array_equal(vector, truth[found]) for found, vector in answers.items())


async def test_a_request_with_a_damaged_vector_is_answered_right(tmp_path: Path, sandbox: Sandbox) -> None:
    """The text is embedded again, and no other; the next request finds it; doctor counts it."""
    rows = texts(20)
    async with opened(tmp_path / "data", sandbox) as here:
        router = here.router
        await router.embed(rows, policy="quality", model=SMALL)
        with closing(sqlite3.connect(tmp_path / "data" / "vectors.db")) as conn, conn:
            (stored,) = conn.execute("SELECT vector FROM vectors WHERE digest = ?", (digest(rows[3]),)).fetchone()
            blob = bytearray(stored)
            blob[100] ^= 64
            conn.execute("UPDATE vectors SET vector = ? WHERE digest = ?", (bytes(blob), digest(rows[3])))
        billed = sandbox.bill().texts
        result = await router.embed(rows, policy="quality", model=SMALL)
        assert wrong(result.vectors, right(SMALL, rows)) == 0
        assert (result.counts.cache, result.counts.api, sandbox.bill().texts) == (19, 1, billed + 1)
        again = await router.embed(rows, policy="quality", model=SMALL)
        assert (again.counts.cache, wrong(again.vectors, right(SMALL, rows))) == (20, 0)
        assert router.cache.damages() == {SMALL: 1}


async def test_search_and_export_leave_a_damaged_vector_out(tmp_path: Path, sandbox: Sandbox) -> None:
    """It counts as one that is missing."""
    rows = texts(20)
    async with opened(tmp_path / "data", sandbox) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", rows), model=SMALL)
        await here.library.search("letters", rows[4])
        with closing(sqlite3.connect(tmp_path / "data" / "vectors.db")) as conn, conn:
            conn.execute("UPDATE vectors SET vector = zeroblob(6144) WHERE digest = ?", (digest(rows[3]),))
        assert await here.library.export("letters", tmp_path / "out.jsonl") == 19
        found = await here.library.search("letters", rows[4], k=20)
        assert (found.searched, found.missing) == (19, 1)


async def test_when_the_vectors_were_deleted_nothing_is_spent_on_a_search(tmp_path: Path, sandbox: Sandbox) -> None:
    """Search and export say what to do."""
    rows = texts(10)
    async with opened(tmp_path / "data", sandbox) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", rows), model=SMALL)
    for path in (tmp_path / "data").glob("vectors.db*"):
        path.unlink()
    async with opened(tmp_path / "data", sandbox) as here:
        spent = sandbox.bill().nanodollars
        looking = here.library.search("letters", "a new query")
        export = here.library.export("letters", tmp_path / "x.jsonl")
        for ask in (looking, export):
            with pytest.raises(BadInput, match=r"vectors\.db was deleted or emptied.*quote --collection letters"):
                await ask
        assert sandbox.bill().nanodollars == spent


async def test_rows_from_before_checksums_are_served_and_get_theirs(tmp_path: Path) -> None:
    """Those that are visibly not what was stored are removed on the way."""
    truth = await written(tmp_path / "vectors.db", 30)
    with closing(sqlite3.connect(tmp_path / "vectors.db")) as conn, conn:
        conn.execute("UPDATE vectors SET checksum = NULL")
        conn.execute("UPDATE unchecked SET last = 90")
        conn.execute("UPDATE vectors SET vector = zeroblob(64) WHERE id = 5")
    keys = [digest(f"text {i}") for i in range(30)]
    cache = Cache(tmp_path / "vectors.db")
    while await cache.add_checksums(most=40):
        pass
    assert cache.size()[0] == 89
    (left,) = cache.database.reader().execute("SELECT count(*) FROM vectors WHERE checksum IS NULL").fetchone()
    assert left == 0
    cache.close()
    answers = await asyncio.to_thread(served, tmp_path / "vectors.db", keys)
    assert len(answers) == 89
    assert all(np.array_equal(vector, truth[at]) for at, vector in answers.items())


@pytest.mark.parametrize("how", ["missing", "empty", "no rows"])
@pytest.mark.parametrize("beside", ["vectors.db", "corpora.db"])
async def test_a_ledger_that_is_gone_is_no_new_start(tmp_path: Path, sandbox: Sandbox, how: str, beside: str) -> None:
    """Beside vectors or collections that were paid for; with nothing beside it, it is one."""
    data = tmp_path / "data"
    async with opened(data, sandbox) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", texts(5)), model=SMALL)
    other = {"vectors.db": "corpora.db", "corpora.db": "vectors.db"}[beside]
    gone = [*data.glob(f"{other}*"), *(data.glob("router.db*") if how != "no rows" else ())]
    for path in gone:
        path.unlink()
    if how == "empty":
        (data / "router.db").touch()
    elif how == "no rows":
        with closing(sqlite3.connect(data / "router.db")) as conn, conn:
            conn.execute("DELETE FROM policies")
    with pytest.raises(StoreError, match=rf"router\.db.*(missing|empty).*though {beside} is not\. Restore it"):
        Router(here.router.settings)
    (data / beside).unlink()
    async with Router.open(data, env={}) as router:
        assert router.policies.all()


async def test_doctor_names_each_damaged_database(tmp_path: Path, sandbox: Sandbox) -> None:
    """And says what to do about it."""
    data = tmp_path / "data"
    async with opened(data, sandbox) as here:
        await here.embed("letters", jsonl(tmp_path / "letters.jsonl", texts(50)), model=SMALL)
    assert [check.status for check in _files(data)] == ["ok"] * 4
    for name in ("corpora.db", "vectors.db"):
        body = bytearray((data / name).read_bytes())
        body[8192:16384] = bytes(8192)
        (data / name).write_bytes(body)
    found: dict[str, Check] = {check.name: check for check in _files(data)}
    assert found["router.db whole"].status == "ok"
    assert found["corpora.db whole"].status == found["vectors.db whole"].status == "wrong"
    assert "add the collections' files again" in found["corpora.db whole"].detail
    with pytest.raises(StoreError, match="is damaged"):
        await search(data)


async def search(data: Path) -> None:
    """One query, whatever comes of it."""
    async with Router.open(data, env={}) as router:
        library = Library(router)
        try:
            await library.search("letters", "a query")
        finally:
            await library.aclose()
