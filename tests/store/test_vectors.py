"""The cache: a vector is found by all that shaped it, whole, in the order asked, and by nothing less."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config import CATALOG_FILE
from router.domain.catalog import parse_catalog
from router.store.database import PART
from router.store.vectors import Cache, Floats, VectorKey, vector_key

SMALL = VectorKey(space="s", model="s/m", role="", variant="whole", dimensions=4)


def key(n: int) -> bytes:
    """The nth digest."""
    return n.to_bytes(32, "big")


def some(numbers: list[int], dimensions: int = 4) -> Floats:
    """A vector a number, none like another."""
    return np.array([[n + i / 16 for i in range(dimensions)] for n in numbers], dtype=np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """An empty `vectors.db`."""
    cache = Cache(tmp_path / "vectors.db")
    yield cache
    cache.close()


def held(cache: Cache, kind: VectorKey, digests: list[bytes]) -> dict[bytes, tuple[int, int]]:
    """What the cache has of one kind."""
    numbers = [number for number, found in cache.keys().items() if found == kind]
    return {d: row for number in numbers for d, row in cache.lookup(digests).get(number, {}).items()}


async def test_a_vector_comes_back_bit_for_bit_with_its_tokens(cache: Cache) -> None:
    """What is stored is what is fetched, in any order asked, and as often as asked in one list."""
    numbers = list(range(3 * PART + 7))
    await cache.store(SMALL, [key(n) for n in numbers], numbers, some(numbers))
    rows = held(cache, SMALL, [key(n) for n in numbers])
    assert {d: row[1] for d, row in rows.items()} == {key(n): n for n in numbers}
    order = np.random.default_rng(0).permutation(numbers).tolist()
    fetched = cache.fetch([rows[key(n)] for n in order], 4)
    assert fetched.dtype == np.float32
    assert np.array_equal(fetched, some(order))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_storing_and_looking_up_map_nothing_of_the_file(cache: Cache) -> None:
    """Else a long job holds ever more of a large file in memory; only fetching maps it, which is faster for it."""
    path = str(cache.database.path)

    def mapped() -> bool:
        return any(line.endswith(path) for line in Path("/proc/self/maps").read_text().splitlines())

    await cache.store(SMALL, [key(n) for n in range(2_000)], [1] * 2_000, some(list(range(2_000))))
    cache.database.reader(mapped=False).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    found = cache.lookup([key(n) for n in range(2_000)])
    assert not mapped()
    [rows] = found.values()
    cache.fetch(list(rows.values()), 4)
    assert mapped()


async def test_nothing_is_found_by_less_than_all_that_shaped_it(cache: Cache) -> None:
    """Another space, model, role or variant is another vector, even of the same text."""
    kinds = [SMALL, *(replace(SMALL, **{field: "other"}) for field in ("space", "model", "role", "variant"))]
    for number, kind in enumerate(kinds):
        await cache.store(kind, [key(1)], [number], some([number]))
    assert len(cache.keys()) == len(kinds)
    for number, kind in enumerate(kinds):
        row = held(cache, kind, [key(1)])[key(1)]
        assert row[1] == number
        assert np.array_equal(cache.fetch([row], 4), some([number]))
    assert cache.lookup([key(2)]) == {}


async def test_a_text_that_is_there_is_left_as_it_is(cache: Cache) -> None:
    """Storing again changes nothing; new texts beside it are stored."""
    await cache.store(SMALL, [key(1)], [5], some([1]))
    await cache.store(SMALL, [key(1), key(2)], [5, 6], some([9, 2]))
    rows = held(cache, SMALL, [key(1), key(2)])
    assert np.array_equal(cache.fetch([rows[key(1)], rows[key(2)]], 4), some([1, 2]))
    assert cache.size()[0] == 2


async def test_vectors_of_the_wrong_shape_are_not_stored(cache: Cache) -> None:
    """Too few, too short, without tokens, or of a size that the kind has not: nothing is written."""
    for digests, tokens, vectors in (
        ([key(1), key(2)], [1, 2], some([1])),
        ([key(1)], [1], some([1], dimensions=3)),
        ([key(1)], [], some([1])),
    ):
        with pytest.raises(ValueError, match="vectors for"):
            await cache.store(SMALL, digests, tokens, vectors)
    await cache.store(SMALL, [key(9)], [1], some([9]))
    with pytest.raises(ValueError, match="is stored at 4 dimensions, not 3"):
        await cache.store(replace(SMALL, dimensions=3), [key(1)], [1], some([1], dimensions=3))
    assert cache.size()[0] == 1


async def test_a_row_that_is_gone_is_an_error_and_no_other_vector(cache: Cache) -> None:
    """A vector erased between the look-up and the fetch is missed, not replaced."""
    await cache.store(SMALL, [key(n) for n in range(3)], [1, 1, 1], some([0, 1, 2]))
    rows = held(cache, SMALL, [key(n) for n in range(3)])
    assert await cache.erase([key(1)]) == 1
    assert held(cache, SMALL, [key(1)]) == {}
    with pytest.raises(LookupError):
        cache.fetch([rows[key(n)] for n in range(3)], 4)
    with pytest.raises(LookupError):
        cache.fetch([rows[key(0)]], 3)


async def test_a_row_number_is_not_given_to_another_text(cache: Cache) -> None:
    """Where the newest vector is erased and another stored, the old row number does not lead to the new vector."""
    await cache.store(SMALL, [key(1)], [1], some([1]))
    row = held(cache, SMALL, [key(1)])[key(1)]
    await cache.erase([key(1)])
    await cache.store(SMALL, [key(2)], [1], some([2]))
    with pytest.raises(LookupError):
        cache.fetch([row], 4)


async def test_another_programs_kinds_and_vectors_are_seen(cache: Cache, tmp_path: Path) -> None:
    """A second program on the file finds what the first stores, also of kinds that are new to it."""
    other = Cache(tmp_path / "vectors.db")
    try:
        assert dict(other.keys()) == {}
        await cache.store(SMALL, [key(1)], [1], some([1]))
        assert list(other.keys().values()) == [SMALL]
        assert set(held(other, SMALL, [key(1)])) == {key(1)}
    finally:
        other.close()


def test_roles_share_vectors_only_where_the_model_does_not_tell_them_apart() -> None:
    """`document` and `query` are one kind for OpenAI's models and two for Cohere's and Voyage's."""
    catalog = parse_catalog(CATALOG_FILE.read_text("utf-8"), origin="catalog")
    for model in catalog.models:
        document, query = vector_key(model, "document", "whole"), vector_key(model, "query", "whole")
        assert (document == query) is not model.roles
        assert document.dimensions == model.dimensions
    assert any(m.roles for m in catalog.models)
    assert not all(m.roles for m in catalog.models)


@settings(max_examples=25)
@given(stores=st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=4), asked=st.lists(st.integers(0, 9)))
def test_a_cache_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, stores: list[list[int]], asked: list[int]
) -> None:
    """Whatever is stored in whatever order, a look-up finds exactly that."""
    import asyncio

    cache = Cache(tmp_path_factory.mktemp("cache") / "vectors.db")
    try:
        for numbers in stores:
            distinct = list(dict.fromkeys(numbers))
            vectors = some(distinct) if distinct else np.empty((0, 4), np.float32)
            asyncio.run(cache.store(SMALL, [key(n) for n in distinct], distinct, vectors))
        there = {n for numbers in stores for n in numbers} & set(asked)
        rows = held(cache, SMALL, [key(n) for n in asked])
        assert set(rows) == {key(n) for n in there}
        assert np.array_equal(cache.fetch([rows[key(n)] for n in sorted(there)], 4), some(sorted(there)).reshape(-1, 4))
    finally:
        cache.close()


async def test_a_try_for_room_that_broke_off_does_not_stop_the_next(cache: Cache) -> None:
    """The disk was full again, or the program died, between the two halves of an earlier try."""
    await cache.database.write(lambda conn: conn.execute("CREATE TABLE probe (x)"))
    cache._full = True
    await cache.require_room()
    tables = cache.database.reader().execute("SELECT name FROM sqlite_master WHERE name = 'probe'").fetchall()
    assert (cache._full, tables) == (False, [])
