"""Collections, documents, chunks and generations: what is kept, what takes whose place, what is gone for good."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import BadInput
from router.pipeline.validate import digest
from router.store.collections import Corpora
from router.store.models import Collection
from tests.libraries import chunk, corpora


async def make(store: Corpora, name: str = "letters") -> Collection:
    """A collection of the default kind."""
    return await store.create(name, policy="default", tokenizer="wordpiece", chunk_tokens=256, overlap=0)


async def fill(store: Corpora, collection: int, name: str, *texts: str, source: str = "1") -> int:
    """A document of these chunks, added and not confirmed."""
    document = await store.begin_document(collection, name=name, digest=source, kind="md", size=10)
    await store.add_chunks(collection, document, 0, [chunk(text) for text in texts])
    await store.end_document(document)
    return document


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "a\x1b[31m", "a" * 81])
async def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    """Names are printed and drawn; control characters have no place in them."""
    with corpora(tmp_path) as store, pytest.raises(BadInput):
        await make(store, name)


async def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """A second collection of a name is refused; SQL in a name is only a name."""
    with corpora(tmp_path) as store:
        odd = "x'; DROP TABLE collections; --"
        await make(store, odd)
        with pytest.raises(BadInput, match="already"):
            await make(store, odd)
        assert [c.name for c in store.all()] == [odd]


async def test_what_was_added_is_not_ready_before_it_is_confirmed(tmp_path: Path) -> None:
    """Nothing unconfirmed is embedded or searched; confirming makes it so."""
    with corpora(tmp_path) as store:
        collection = await make(store)
        await fill(store, collection.id, "a.md", "one", "two")
        assert list(store.chunks.distinct(collection.id)) == []
        assert store.counts(collection.id, ("added",)) == (1, 2)
        assert await store.confirm(collection.id) == 1
        [page] = store.chunks.distinct(collection.id)
        assert [one.digest for one in page] == sorted([digest("one"), digest("two")])


async def test_a_new_version_takes_the_old_ones_place_when_it_is_confirmed(tmp_path: Path) -> None:
    """Until then the old one is searched; a new version that could not be read leaves it alone."""
    with corpora(tmp_path) as store:
        collection = await make(store)
        await fill(store, collection.id, "a.md", "one", "two")
        await store.confirm(collection.id)
        broken = await store.begin_document(collection.id, name="a.md", digest="2", kind="md", size=1)
        await store.end_document(broken, reason="it is broken")
        await store.confirm(collection.id)
        assert {c.text for page in store.chunks.all(collection.id) for c in page} == {"one", "two"}
        await fill(store, collection.id, "a.md", "two", "three", source="3")
        assert {c.text for page in store.chunks.all(collection.id) for c in page} == {"one", "two"}
        await store.confirm(collection.id)
        assert {c.text for page in store.chunks.all(collection.id) for c in page} == {"two", "three"}
        assert [d.state for d in store.documents(collection.id)] == ["ready"]


async def test_a_document_that_failed_keeps_its_reason_and_no_chunks(tmp_path: Path) -> None:
    """The page says why; nothing of the file is embedded."""
    with corpora(tmp_path) as store:
        collection = await make(store)
        document = await store.begin_document(collection.id, name="a.pdf", digest="1", kind="pdf", size=1)
        await store.add_chunks(collection.id, document, 0, [chunk("half of it")])
        await store.end_document(document, reason="it is broken")
        [row] = store.documents(collection.id)
        assert (row.state, row.reason, row.chunks) == ("failed", "it is broken", 0)
        assert list(store.chunks.distinct(collection.id, states=("failed", "adding", "added", "ready"))) == []


async def test_a_document_left_by_a_dead_program_is_cleared_away(tmp_path: Path) -> None:
    """Its chunks were never confirmed; the next document of the collection clears it, and not one that lives."""
    now = [1_000.0]
    store = Corpora(tmp_path / "corpora.db", lambda: now[0])
    collection = await make(store)
    dead = await store.begin_document(collection.id, name="dead.md", digest="1", kind="md", size=1)
    await store.add_chunks(collection.id, dead, 0, [chunk("left behind")])
    now[0] += 500
    alive = await store.begin_document(collection.id, name="alive.md", digest="2", kind="md", size=1)
    assert {d.name for d in store.documents(collection.id)} == {"dead.md", "alive.md"}
    now[0] += 200
    await fill(store, collection.id, "third.md", "three")
    assert {d.name for d in store.documents(collection.id)} == {"alive.md", "third.md"}
    await store.add_chunks(collection.id, alive, 0, [chunk("still alive")])
    with pytest.raises(BadInput, match="deleted while"):
        await store.add_chunks(collection.id, dead, 1, [chunk("too late")])
    store.close()


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=900), min_size=1, max_size=30),
       st.integers(1, 7))  # fmt: skip
def test_pages_give_every_distinct_text_once_and_whole(texts: list[str], page: int) -> None:
    """By pages of any size: sorted digests, right copies, and the exact texts again, packed or not."""

    async def work(folder: Path) -> None:
        with corpora(folder) as store:
            collection = await make(store)
            other = await make(store, "other")
            middle = len(texts) // 2
            await fill(store, collection.id, "a.md", *texts[:middle])
            await fill(store, collection.id, "b.md", *texts[middle:])
            await fill(store, other.id, "a.md", "of another collection")
            await store.confirm(collection.id)
            found = [one for part in store.chunks.distinct(collection.id, page=page) for one in part]
            assert [one.digest for one in found] == sorted({digest(text) for text in texts})
            assert sum(one.copies for one in found) == len(texts)
            back = store.chunks.texts(collection.id, [one.digest for one in found])
            assert {c.text for c in back.values()} == set(texts)
            assert all(digest(c.text) == key for key, c in back.items())
            in_order = [c.text for part in store.chunks.all(collection.id, page=page) for c in part]
            assert in_order == texts

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder)))


async def test_only_here_spares_what_others_need(tmp_path: Path) -> None:
    """A text of another collection, or of another document, is not to lose its vector."""
    with corpora(tmp_path) as store:
        one, two = await make(store), await make(store, "other")
        first = await fill(store, one.id, "a.md", "only in a", "in a and b", "in both collections")
        await fill(store, one.id, "b.md", "in a and b")
        await fill(store, two.id, "c.md", "in both collections")
        keys = [digest(t) for t in ("only in a", "in a and b", "in both collections")]
        assert store.chunks.only_here(one.id, keys, but=[first]) == [digest("only in a")]
        assert store.chunks.only_here(one.id, keys) == keys[:2]


async def test_generations_switch_in_one_step(tmp_path: Path) -> None:
    """There is never more than one active generation, and never none once there was one."""
    with corpora(tmp_path) as store:
        collection = await make(store)
        old = await store.add_generation(collection.id, model="m", space="s", dimensions=3, state="active")
        with pytest.raises(BadInput, match="pinned"):
            await store.add_generation(collection.id, model="m2", space="s2", dimensions=3, state="active")
        new = await store.add_generation(collection.id, model="m2", space="s2", dimensions=3, state="building")
        assert store.active(collection.id) == old
        assert not await store.drop(old.id)
        assert await store.switch(new.id)
        assert not await store.switch(new.id)
        assert [(g.id, g.state) for g in store.generations(collection.id)] == [(old.id, "former"), (new.id, "active")]
        assert await store.drop(old.id)
        assert [g.id for g in store.generations(collection.id)] == [new.id]


async def test_deleted_texts_are_overwritten_on_disk(tmp_path: Path) -> None:
    """What is deleted is not left behind in the file's free pages."""
    secret = "the number of the safe is 4711"
    with corpora(tmp_path) as store:
        collection = await make(store)
        await fill(store, collection.id, "a.md", secret, "something else")
        await fill(store, collection.id, "b.md", f"{secret} again")
    assert secret.encode() in (tmp_path / "corpora.db").read_bytes()
    with corpora(tmp_path) as store:
        assert await store.erase([digest(secret)]) == [("letters", "a.md")]
        assert await store.delete_documents(collection.id, names=["b.md"]) == 1
        assert [d.chunks for d in store.documents(collection.id)] == [1]
    assert secret.encode() not in (tmp_path / "corpora.db").read_bytes()
    assert not (tmp_path / "corpora.db-wal").exists()


async def test_deleting_a_collection_leaves_nothing_of_it(tmp_path: Path) -> None:
    """Documents, chunks and generations go with it; the other collections stay."""
    with corpora(tmp_path) as store:
        one, two = await make(store), await make(store, "other")
        await fill(store, one.id, "a.md", "mine")
        await fill(store, two.id, "a.md", "theirs")
        await store.add_generation(one.id, model="m", space="s", dimensions=3, state="active")
        await store.delete(one.id)
        conn = store.database.reader()
        for table in ("documents", "chunks"):
            assert conn.execute(f"SELECT DISTINCT collection FROM {table}").fetchall() == [(two.id,)]
        assert conn.execute("SELECT count(*) FROM generations").fetchone() == (0,)
