"""A sentence-transformers model of the operator's own, named in router.toml by its folder."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from router.engine import Router
from router.providers.local import weights_of

MODEL = """
[[models]]
id = "local/mine"
name = "{folder}"
space = "local/mine"
dimensions = 384
tokenizer = "bytes"
limits = {{ texts_per_call = 64, tokens_per_text = 2000 }}
"""


@pytest.mark.slow
async def test_a_model_on_disk_is_loaded_from_its_folder(tmp_path: Path) -> None:
    """Its vectors are its own space's, and as near as precision allows to the same weights' under another name."""
    folder = weights_of("all-MiniLM-L6-v2")
    assert folder is not None
    (tmp_path / "router.toml").write_text(MODEL.format(folder=folder), encoding="utf-8")
    async with Router.open(tmp_path, env={}) as router:
        mine = await router.embed(["a text"], policy="local", model="local/mine")
        packaged = await router.embed(["a text"], policy="local", model="local/all-MiniLM-L6-v2")
    assert (mine.model, mine.space) == ("local/mine", "local/mine")
    assert packaged.counts.cache == 0
    assert float(np.dot(mine.vectors[0], packaged.vectors[0])) > 0.999
    assert gc.get_freeze_count() > 200_000  # else every run of a page goes through all that torch has


def test_a_name_that_is_no_folder_and_no_hub_name_is_not_there() -> None:
    """A typing error does not become a download."""
    assert weights_of("no-such-model") is None
    assert weights_of("owner/name") == Path("owner/name")
