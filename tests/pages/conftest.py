"""Pages run in this process, each test on a data folder of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from router import host
from tests.pages import seed

MAIN = Path(__file__).resolve().parents[2] / "pages" / "main.py"


@pytest.fixture(scope="session", autouse=True)
def _packages_are_looked_through_once() -> Iterator[None]:
    """Each `AppTest` reads the metadata of every installed package, in search of Streamlit components: a third of the
    time of a page. A server does so once, at its start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder that the pages use; the engine is closed after the test."""
    monkeypatch.setenv("ROUTER_DATA", str(tmp_path / "data"))
    yield tmp_path / "data"
    host.close()


@pytest.fixture(scope="session")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up traffic of the last weeks."""
    folder = tmp_path_factory.mktemp("traffic") / "data"
    seed.write(folder, now=time.time(), days=20, requests_a_day=3)
    return folder


@pytest.fixture
def busy(data: Path, traffic: Path) -> Path:
    """A data folder with the made-up traffic."""
    return Path(shutil.copytree(traffic, data))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More of everything than fits on a screen."""
    folder = tmp_path_factory.mktemp("archive")
    seed.write_large(folder / "data", texts=folder / "texts")
    return folder / "data"


@pytest.fixture
def large(data: Path, archive: Path) -> Path:
    """A data folder with twenty thousand requests, forty policies and collections, three thousand texts."""
    return Path(shutil.copytree(archive, data))


@pytest.fixture
def open_page(data: Path) -> Callable[..., AppTest]:
    """`open_page("spend", by="model")` runs a page in its frame, with a query."""

    def run(name: str, **query: str) -> AppTest:
        app = AppTest.from_file(MAIN, default_timeout=120)
        for key, value in query.items():
            app.query_params[key] = value
        return (app if name == "overview" else app.switch_page(f"{name}.py")).run()

    return run
