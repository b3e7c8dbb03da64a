"""The package that others install: built, put into an environment of its own, and used from another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import router
from tests.browser.helpers import free_port, wait_until_healthy

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("router", "pages", "samples", ".streamlit/config.toml", "app.py", "pyproject.toml", "README.md")
DEPENDENCIES = sysconfig.get_path("purelib")
TYPED = """
import asyncio
from collections.abc import Sequence
from typing import Any, assert_type

import numpy as np

from router import EmbedCall, Policy, Provider, Quote, Refused, Reply, Result, Router


class Mine:
    async def embed(self, call: EmbedCall) -> Reply:
        return Reply(vectors=[[1.0, 0.0] for _ in call.sent], tokens=len(call.sent))

    async def aclose(self) -> None:
        pass


async def main(texts: Sequence[str]) -> Result | None:
    provider: Provider = Mine()
    async with Router.open("data", providers={"mine": provider}) as router:
        quote = await router.quote(texts)
        assert_type(quote, Quote)
        assert_type(quote.cost, int | None)
        assert_type(quote.model, str | None)
        try:
            result = await router.embed(texts, role="query")
            assert_type(result.vectors, np.ndarray[tuple[Any, ...], np.dtype[np.float32]])
            return result
        except Refused as error:
            print(error.hint, Policy(name="mine").goal)
    return None


asyncio.run(main(["a"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools writes beside the sources, and packs what an older build left there."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        (source / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel in it, and NumPy; `run` lends it the other dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    path = folder / "bin" / "python"
    pip(str(path), "install", "--no-deps", "--no-index", str(wheel))
    site_of(path).joinpath("numpy").symlink_to(Path(DEPENDENCIES) / "numpy")
    return path


def site_of(python: Path) -> Path:
    """The site-packages of an environment."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    return site


def pip(python: str, *words: str) -> None:
    """Our pip, for that Python."""
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run(command: list[str | Path], folder: Path, **env: str) -> str:
    """What a command prints that is run in another folder than that of the sources."""
    env = environment(folder) | env
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Ours, with the packages that we depend on and without a path to the sources; the data folder is in this one."""
    return {**os.environ, "PYTHONPATH": DEPENDENCIES, "ROUTER_DATA": str(folder / "data"), "COLUMNS": "120"}


def files(*patterns: str) -> Iterator[str]:
    """Files of the sources, by their path."""
    for pattern in patterns:
        for path in ROOT.glob(pattern):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def test_the_wheel_holds_every_file_and_nothing_beside_the_package(wheel: Path) -> None:
    """A new package or data file that pyproject.toml does not name would be missed by users first."""
    app = files("app.py", "pages/**/*", ".streamlit/config.toml", "samples/help-centre/*")
    expected = {*files("router/**/*"), *(f"router/_app/{name}" for name in app)}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_metadata_is_that_of_the_sources(wheel: Path) -> None:
    """One version, and the command."""
    metadata = PathDistribution(zipfile.Path(wheel, f"embedding_router-{router.__version__}.dist-info/"))
    assert metadata.version == router.__version__
    assert [(one.name, one.value) for one in metadata.entry_points] == [("embedding-router", "router.cli:app")]


def test_the_pins_are_those_of_what_is_declared() -> None:
    """requirements.txt has each declared package, within its bounds, and no other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {one.name: one for one in map(Requirement, project["dependencies"])}
    lines = (
        line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    pinned = {one.name: one for one in map(Requirement, filter(None, lines))}
    assert pinned.keys() == declared.keys()
    for name, pin in pinned.items():
        (specifier,) = pin.specifier
        assert declared[name].specifier.contains(specifier.version), name
        assert str(declared[name].marker) == str(pin.marker), name


def test_it_is_imported_from_another_folder(python: Path, tmp_path: Path) -> None:
    """Every public name is there, and comes from the wheel; nothing else stands beside the package."""
    code = "import router; print(router.__file__); [getattr(router, name) for name in router.__all__]"
    assert run([python, "-c", code], tmp_path).startswith(str(python.parents[1]))
    there = {path.name for path in site_of(python).iterdir()}
    assert there == {"router", f"embedding_router-{router.__version__}.dist-info", "numpy"}


def test_the_command_runs(python: Path, tmp_path: Path) -> None:
    """`embedding-router` has the commands of `python -m router`."""
    usage = run([python.with_name("embedding-router"), "--help"], tmp_path)
    assert "Usage: embedding-router" in usage
    module = run([python, "-m", "router", "--help"], tmp_path)
    assert usage.split("Options")[1] == module.split("Options")[1]


@pytest.mark.slow
def test_the_readmes_examples_run(python: Path, tmp_path: Path) -> None:
    """With the packaged local model, its vocabulary and its catalog; and with a provider of one's own, at its price."""
    local, own = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert run([python, "-c", local], tmp_path).splitlines()[:2] == [
        "local/all-MiniLM-L6-v2 2",
        "(3, 384) ('local', 'local', 'repeated') 0",
    ]
    assert run([python, "-c", own], tmp_path).split() == ["mine/one", "20"]  # two tokens of $0.01 a million


@pytest.mark.slow
def test_the_pages_start(python: Path, tmp_path: Path) -> None:
    """`embedding-router app`, in a folder that has a `pages` and an `app` of its own."""
    (tmp_path / "pages").mkdir()
    for name in ("pages/__init__.py", "app.py"):
        (tmp_path / name).write_text("raise SystemExit('not ours')", encoding="utf-8")
    port, log = free_port(), tmp_path / "log.txt"
    command = [python.with_name("embedding-router"), "app", "--port", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=out, stderr=out) as process,
    ):
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}/healthz", log)
        finally:
            process.terminate()


@pytest.mark.slow
def test_its_types_are_seen(python: Path, tmp_path: Path) -> None:
    """A program of the user's passes `mypy --strict` with the types of the wheel, and a wrong one does not."""
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(TYPED, encoding="utf-8")
    wrong.write_text(TYPED.replace('role="query"', 'role="question"'), encoding="utf-8")
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path]
    assert "no issues" in run([*check, good], tmp_path, PYTHONPATH="")  # torch's types alone would take a minute
    with pytest.raises(AssertionError, match=r'wrong.py:.*Argument "role" .* has incompatible type'):
        run([*check, wrong], tmp_path, PYTHONPATH="")
