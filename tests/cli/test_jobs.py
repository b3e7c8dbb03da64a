"""`jobs` and `collections`: a corpus from files to search in the shell, with every state told in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from router.sandbox import Fault, Sandbox
from tests.cli.conftest import MODEL, Shell


@pytest.fixture
def letters(shell: Shell) -> str:
    """A small corpus."""
    return shell.jsonl([f"letter {n} on how to mend the things in the house" for n in range(30)], "letters.jsonl")


def test_an_empty_folder_says_what_to_do_next(shell: Shell) -> None:
    """Both lists name the command that makes the first entry."""
    assert "collections add" in shell("jobs", "list").out
    assert "collections add" in shell("collections", "list").out


def test_a_corpus_is_quoted_first_and_embedded_when_asked(shell: Shell, openai: Sandbox, letters: str) -> None:
    """Without --embed nothing is spent; with it the job runs to its end, and search and export work."""
    quoted = shell("collections", "add", "letters", letters, "--model", MODEL, "--policy", "quality", "--json").json
    assert (quoted["distinct"], quoted["chosen"], quoted["job"]) == (30, MODEL, None)
    assert openai.bill().texts == 0
    added = shell("collections", "add", "letters", letters, "--embed", "--json").json
    assert [file["state"] for file in added["files"]] == ["unchanged"]
    [candidate] = [c for c in added["candidates"] if c["model"] == MODEL]
    assert added["job"]["state"] == "done"
    assert added["job"]["spent_usd"] == candidate["cost_usd"]
    found = shell("collections", "search", "letters", "letter 7", "-k", "3", "--json").json
    assert (len(found["hits"]), found["searched"], found["space"]) == (3, 30, MODEL)
    written = shell("collections", "export", "letters", "out.jsonl", "--with-text", "--json").json
    assert written["written"] == 30
    assert len((shell.folder / "out.jsonl").read_text("utf-8").splitlines()) == 30
    told = shell("collections", "search", "letters", "letter 7")
    assert told.code == 0
    assert "letters.jsonl#t" in told.out
    assert [job["id"] for job in shell("jobs", "list", "--json").json["jobs"]] == [1]
    assert shell("collections", "delete", "letters").code == 0
    assert shell("collections", "list", "--json").json == {"collections": []}


def test_embed_fills_a_collection_and_runs_its_job(shell: Shell, openai: Sandbox, letters: str, tmp_path: Path) -> None:
    """What it says of a file it says of a collection; again it costs nothing; `--out` has every vector."""
    guide = shell.write("guide.md", "# A guide\n\nto the mending of kettles and of pans\n")
    options = ("--collection", "all things", "--json")
    quoted = shell("quote", letters, guide, *options, "--model", MODEL, "--policy", "quality")
    assert quoted.code == 0
    assert (quoted.json["texts"], quoted.json["chosen"], quoted.json["job"]) == (31, MODEL, None)
    assert shell("collections", "list", "--json").json == {"collections": []}
    said = shell("embed", letters, guide, *options, "--model", MODEL, "--policy", "quality", "--out", "v.parquet")
    assert said.code == 0
    found = said.json
    [candidate] = [c for c in quoted.json["candidates"] if c["model"] == MODEL]
    assert found["cost_usd"] == candidate["cost_usd"] == found["job"]["spent_usd"]
    assert (found["texts"], found["distinct"], found["refused"], found["out"]) == (31, 31, 0, "v.parquet")
    assert found["routes"] == {"cache": 0, "local": 0, "api": 31, "batch": 0}
    assert pq.read_metadata(tmp_path / "v.parquet").num_rows == 31
    bill = openai.bill()
    more = shell.jsonl(["a letter that is new"], "more.jsonl")
    assert shell("quote", more, *options).json["distinct"] == 1
    assert shell("quote", *options).json["texts"] == 31
    again = shell("embed", more, letters, *options).json
    assert again["routes"] == {"cache": 31, "local": 0, "api": 1, "batch": 0}
    assert [file["state"] for file in again["files"]] == ["added", "unchanged"]
    assert openai.bill().texts == bill.texts + 1
    assert shell("embed", *options).json["routes"]["cache"] == 32
    assert "by api" in shell("embed", "--collection", "all things").out
    for wrong in (("--policy", "local"), ("--dimensions", "256"), ("--model", "openai/text-embedding-3-large")):
        assert shell("embed", more, "--collection", "all things", *wrong).code == 2


def test_embed_ends_with_the_codes_of_a_file(shell: Shell, openai: Sandbox, letters: str) -> None:
    """3 where money stops the job, 2 where a file cannot be read, and it says which."""
    openai.faults.add(Fault("quota", times=None))
    said = shell("embed", letters, "--collection", "letters", "--model", MODEL, "--policy", "quality", "--json")
    assert (said.code, said.json["job"]["state"], said.json["refused"]) == (3, "paused", 30)
    openai.faults.clear()
    assert shell("embed", "--collection", "letters", "--json").json["refused"] == 0
    broken = shell.write("broken.pdf", b"%PDF-1.4 and nothing of one")
    said = shell("embed", broken, "--collection", "letters")
    assert (said.code, "broken.pdf" in said.err) == (2, True)
    said = shell("embed", broken, "--collection", "new", "--policy", "local")
    assert (said.code, "broken.pdf cannot be read" in said.err) == (2, True)


def test_a_paused_job_is_told_and_goes_on(shell: Shell, openai: Sandbox, letters: str) -> None:
    """A quota that ran out pauses the job (exit 3); after `resume`, `jobs work --once` ends it."""
    openai.faults.add(Fault("quota", times=None))
    args = ("--model", MODEL, "--policy", "quality", "--embed", "--json")
    added = shell("collections", "add", "letters", letters, *args)
    assert added.code == 3
    assert added.json["job"]["state"] == "paused"
    told = shell("jobs", "list")
    assert "paused" in told.out
    assert shell("jobs", "work", "--once").code == 1
    openai.faults.clear()
    assert shell("jobs", "resume", "1", "--json").json["state"] == "queued"
    assert shell("jobs", "work", "--once").code == 0
    shown = shell("jobs", "show", "1", "--json").json
    assert (shown["state"], shown["done"], shown["failures"]) == ("done", 30, [])
    assert shell("jobs", "cancel", "1").code == 2
    assert shell("jobs", "show", "9").code == 2


def test_embedding_into_a_collection_leaves_the_jobs_of_others_alone(
    shell: Shell, openai: Sandbox, letters: str
) -> None:
    """A job that was stopped and resumed waits for `jobs work`: no other command spends its money."""
    openai.faults.add(Fault("quota", times=None))
    shell("collections", "add", "letters", letters, "--model", MODEL, "--policy", "quality", "--embed")
    openai.faults.clear()
    assert shell("jobs", "resume", "1", "--json").json["state"] == "queued"
    other = shell.write("other.txt", "one text of somebody else")
    said = shell("embed", other, "--collection", "other", "--model", MODEL, "--json").json
    assert (said["job"]["state"], said["distinct"], said["avoided_usd"]) == ("done", 1, "0.000000000")
    shown = shell("jobs", "show", "1", "--json").json
    assert (shown["state"], shown["done"]) == ("queued", 0)
    assert openai.bill().texts == 1


def test_a_file_that_cannot_be_read_does_not_stop_the_others(shell: Shell, letters: str) -> None:
    """It is told on stderr with its reason, and the exit code is 1."""
    broken = shell.write("broken.pdf", b"%PDF-1.4 and nothing of one")
    said = shell("collections", "add", "letters", letters, broken, "--policy", "local")
    assert said.code == 1
    assert "broken.pdf" in said.err
    assert "30 chunks" in said.out


def test_texts_of_others_cannot_drive_the_terminal(shell: Shell, openai: Sandbox, tmp_path: Path) -> None:
    """Control characters in ids, names and texts are printed escaped."""
    rows = [json.dumps({"id": "a\x1b[31m", "text": "a letter \x1b]0;title\x07 with escapes in it"})]
    path = shell.write("odd.jsonl", "\n".join(rows))
    shell("collections", "add", "letters", path, "--model", MODEL, "--policy", "quality", "--embed")
    said = shell("collections", "search", "letters", "letter")
    assert "\x1b" not in said.out + said.err
    assert "letter" in said.out
