"""Vector files, whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from router.domain.errors import BadInput, StoreFull
from router.search import export
from router.search.export import open_writer, safe_cell

ABOUT = {"space": "local/é", "model": "local/m", "dimensions": 3}
ENDINGS = [".parquet", ".npz", ".jsonl"]
IDS = ["a", "longer id", '=x"\n', "日本"]
TEXTS = ["one", "", "line\nline\x01", "四"]


def vectors(rows: int, dimensions: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((rows, dimensions), dtype=np.float32)


def write(path: Path, *, with_text: bool = True, batch: int = 3) -> NDArray[np.float32]:
    wanted = vectors(4)
    with open_writer(path, space="local/é", model="local/m", dimensions=3, with_text=with_text) as writer:
        writer.write([], [], vectors(0))
        for at in range(0, 4, batch):
            part = wanted[at : at + batch].copy()
            writer.write(IDS[at : at + batch], TEXTS[at : at + batch], part)
            part[:] = 0  # the caller may reuse its array
    return wanted


def read(path: Path) -> tuple[list[str], list[str] | None, NDArray[np.float32], dict[str, object]]:
    """Ids, texts, vectors and what the file says of itself."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        about: dict[str, object] = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        about["dimensions"] = int(str(about["dimensions"]))
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        texts = table["text"].to_pylist() if "text" in table.column_names else None
        return table["id"].to_pylist(), texts, flat.reshape(-1, 3), about
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            about = {name: file[name].item() for name in ABOUT}
            texts = file["text"].tolist() if "text" in file else None
            return file["id"].tolist(), texts, file["vector"], about
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    about = {name: rows[0][name] for name in ABOUT}
    texts = [row["text"] for row in rows] if "text" in rows[0] else None
    return [row["id"] for row in rows], texts, np.array([row["vector"] for row in rows], np.float32), about


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str, batch: int) -> None:
    """Ids, texts, vectors bit for bit, and the space, model and dimensions; nothing else is left in the folder."""
    path = tmp_path / f"v{ending}"
    wanted = write(path, batch=batch)
    ids, texts, got, about = read(path)
    assert (ids, texts, about) == (IDS, TEXTS, ABOUT)
    assert got.dtype == np.float32
    assert np.array_equal(got, wanted)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_texts_are_left_out_on_demand(tmp_path: Path, ending: str) -> None:
    """No column for them at all, though they were given."""
    write(tmp_path / f"v{ending}", with_text=False)
    assert read(tmp_path / f"v{ending}")[1] is None
    assert b"one" not in (tmp_path / f"v{ending}").read_bytes()


def test_a_file_without_rows_is_whole(tmp_path: Path) -> None:
    """Parquet and NPZ still say their space and shape."""
    for ending in (".parquet", ".npz"):
        with open_writer(tmp_path / f"v{ending}", space="s", model="m", dimensions=3, with_text=True):
            pass
    assert pq.read_table(tmp_path / "v.parquet").schema.metadata[b"space"] == b"s"
    with np.load(tmp_path / "v.npz") as file:
        assert file["vector"].shape == (0, 3)
        assert file["id"].shape == (0,)


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_half_written_is_left(tmp_path: Path, ending: str) -> None:
    """An error in the block leaves the old file as it was, no other file, and is itself what the caller sees."""
    path = tmp_path / f"v{ending}"
    path.write_text("old")

    def fail_midway() -> None:
        with open_writer(path, space="s", model="m", dimensions=3, with_text=False) as writer:
            writer.write(IDS, None, vectors(4))
            raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        fail_midway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_named(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC is StoreFull, and no file is left."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.os, "fsync", full)
    with pytest.raises(StoreFull, match="is full"):
        write(tmp_path / f"v{ending}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_does_not_fit_is_refused(tmp_path: Path, ending: str) -> None:
    """Another number of rows, dimensions or texts, or another dtype."""
    with open_writer(tmp_path / f"v{ending}", space="s", model="m", dimensions=3, with_text=True) as writer:
        for ids, texts, array in [
            (["a"], ["a"], vectors(2)),
            (["a"], ["a"], vectors(1, 4)),
            (["a"], ["a"], vectors(1).astype(np.float64)),
            (["a"], ["a", "b"], vectors(1)),
            (["a"], None, vectors(1)),
        ]:
            with pytest.raises(BadInput):
                writer.write(ids, texts, array)  # type: ignore[arg-type]


def test_unknown_endings_and_folders_are_refused(tmp_path: Path) -> None:
    """The message names the three kinds, or the folder that is missing."""
    for path, reason in [
        (tmp_path / "v.pkl", r"\.parquet, \.npz or \.jsonl"),
        (tmp_path / "no" / "v.npz", "no folder"),
    ]:
        with (
            pytest.raises(BadInput, match=reason),
            open_writer(path, space="s", model="m", dimensions=3, with_text=False),
        ):
            pytest.fail("the block must not run")


def test_npz_texts_that_would_not_fit_are_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of strings take the longest for each: refused as soon as that is seen, with the way out."""
    monkeypatch.setattr(export, "_NPZ_TEXT_BYTES", 100)
    with (
        pytest.raises(BadInput, match=r"too long for \.npz.*\.parquet or \.jsonl"),
        open_writer(tmp_path / "v.npz", space="s", model="m", dimensions=3, with_text=True) as writer,
    ):
        writer.write(["a"], ["x" * 26], vectors(1))
    assert list(tmp_path.iterdir()) == []


def test_parquet_row_groups_are_of_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small writes are gathered, so that a file does not have a row group a call."""
    monkeypatch.setattr(export, "_GROUP_BYTES", 4_000)
    path = tmp_path / "v.parquet"
    with open_writer(path, space="s", model="m", dimensions=3, with_text=False) as writer:
        for number in range(1000):
            writer.write([str(number)], None, vectors(1))
    assert 2 <= pq.ParquetFile(path).num_row_groups <= 20
    assert pq.read_table(path)["id"].to_pylist() == [str(number) for number in range(1000)]


def test_half_surrogates_do_not_lose_a_paid_file(tmp_path: Path) -> None:
    """An id that no encoding can carry is written with a question mark where it must be, and as it is elsewhere."""
    for ending, wanted in [(".parquet", "a?"), (".jsonl", "a\ud800"), (".npz", "a\ud800")]:
        path = tmp_path / f"v{ending}"
        with open_writer(path, space="s", model="m", dimensions=3, with_text=False) as writer:
            writer.write(["a\ud800"], None, vectors(1))
        assert read(path)[0] == [wanted]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\n=x", "＝1"])
def test_cells_that_a_spreadsheet_would_run_are_disarmed(cell: str) -> None:
    """An apostrophe goes before them."""
    assert safe_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "plain", "a=b", "1", "'=1"])
def test_plain_cells_stay(cell: str) -> None:
    """Nothing is changed where nothing is active."""
    assert safe_cell(cell) == cell
