"""Collections written straight into LanceDB and Chroma folders, where these are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from router.domain.errors import BadInput
from router.search.export import open_writer

ABOUT = {"space": "local/s", "model": "local/m", "dimensions": 4}


def fill(path: Path) -> np.ndarray:
    """Three rows in two writes."""
    vectors = np.eye(3, 4, dtype=np.float32)
    with open_writer(path, space="local/s", model="local/m", dimensions=4, with_text=True) as writer:
        writer.write(["a", "b"], ["one", "two"], vectors[:2])
        writer.write(["c"], ["three"], vectors[2:])
    return vectors


@pytest.mark.skipif(importlib.util.find_spec("lancedb") is None, reason="lancedb is an optional extra")
def test_a_lance_folder_is_searched_by_lancedb(tmp_path: Path) -> None:
    """The nearest row is found, with its text, and the schema names the space."""
    import lancedb

    vectors = fill(tmp_path / "out.lance")
    table = lancedb.connect(str(tmp_path / "out.lance")).open_table("vectors")
    assert table.search(vectors[1]).limit(1).to_list()[0]["text"] == "two"
    assert table.schema.metadata[b"space"] == b"local/s"


@pytest.mark.skipif(importlib.util.find_spec("chromadb") is None, reason="chromadb is an optional extra")
def test_a_chroma_folder_is_searched_by_chroma(tmp_path: Path) -> None:
    """The nearest row is found, with its text, and the collection names the space."""
    import chromadb

    vectors = fill(tmp_path / "out.chroma")
    collection = chromadb.PersistentClient(str(tmp_path / "out.chroma")).get_collection("vectors")
    assert collection.query(query_embeddings=vectors[2:], n_results=1)["documents"] == [["three"]]
    assert collection.metadata["space"] == "local/s"


@pytest.mark.parametrize("ending", ["lance", "chroma"])
def test_a_missing_package_is_named(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package: what to install, and nothing is written."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install"):
        fill(tmp_path / f"out.{ending}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """An export never writes into, or over, somebody's folder."""
    (tmp_path / "out.lance").mkdir()
    with pytest.raises(BadInput, match="there already"):
        fill(tmp_path / "out.lance")
