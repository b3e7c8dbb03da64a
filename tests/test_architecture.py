"""The shape of the code: who may import whom, what is loaded at the start, and what may not be written at all.

Each rule is a function from source text to violations, which is tried on bad source first.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = sorted([ROOT / "app.py", *(ROOT / "pages").rglob("*.py"), *(ROOT / "router").rglob("*.py")])
HEAVY = {
    *("cohere", "openai", "pandas", "plotly", "pyarrow", "sentence_transformers", "sklearn", "streamlit"),
    *("tokenizers", "torch", "transformers", "voyageai"),
}

SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT(\s+OR\s+\w+)?\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|PRAGMA\s|BEGIN\s+IMMEDIATE"
    r"|(CREATE|ALTER|DROP)\s+(UNIQUE\s+|VIRTUAL\s+)?(TABLE|INDEX|TRIGGER|VIEW))\b",
    re.DOTALL,
)
INTERNAL = {"database", "estimates", "ledger", "limiters", "corpora"}
"""Parts of a router or a library that the pages and the shell leave alone; no other object has parts of these names."""
AMBIGUOUS = {"cache": "router", "providers": "router", "jobs": "library"}
"""... and names that other objects have too, with the object that is meant."""

PRIVATE_OF_OTHERS = {"router/ingest/pdf.py"}
"""pypdf says by private names only which encodings it can read."""


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


def sql_in(source: str) -> Iterator[str]:
    """SQL statements in strings, f-strings included, docstrings not, and calls of a connection's `execute`."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                docs |= {id(part) for part in values}
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in values)
            case ast.Constant(value=str(text)):
                pass
            case ast.Call(func=ast.Attribute(attr="execute" | "executemany" | "executescript")):
                yield f"line {node.lineno}: a call of execute"
                continue
            case _:
                continue
        if id(node) not in docs and SQL.search(text):
            yield f"line {node.lineno}: SQL"


def imports_of(module: str, source: str, known: set[str]) -> set[str]:
    """The modules among `known` that a module imports, inside functions and for types only too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            named = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in known else base for name in named}
    return found & known


def cycles(sources: Mapping[str, str]) -> list[list[str]]:
    """Groups of modules that import each other, in a ring or on the way of one; `sources` by module name."""
    graph = {module: imports_of(module, source, set(sources)) for module, source in sources.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for module in graph[left.pop()] - seen:
                seen.add(module)
                left.append(module)
        return seen

    behind = {module: reached(module) for module in graph}
    groups = {tuple(sorted(b for b in behind[a] if a in behind[b])) for a in graph if a in behind[a]}
    return sorted(map(list, groups))


def private_in(source: str) -> Iterator[str]:
    """Private attributes of other objects, and private names of other modules."""
    tree = ast.parse(source)
    own = {name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in _bound_by(node)}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=names):
                for alias in names:
                    if _private(alias.name):
                        yield f"line {node.lineno}: {alias.name}"
            case ast.Attribute(value=value, attr=attr) if _private(attr) and attr not in own:
                if not (isinstance(value, ast.Name) and value.id in {"self", "cls"}):
                    yield f"line {node.lineno}: {ast.unparse(node)}"


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_") and name not in {"_asdict", "_replace", "_fields"}


def _bound_by(node: ast.ClassDef) -> Iterator[str]:
    """Names that a class binds in itself or on `self`."""
    for one in ast.walk(node):
        match one:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def insides_in(source: str) -> Iterator[str]:
    """Parts of a router or a library that are not for the pages and the shell."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if node.attr in INTERNAL or AMBIGUOUS.get(node.attr, "-") == name.lstrip("_"):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def module_of(path: Path) -> str:
    """The dotted name of a file of ours."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def found_in(rule: Callable[[str], Iterator[str]], *, but: Collection[str] = ()) -> dict[str, list[str]]:
    """What a rule finds in the program, by file."""
    paths = {path.relative_to(ROOT).as_posix(): path for path in OURS}
    found = {where: list(rule(path.read_text())) for where, path in paths.items() if where not in but}
    return {where: faults for where, faults in found.items() if faults}


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
    assert found_in(faults_in) == {}


@pytest.mark.parametrize(
    "source",
    [
        "rows = f('SELECT id FROM jobs')",
        "rows = f(f'SELECT {names} FROM jobs WHERE id = ?')",
        "f('SELECT id'\n  ' FROM jobs')",
        "f('INSERT OR IGNORE INTO jobs VALUES (?)')",
        "f('UPDATE jobs SET state = ?')",
        "f(f'DELETE FROM {table}')",
        "f('CREATE UNIQUE INDEX x ON jobs (id)')",
        "f('PRAGMA mmap_size')",
        "f('BEGIN IMMEDIATE')",
        "conn.execute(statement)",
    ],
)
def test_the_check_sees_sql(source: str) -> None:
    """Whole, in parts, and with names put in."""
    assert list(sql_in(source))


def test_the_check_takes_no_words_for_sql() -> None:
    """Docstrings and plain sentences."""
    assert (
        list(sql_in("def f():\n    '''SELECT a FROM b.'''\n    raise E('Select one from the list; update it.')")) == []
    )


def test_sql_is_in_the_store_only() -> None:
    """So that another database can take its place."""
    found = found_in(sql_in)
    assert {where: faults for where, faults in found.items() if not where.startswith("router/store/")} == {}


@pytest.mark.parametrize(
    ("sources", "ring"),
    [
        ({"p.a": "import p.b", "p.b": "from p import a", "p.c": "from p import a"}, ["p.a", "p.b"]),
        ({"p.a": "def f():\n    from p.b import x", "p.b": "from .a import y"}, ["p.a", "p.b"]),
        ({"p.a": "if TYPE_CHECKING:\n    from p.b import x", "p.b": "from p.c import x", "p.c": "import p.a"},
         ["p.a", "p.b", "p.c"]),
    ],
)  # fmt: skip
def test_the_check_sees_a_cycle(sources: dict[str, str], ring: list[str]) -> None:
    """Inside functions and for types only too; what leads into a ring is not of it."""
    assert cycles(sources) == [ring]


def test_no_modules_import_each_other() -> None:
    """Inside a package either."""
    assert cycles({module_of(path): path.read_text() for path in OURS}) == []


@pytest.mark.parametrize(
    "source", ["x._y", "self._router._tasks", "host().router._plan()", "from router.engine import _ask"]
)
def test_the_check_sees_a_private_name(source: str) -> None:
    """Of another object or module."""
    assert list(private_in(source))


def test_the_check_lets_a_class_use_its_own_private_names() -> None:
    """On itself and on another object of its kind."""
    source = "class A:\n    def f(self, other):\n        self._x = other._x\n        return self._g() + self.__dict__"
    assert list(private_in(source)) == []


def test_private_names_stay_private() -> None:
    """Nobody reaches into another object."""
    assert found_in(private_in, but=PRIVATE_OF_OTHERS) == {}


@pytest.mark.parametrize(
    "source",
    [
        "router.ledger.totals()",
        "host().router.ledger",
        "host.library.jobs.all()",
        "self.library.corpora",
        "router.cache.size()",
        "access.router().providers",
        "short.database",
    ],
)
def test_the_check_sees_who_reaches_into_the_engine(source: str) -> None:
    """By whatever name it goes."""
    assert list(insides_in(source))


def test_the_check_lets_other_things_have_such_names() -> None:
    """A route, a module, a list."""
    assert list(insides_in("routes.cache + avoided.cache\nimport router.providers\npages.jobs")) == []


def test_the_pages_and_the_shell_use_the_public_methods() -> None:
    """Of Router and Library, and not what is inside."""
    found = found_in(insides_in)
    assert {where: faults for where, faults in found.items() if where.startswith(("pages/", "router/cli/"))} == {}


def lint_imports(folder: Path) -> tuple[bool, str]:
    """Whether the contracts of pyproject.toml hold in a folder, and what import-linter says."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("where", "source", "says"),
    [
        ("router/store/up.py", "import router.engine", "router.store is not allowed to import router.engine"),
        ("router/domain/io.py", "import socket", "router.domain is not allowed to import socket"),
        ("router/novel.py", "", "not listed as layers"),
    ],
)
def test_the_contracts_see_an_import_upwards(tmp_path: Path, where: str, source: str, says: str) -> None:
    """And a package that nobody gave a place."""
    shutil.copytree(ROOT / "router", tmp_path / "router", ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / where).write_text(source)
    kept, output = lint_imports(tmp_path)
    assert not kept
    assert says in " ".join(output.split())


def test_imports_point_down_only() -> None:
    """The contracts in pyproject.toml: layers, a domain without I/O, providers that know nobody."""
    kept, output = lint_imports(ROOT)
    assert kept, output


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
