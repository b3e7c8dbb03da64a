"""The command line in this process, on a data folder of its own, with a sandbox for the paid routes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from router.cli import app
from router.sandbox import Sandbox

MODEL = "openai/text-embedding-3-small"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there, or on stderr, is an error."""
        assert self.err == ""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


class Shell:
    """Runs commands in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *args: str) -> Said:
        result = CliRunner().invoke(app, list(args))
        assert "Traceback" not in result.output
        return Said(code=result.exit_code, out=result.stdout, err=result.stderr)

    def write(self, name: str, content: str | bytes) -> str:
        """Make a file; its path."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def jsonl(self, texts: Sequence[str], name: str = "texts.jsonl") -> str:
        """A file of these texts under the ids `t0`, `t1`, ...; its path."""
        rows = [json.dumps({"id": f"t{at}", "text": text}) for at, text in enumerate(texts)]
        return self.write(name, "\n".join(rows) + "\n")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty folder, with an empty data folder and no keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROUTER_DATA", str(tmp_path / "data"))
    return Shell(tmp_path)


@pytest.fixture
def openai(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The provider; OpenAI, and nobody else, is reached there."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-key")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/openai/v1")
    return sandbox
