"""The provider, a fresh data folder, and where a fault's figure is written down."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from router.engine import Router


@pytest.fixture
def figure() -> Callable[[int, str], None]:
    """`figure(number, text)` prints a fault's figure, and adds it to the file that FAULTS_REPORT names."""

    def note(number: int, text: str) -> None:
        line = f"fault {number}: {text}"
        print(line)
        report = os.environ.get("FAULTS_REPORT")
        if report:
            with Path(report).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    return note


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder on which the program was started once."""
    folder = tmp_path_factory.mktemp("blank")

    async def start() -> None:
        async with Router.open(folder, env={}):
            pass

    asyncio.run(start())
    return folder


@pytest.fixture
def fresh(blank: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`fresh(name)` is a data folder with nothing in it but the defaults."""
    return lambda name: Path(shutil.copytree(blank, tmp_path / name))
