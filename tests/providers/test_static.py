"""The static model: how it is made, kept and keyed."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from router.domain.errors import BadInput, NotConfigured
from router.engine import Router
from router.pipeline.validate import digest
from router.providers import static
from router.store.vectors import VectorKey
from tests.libraries import jsonl, opened

NAME = "local/static-MiniLM"
OLD = VectorKey(space=NAME, model=NAME, role="", variant="whole", dimensions=static.DIMENSIONS)
"""What vectors of the recipe before model2vec's are kept under."""


@pytest.mark.slow
async def test_it_is_distilled_once_and_old_vectors_are_not_served(tmp_path: Path) -> None:
    """Near texts are near; nothing is cut; the folder is its owner's; what the old recipe made stays out of it."""
    texts = ["How do I get my money back?", "I want a refund.", "The wing stalls at low speed.", "word " * 2_000]
    old = np.eye(4, static.DIMENSIONS, dtype=np.float32)
    async with Router.open(tmp_path, env={}) as router:
        await router.cache.store(OLD, [digest(text) for text in texts], [9] * 4, old)
        first = await router.embed(texts, policy="local", model=NAME)
        longer = await router.embed(["word " * 2_000 + "refund " * 2_000], policy="local", model=NAME)
    assert (first.counts.cache, first.counts.local, first.space) == (0, 4, f"{NAME}-2")
    money, refund, wing, long = first.vectors
    assert money @ refund > wing @ refund + 0.2
    assert long @ longer.vectors[0] < 0.95
    folder = tmp_path / "static-MiniLM-2"
    assert not folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    async with Router.open(tmp_path, env={}) as router:
        assert (await router.embed(["another text"], policy="local", model=NAME)).counts.local == 1
        assert (await router.embed(texts, policy="local", model=NAME)).counts.cache == 4
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert list(tmp_path.glob("tmp*")) == []


async def test_a_collection_of_the_old_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    """Old vectors are not mixed with new ones: its search and its job say so, and the collection can be made anew."""
    async with opened(tmp_path / "data") as here:
        await here.library.create("mine", model=NAME)
        await here.library.add_files("mine", [jsonl(tmp_path / "a.jsonl", ["one text", "another"])])
        await here.library.confirm("mine", model=NAME)
        move = "UPDATE generations SET space = ?"
        await here.library.corpora.database.write(lambda conn: conn.execute(move, (NAME,)))
        await here.worker.run_all()
        (job,) = here.library.jobs.all()
        assert job.state == "paused"
        assert (
            f"it is now of the space {NAME}-2 with 256 dimensions, and the collection is of {NAME} with" in job.reason
        )
        with pytest.raises(BadInput, match=f"'mine' is of the space {NAME}, and {NAME} is of {NAME}-2 now"):
            await here.library.search("mine", "text")
        with pytest.raises(BadInput, match=f"'mine' is pinned to space {NAME}"):
            await here.library.confirm("mine")
        await here.library.jobs.cancel(job.id)
        anew = await here.library.improve("mine", NAME)
        assert here.library.corpora.generation(anew.generation).space == f"{NAME}-2"


def test_a_failed_distillation_says_why(tmp_path: Path) -> None:
    """The reason's last line, and nothing half-made is left."""
    with pytest.raises(NotConfigured, match="could not be distilled: "):
        static.load(tmp_path / "no such teacher", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
