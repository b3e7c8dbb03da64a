"""What people get wrong: said clearly, with the right exit code, and nothing charged or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.cli import embed as embed_command
from router.sandbox import Sandbox

SMALL = "openai/text-embedding-3-small"
FILES = {
    "missing.txt": (None, "There is no file"),
    "program.exe": (b"MZ", "files ending in '.exe' are not supported"),
    "texts": (b"a", "not supported"),
    "pack.zip": (b"PK", "broken zip"),
    "nothing.txt": (b"", "is empty"),
    "blank.txt": (b"\n \n\n", "all of its 3 rows are empty"),
    "header.csv": (b"id,text\n", "it has no rows"),
    "other.csv": (b"id,words\n1,a\n", "no column 'text'"),
    "broken.jsonl": (b'\n{"text": }\n', "line 2: It is not valid JSON"),
    "broken.json": (b'["a",\n"b"', "line 2"),
    "number.jsonl": (b'{"text": 5}\n', "line 1"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "broken.parquet": (b"PAR1", "broken Parquet"),
    "nul.jsonl": (json.dumps({"text": "a\0b"}).encode(), "NUL character at byte 2"),
    "half.jsonl": (b'{"text": "a\\ud83d"}', "surrogate"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_exit_2(shell, openai: Sandbox, name: str) -> None:
    """The message says what is wrong and where; nothing is sent, nothing is written."""
    content, words = FILES[name]
    file = name if content is None else shell.write(name, content)
    said = shell("embed", file, "--model", SMALL, "--out", "v.parquet")
    assert said.code == 2
    assert words in said.err
    assert openai.bill().requests == 0
    assert not Path("v.parquet").exists()


OPTIONS = {
    "--model openai/none": "There is no model 'openai/none'",
    "--policy none": "There is no policy 'none'",
    "--role title": "There is no role 'title'",
    "--dimensions 0": "0 dimensions",
    "--dimensions -3": "-3 dimensions",
    "--dimensions 4000": "does not serve 4000 dimensions",
    "--dimensions many": "valid integer",
    "--long-texts shred": "'shred'",
    "--collection books --role query": "a role and a policy of its own",
    "--collection books --long-texts cut": "a role and a policy of its own",
    "--out v.csv": "v.csv",
    "--out nowhere/v.parquet": "no folder nowhere",
    "--out texts.jsonl": "the file to read",
    "--colour blue": "--colour",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_bad_option_is_exit_2(shell, openai: Sandbox, options: str) -> None:
    """Found out before anything is spent; --json says it in one object."""
    file = shell.jsonl(["a"])
    before = Path(file).read_bytes()
    arguments = ["embed", file, *(() if "--model" in options else ("--model", SMALL)), *options.split()]
    said = shell(*arguments)
    assert said.code == 2
    assert OPTIONS[options] in " ".join(said.err.split())
    assert said.out == ""
    machine = shell(*arguments, "--json")
    assert machine.code == 2
    assert OPTIONS[options] in machine.json["error"]["message"]
    assert set(machine.json["error"]) == {"message", "hint", "kind"}
    assert openai.bill().requests == 0
    assert Path(file).read_bytes() == before


def test_a_file_that_cannot_be_opened_is_exit_2(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is passed on; it is not an internal error."""

    def deny(path: Path, columns: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("router.ingest.extract.read_rows", deny)
    said = shell("embed", "a.txt")
    assert (said.code, said.err.splitlines()[0]) == (2, "a.txt cannot be read: Permission denied.")


def test_a_folder_is_no_file(shell) -> None:
    """Not an internal error either."""
    Path("folder.txt").mkdir()
    assert shell("embed", "folder.txt").code == 2


@pytest.mark.parametrize("command", ["embed", "quote"])
def test_no_file_at_all_is_exit_2(shell, command: str) -> None:
    """Nor a collection that is not there."""
    said = shell(command)
    assert (said.code, "There is no FILE" in said.err) == (2, True)
    said = shell(command, "--collection", "none")
    assert (said.code, "There is no collection 'none'" in said.err) == (2, True)


def test_no_key_for_a_paid_model_is_refused(shell) -> None:
    """Exit 3, and the provider is named."""
    said = shell("embed", shell.jsonl(["a"]), "--model", SMALL, "--out", "v.parquet", "--json")
    assert said.code == 3
    assert "no key for openai" in said.json["error"]["message"]
    assert "key" in said.json["error"]["hint"]
    assert not Path("v.parquet").exists()


def test_a_data_folder_that_is_a_file_is_exit_1(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's mistake is named, not traced."""
    monkeypatch.setenv("ROUTER_DATA", shell.write("taken", "x"))
    said = shell("spend")
    assert said.code == 1
    assert "taken" in said.err


def test_a_broken_router_toml_is_exit_2(shell) -> None:
    """The file, the table and the key are named."""
    Path("data").mkdir()
    Path("data/router.toml").write_text("[providers.openai]\nmax_texts = 4\n")
    said = shell("spend")
    assert said.code == 2
    assert "router.toml, [providers.openai], key `max_texts`: unknown key" in said.err


def test_an_unknown_command_is_exit_2(shell) -> None:
    """For people and machines."""
    assert shell("embde").code == 2
    assert shell("embde", "--json").json["error"]["kind"] == "Usage"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (ZeroDivisionError("by zero"), 1, "Internal error: ZeroDivisionError: by zero"),
        (PermissionError(13, "Permission denied", "x.db"), 1, "x.db: Permission denied"),
    ],
)
def test_no_error_ever_shows_a_traceback(shell, monkeypatch: pytest.MonkeyPatch, error, code: int, words: str) -> None:
    """One line or two and an exit code; how to see more is said."""

    def fail(path: Path, columns: object) -> None:
        raise error

    monkeypatch.setattr(embed_command, "read_files", fail)
    said = shell("embed", "a.txt")
    assert said.code == code
    assert said.err.startswith(words)
    assert said.out == ""
    assert shell("embed", "a.txt", "--json").json["error"]["message"].startswith(words)
