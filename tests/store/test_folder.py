"""Who can read the data folder: its owner, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from router.engine import Router
from router.store.folder import open_to_others


@pytest.mark.parametrize("umask", [0o022, 0o000])
async def test_what_is_written_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    """The folder is 0700 and every file in it 0600, the WAL too; an older folder's files are tightened."""
    before = os.umask(umask)
    try:
        data = tmp_path / "new"
        async with Router.open(data, env={}):
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.iterdir())}
            assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
            assert {"router.db", "router.db-wal", "vectors.db"} <= modes.keys()
        for path in data.iterdir():
            path.chmod(0o644)
        (data / "router.toml").write_text("", "utf-8")
        assert open_to_others(data)
        async with Router.open(data, env={}):
            assert open_to_others(data) == []
    finally:
        os.umask(before)
