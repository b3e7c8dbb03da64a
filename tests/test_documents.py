"""docs/ and CONTRIBUTING.md say what is there: every file and name they mention exists, every fault has its test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text("utf-8")
GUIDES = ("CONTRIBUTING.md", "docs/architecture.md")
FAULTS = range(1, 45)
NOT_OURS = {".venv", "router.db", "corpora.db", "vectors.db", "router.toml"}
"""Made by running the program: the guides speak of them and the repository does not have them."""
FAULT_TEST = re.compile(r"test_fault_(\d\d)_\w+\.py")


# ---- faults ------------------------------------------------------------------------------------


def entries(text: str) -> dict[int, str]:
    """The entries of the list, by the number that each begins with."""
    parts = re.split(r"(?m)^\*\*(\d+)\. ", text)
    return {int(number): entry for number, entry in zip(parts[1::2], parts[2::2], strict=True)}


def faults_of(docstring: str) -> set[int]:
    """The numbers that a test's first words name: "Fault 7: ...", "Faults 38, 39 and 43: ..."."""
    said = re.search(r"[Ff]aults? (\d+(?:(?:, | and )\d+)*)", docstring)
    return set(map(int, re.findall(r"\d+", said[1]))) if said else set()


def fault_problems(text: str, tests: Mapping[str, str]) -> list[str]:
    """What is wrong with the list of faults, given the numbered tests: docstrings by path."""
    listed = entries(text)
    found = [f"fault {n} is not listed" for n in FAULTS if n not in listed]
    for path, docstring in tests.items():
        own = FAULT_TEST.fullmatch(Path(path).name)
        assert own, path
        number = int(own[1])
        if path not in listed.get(number, ""):
            found.append(f"{path} is not in the entry of fault {number}")
        if number not in faults_of(docstring):
            found.append(f"{path} does not say that it is about fault {number}")
    for number, entry in listed.items():
        named = re.findall(r"`(tests/[^`]+\.py)`", entry.partition("*Test:*")[2])
        if not named:
            found.append(f"fault {number} names no test")
        for path in named:
            if path.startswith("tests/faults/") and number not in faults_of(tests.get(path, "")):
                found.append(f"{path} is not about fault {number}")
    return found


def numbered_tests() -> dict[str, str]:
    """The tests that bear a fault's number: their docstrings."""
    paths = sorted((ROOT / "tests" / "faults").rglob("test_*.py"))
    return {str(p.relative_to(ROOT)): ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "" for p in paths}


def test_every_fault_has_its_test_and_every_test_its_fault() -> None:
    """`test_fault_26` means what stands under 26, and what the list claims to be held is held."""
    assert fault_problems(RELIABILITY, numbered_tests()) == []


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("**26. ", "**46. ", "fault 26 is not listed"),
        ("*Test:* `tests/faults/test_fault_20_other_model.py`", "*Test:* none", "fault 20 names no test"),
        ("`tests/faults/test_fault_20_other_model.py`", "`tests/faults/test_fault_21_texts.py`",
         "tests/faults/test_fault_21_texts.py is not about fault 20"),
        ("`tests/faults/test_fault_20_other_model.py`", "`tests/faults/test_fault_20_gone.py`",
         "tests/faults/test_fault_20_gone.py is not about fault 20"),
    ],
)  # fmt: skip
def test_the_check_sees_a_fault_without_its_test(before: str, after: str, problem: str) -> None:
    """The check above would be worth nothing if it passed everything."""
    assert before in RELIABILITY
    assert problem in fault_problems(RELIABILITY.replace(before, after), numbered_tests())


def test_the_check_sees_a_test_without_its_fault() -> None:
    """A test that nobody listed, and one that says another number than its name."""
    tests = {**numbered_tests(), "tests/faults/test_fault_01_more.py": "Fault 2: something else."}
    assert fault_problems(RELIABILITY, tests) == [
        "tests/faults/test_fault_01_more.py is not in the entry of fault 1",
        "tests/faults/test_fault_01_more.py does not say that it is about fault 1",
    ]


# ---- files and names ---------------------------------------------------------------------------


def names_in(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines: `name`, `Class`, `Class.name`."""
    for node in tree.body:
        yield from _names(node, "")


def _names(node: ast.stmt, within: str) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield within + name
        case ast.ClassDef(name=name, body=body):
            yield within + name
            for inner in body:
                yield from _names(inner, f"{name}.")
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield within + name
        case ast.Assign(targets=targets):
            yield from (within + target.id for target in targets if isinstance(target, ast.Name))


@cache
def all_names() -> frozenset[str]:
    """The names that are defined anywhere in the program, in its tests and in its benchmarks."""
    paths = (path for folder in ("router", "pages", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
    return frozenset(name for path in paths for name in names_in(ast.parse(path.read_text("utf-8"))))


def mentions(text: str) -> list[str]:
    """What stands in backticks, blocks of code left out."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))


def not_there(said: Iterable[str], names: AbstractSet[str], targets: AbstractSet[str]) -> list[str]:
    """Files, names and `make` targets that do not exist. Other commands, options and URLs are not looked at."""
    found = []
    for one in said:
        if one.startswith("make "):
            known = one.split()[1] in targets
        elif " " in one or one.startswith(("/", "-")) or one in NOT_OURS:
            known = True
        elif "/" in one or re.fullmatch(r"[\w.-]+\.(md|py|toml|txt|css|json)", one):
            known = bool(list(ROOT.glob(one.rstrip("/").replace("NN", "[0-9][0-9]"))))
        elif re.fullmatch(r"[A-Za-z_][\w.]*", one):
            known = one in names or (ROOT / "router" / one).is_dir() or (ROOT / one).is_dir()
        else:
            known = False
        if not known:
            found.append(one)
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8")))


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_mentions_exists(guide: str) -> None:
    """Renaming a file or a function without its place in the guides fails here."""
    said = mentions((ROOT / guide).read_text("utf-8"))
    assert len(said) > 20
    assert not_there(said, all_names(), make_targets()) == []


def test_the_files_of_the_list_of_faults_exist() -> None:
    """Where a fault is prevented, and where it is tested."""
    files = [one for one in mentions(RELIABILITY) if "/" in one and one != "../"]
    assert len(files) > 100
    assert not_there(files, set(), set()) == []


def test_the_check_sees_what_is_not_there() -> None:
    """The checks above would be worth nothing if they passed everything."""
    wrong = ["router/engines.py", "gone.py", "Router.embeds", "embeds", "make nothing"]
    right = ["router/engine.py", "docs/", "Router.embed", "Router", "domain", "make test", "python -m router"]
    assert not_there([*wrong, *right], all_names(), make_targets()) == wrong
