"""Collections in step with a folder, from the shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from router.sandbox import Sandbox
from tests.cli.conftest import MODEL, Shell

LONG = "The {n}th paragraph says what the {n}th thing is for, and how it is used by the people who need it.\n\n"


@pytest.fixture
def folder(shell: Shell) -> Path:
    """`docs`, with three documents; a policy that pays."""
    docs = shell.folder / "docs"
    (docs / "a").mkdir(parents=True)
    for name in ("one", "two", "a/three"):
        (docs / f"{name}.md").write_text("".join(LONG.format(n=f"{name} {n}") for n in range(40)), "utf-8")
    assert shell("policy", "set", "paid", "--goal", "quality", "--allow", "openai/*", "--budget", "1/month").code == 0
    return docs


def test_only_what_changed_is_paid_for(shell: Shell, openai: Sandbox, folder: Path) -> None:
    """New, changed, unchanged and gone are told first; what is gone is deleted only on demand."""
    first = shell("collections", "add", "docs", str(folder), "--sync", "--policy", "paid", "--model", MODEL, "--embed")
    assert first.code == 0, first.err
    assert "3 new, 0 changed, 0 unchanged, 0 gone" in first.out
    texts = openai.bill().texts

    (folder / "two.md").write_text((folder / "two.md").read_text("utf-8") + LONG.format(n="last"), "utf-8")
    (folder / "four.md").write_text(LONG.format(n="fourth"), "utf-8")
    (folder / "one.md").unlink()
    plan = shell("collections", "add", "docs", str(folder), "--sync")
    assert "1 new, 1 changed, 1 unchanged, 1 gone" in plan.out
    assert "not in the folder any more; --delete deletes: one.md" in plan.out
    assert "two.md replaces the version of " in plan.out
    assert openai.bill().texts == texts
    assert len(shell("collections", "documents", "docs", "--json").json["documents"]) == 5  # the new version waits

    done = shell("collections", "add", "docs", str(folder), "--sync", "--delete", "--embed", "--json").json
    assert (done["gone"], done["deleted"]) == (["one.md"], ["one.md"])
    changed = next(file for file in done["files"] if file["name"] == "two.md")
    assert 0 < changed["replaces"]["new"] <= 2 < changed["replaces"]["texts"]
    assert openai.bill().texts == texts + changed["replaces"]["new"] + 1
    names = [row["name"] for row in shell("collections", "documents", "docs", "--json").json["documents"]]
    assert names == ["a/three.md", "four.md", "two.md"]


def test_a_document_of_another_folder_is_not_replaced_without_a_word(
    shell: Shell, openai: Sandbox, folder: Path
) -> None:
    """The command stops before anything is spent, and says what would be replaced."""
    other = shell.folder / "other"
    shutil.copytree(folder, other)
    (other / "two.md").write_text("Another text altogether.", "utf-8")
    add = ["collections", "add", "docs", "--policy", "paid", "--model", MODEL, "--embed"]
    assert shell(*add, str(folder)).code == 0
    spent = openai.bill().nanodollars
    said = shell(*add, str(other))
    assert said.code == 2
    assert f"two.md replaces two.md of {folder.resolve()}" in said.err
    assert openai.bill().nanodollars == spent
    assert shell("embed", "--collection", "docs", str(other)).code == 2  # it waits, and is asked about again
    assert shell(*add, str(other), "--replace").code == 0
    assert openai.bill().nanodollars > spent


def test_documents_are_removed_by_name(shell: Shell, folder: Path) -> None:
    """A name that is not there removes nothing at all."""
    assert shell("collections", "add", "docs", str(folder)).code == 0
    said = shell("collections", "remove", "docs", "one.md", "nine.md")
    assert (said.code, "has no document 'nine.md'" in said.err) == (2, True)
    assert len(shell("collections", "documents", "docs", "--json").json["documents"]) == 3
    assert shell("collections", "remove", "docs", "one.md", "a/three.md", "--json").json == {
        "deleted": ["one.md", "a/three.md"]
    }
    assert "two.md" in shell("collections", "documents", "docs").out


@pytest.mark.parametrize("args", [("--sync", "one.md"), ("--delete", "docs"), ("--sync", "docs", "docs/a")])
def test_sync_is_of_one_folder(shell: Shell, folder: Path, args: tuple[str, ...]) -> None:
    """Anything else is a mistake."""
    files = [str(shell.folder / arg) for arg in args if not arg.startswith("-")]
    assert shell("collections", "add", "docs", args[0], *files).code == 2


def test_columns_are_named_in_the_shell(shell: Shell, openai: Sandbox) -> None:
    """Several are joined; a nested key; an id column; for quotes, requests and collections alike."""
    path = shell.write("a.jsonl", '{"n": "k1", "m": {"title": "T", "body": "B"}}\n')
    columns = ["--text-column", "m.title", "--text-column", "m.body", "--id-column", "n"]
    assert shell("quote", path, "--model", MODEL, *columns, "--json").json["texts"] == 1
    said = shell("embed", path, "--model", MODEL, *columns, "--out", str(shell.folder / "v.jsonl"), "--with-text")
    assert said.code == 0, said.err
    row = json.loads((shell.folder / "v.jsonl").read_text("utf-8").splitlines()[-1])
    assert (row["id"], row["text"]) == ("k1", "m.title: T\nm.body: B")
    assert shell("collections", "add", "rows", path, *columns).code == 0
    wrong = shell("embed", path, "--model", MODEL, "--text-column", "nothing")
    assert (wrong.code, "has no 'nothing', only: n, m" in wrong.err) == (2, True)
