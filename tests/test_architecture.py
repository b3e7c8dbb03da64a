"""The shape of the code: who may import whom, what is loaded at the start, and what may not be written at all."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = sorted([ROOT / "app.py", *(ROOT / "pages").rglob("*.py"), *(ROOT / "router").rglob("*.py")])
HEAVY = {
    *("cohere", "openai", "pandas", "plotly", "pyarrow", "sentence_transformers", "sklearn", "streamlit"),
    *("tokenizers", "torch", "transformers", "voyageai"),
}


def faults_in(source: str) -> Iterator[str]:
    """What may not be written anywhere in the program: each with its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                yield f"line {node.lineno}: import *"
            case ast.Import(names=names) if any(alias.name.split(".")[0] in {"pickle", "dill"} for alias in names):
                yield f"line {node.lineno}: pickle runs code that a file brings along"
            case ast.ImportFrom(module="pickle" | "dill"):
                yield f"line {node.lineno}: pickle runs code that a file brings along"
            case ast.keyword(arg="trust_remote_code" | "unsafe_allow_html" | "allow_pickle", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield f"line {node.value.lineno}: {node.arg}"


def imported_by(source: str) -> set[str]:
    """Top-level names of all modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    "source",
    [
        "from os.path import *",
        "import pickle",
        "def f():\n    from pickle import loads",
        "model(name, trust_remote_code=True)",
        "st.markdown(text, unsafe_allow_html=True)",
        "st.markdown(text, unsafe_allow_html=flag)",
        "numpy.load(file, allow_pickle=True)",
    ],
)
def test_the_check_sees_what_may_not_be_written(source: str) -> None:
    """The check below would be worth nothing if it passed everything."""
    assert list(faults_in(source))


def test_nothing_forbidden_is_written() -> None:
    """No `import *`, no pickle, no remote code, no raw HTML from texts."""
    found = {path.relative_to(ROOT): list(faults_in(path.read_text())) for path in OURS}
    assert {str(path): faults for path, faults in found.items() if faults} == {}


def test_imports_point_down_only() -> None:
    """The contracts in pyproject.toml: layers, a domain without I/O, providers that know nobody."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_providers_do_not_import_each_other() -> None:
    """A provider is one file that may lean on providers/base.py and the way to an endpoint, and on nothing beside."""
    folder = ROOT / "router" / "providers"
    names = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "http", "network", "sdk", "transport"}
    assert names
    for name in names:
        tree = ast.parse((folder / f"{name}.py").read_text())
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        siblings = {f"router.providers.{other}" for other in names - {name}}
        assert not modules & siblings, f"router/providers/{name}.py imports {modules & siblings}"


def test_streamlit_and_plotly_stay_with_the_pages() -> None:
    """The engine, the shell and the API work where there is no screen."""
    for path in OURS:
        where = path.relative_to(ROOT)
        imported = imported_by(path.read_text())
        if where.parts[0] != "pages":
            assert "plotly" not in imported, f"{where} imports plotly"
            if where.name != "app.py":
                assert "streamlit" not in imported, f"{where} imports streamlit"
        assert "components" not in imported, f"{where}: `components` is a second copy of `pages.components`"


LOADED = """
import json, runpy, sys
sys.argv = ["router", "--help"]
try:
    {statement}
except SystemExit as end:
    assert not end.code, end.code
print()
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
STARTS = {
    "import router": "import router",
    "python -m router --help": "runpy.run_module('router', run_name='__main__')",
}


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that are loaded once a fresh interpreter has run the statement."""
    command = [sys.executable, "-c", LOADED.format(statement=statement)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_check_sees_a_heavy_import() -> None:
    """The check below would be worth nothing if it saw nothing."""
    assert "pyarrow" in loaded_by("import pyarrow")


@pytest.mark.parametrize("start", STARTS)
def test_a_start_loads_nothing_heavy(start: str) -> None:
    """Help and `from router import Router` answer at once: models and SDKs are loaded on first use."""
    assert loaded_by(STARTS[start]) & HEAVY == set()


def test_the_app_loads_no_model_and_no_sdk() -> None:
    """Streamlit brings a few heavy packages of its own; the rest waits for its first use."""
    streamlit = loaded_by("import streamlit, streamlit.web.server.starlette")
    assert (loaded_by("import app") - streamlit) & HEAVY == set()
