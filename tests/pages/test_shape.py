"""The pages use the public face of the router and the library, and their modules import each other without cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {path: path.read_text() for path in [ROOT / "app.py", *(ROOT / "pages").rglob("*.py")]}
INSIDE = {"ledger", "cache", "database", "limiters", "providers", "estimates", "corpora", "jobs"}
"""Attributes of a router or a library that pages leave alone."""


def faults_in(source: str) -> Iterator[str]:
    """Attributes that are private to another object, or inside a router or a library."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = ast.unparse(node.value)
            if node.attr.startswith("_") and not node.attr.startswith("__") and of != "self":
                yield f"line {node.lineno}: {of}.{node.attr}"
            if node.attr in INSIDE and of.split(".")[-1].removesuffix("()") in ("router", "library"):
                yield f"line {node.lineno}: {of}.{node.attr}"


def imports_of(source: str) -> set[str]:
    """The modules of the pages that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "pages.components":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pages.components."):
            names.add(str(node.module).removeprefix("pages.components."))
    return names


@pytest.mark.parametrize(
    "source", ["router.ledger.states('')", "host.library.jobs.all()", "host().router.cache", "policy._rows"]
)
def test_the_check_sees_a_violation(source: str) -> None:
    """The check below would be worth nothing if it passed everything."""
    assert list(faults_in(source))


def test_pages_use_public_methods() -> None:
    """What they need of the ledger, the jobs or the documents is a method of the router or the library."""
    found = {path.relative_to(ROOT): list(faults_in(source)) for path, source in SOURCES.items()}
    assert {str(path): faults for path, faults in found.items() if faults} == {}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """A planted cycle is seen; there is none."""
    graph = {path.stem: imports_of(source) for path, source in SOURCES.items() if path.parent.name == "components"}
    assert "format" in graph["widgets"]
    list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph | {"format": {"widgets"}}).static_order())
