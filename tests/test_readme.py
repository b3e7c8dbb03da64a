"""The README's commands do what it says that they do; its Python example is run by tests/package."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from router.config import load_settings
from router.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def run_python(words: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """This Python, in that folder."""
    return subprocess.run([sys.executable, *words], env=env, cwd=folder, capture_output=True, text=True, check=False)


def matches(expected: list[str], output: str) -> bool:
    """The expected lines, in order; `...` stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in expected)
    return re.fullmatch(pattern, output) is not None


def test_the_shell_session_prints_what_it_says(tmp_path: Path) -> None:
    """Every command of the session runs against the sandbox and prints the lines shown."""
    (session,) = blocks("console")
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert len(steps) >= 5
    with Sandbox() as sandbox:
        env = {**os.environ, "OPENAI_API_KEY": "readme", "OPENAI_BASE_URL": f"{sandbox.url}/openai/v1"}
        env |= {"COLUMNS": "120", "ROUTER_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
        (tmp_path / "samples").symlink_to(ROOT / "samples")
        for command, expected in steps:
            words = shlex.split(command)
            assert words[0] == "python"
            ran = run_python(words[1:], env, tmp_path)
            assert ran.returncode == 0, ran.stderr
            assert matches(expected.splitlines(), ran.stdout), f"{command}\n{ran.stdout}"


def test_the_configuration_example_is_understood(tmp_path: Path) -> None:
    """`router.toml` as printed loads, with its models in their spaces."""
    (example,) = blocks("toml")
    (tmp_path / "router.toml").write_text(example, encoding="utf-8")
    settings = load_settings(tmp_path, {})
    assert settings.catalog.get("azure/text-embedding-3-small").space == "openai/text-embedding-3-small"
    assert settings.endpoints["openai"].max_in_flight == 16


def test_the_two_commands_exist() -> None:
    """`make run` and `make test` are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
