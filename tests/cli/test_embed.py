"""`embed` over paid routes: what is billed, booked, written and said."""

from __future__ import annotations

import json
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from router.sandbox import Fault, Sandbox, expected_vectors

SMALL = "openai/text-embedding-3-small"
CONTRACT = {
    *("texts", "distinct", "repeated", "skipped", "refused", "routes", "model", "space", "dimensions", "tokens"),
    *("cost_usd", "avoided_usd", "decision"),
}


def nano(usd: str) -> int:
    """Nanodollars of an amount in JSON, which has nine decimals."""
    assert len(usd.split(".")[1]) == 9
    return int(Decimal(usd) * 10**9)


def vectors_in(path: Path) -> dict[str, NDArray[np.float32]]:
    """Id -> vector of a Parquet file."""
    rows = pq.read_table(path).to_pydict()
    return {key: np.array(v, np.float32) for key, v in zip(rows["id"], rows["vector"], strict=True)}


def test_the_ledger_equals_the_bill_and_nothing_is_paid_twice(shell, openai: Sandbox, tmp_path: Path) -> None:
    """A second run costs and calls nothing, and neither does a third at fewer dimensions; repeats are not billed."""
    texts = [f"the wing of aeroplane {n % 30}" for n in range(40)]
    file = shell.jsonl(texts)
    shell("policy", "set", "quality", "--budget", "1/month")
    first = shell("embed", file, "--policy", "quality", "--out", "one.parquet", "--json")
    said, bill = first.json, openai.bill()
    assert first.code == 0
    assert set(said) >= CONTRACT
    assert said["model"] == "openai/text-embedding-3-large"
    assert (said["texts"], said["distinct"], said["repeated"], said["refused"]) == (40, 30, 10, 0)
    assert said["routes"] == {"cache": 0, "local": 0, "api": 30, "batch": 0}
    assert bill.nanodollars == nano(said["cost_usd"]) == nano(shell("spend", "--json").json["settled_usd"]) > 0
    assert bill.texts == 30

    again = shell("embed", file, "--policy", "quality", "--json").json
    smaller = shell("embed", file, "--policy", "quality", "--dimensions", "512", "--out", "two.parquet", "--json").json
    assert [nano(run["cost_usd"]) for run in (again, smaller)] == [0, 0]
    assert again["routes"] == smaller["routes"] == {"cache": 30, "local": 0, "api": 0, "batch": 0}
    assert nano(again["avoided_usd"]) > nano(said["cost_usd"])  # the repeats as well
    assert openai.bill() == bill

    large, small = vectors_in(tmp_path / "one.parquet"), vectors_in(tmp_path / "two.parquet")
    assert list(large) == list(small) == [f"t{n}" for n in range(40)]
    for key, vector in large.items():
        assert small[key] == pytest.approx(vector[:512] / np.linalg.norm(vector[:512]), abs=1e-6)


def test_cached_new_repeated_empty_and_bad_rows_keep_their_ids(shell, openai: Sandbox, tmp_path: Path) -> None:
    """Every vector stands beside the id of its own text; rows that are refused are not written and are named."""
    shell("embed", shell.jsonl(["b", "d"], "before.jsonl"), "--model", SMALL)
    texts = ["a", "b", "", "nul\0", "c", "a", " \t", "d", "half \ud83d", "b"]
    said = shell("embed", shell.jsonl(texts), "--model", SMALL, "--out", "v.parquet", "--json")
    assert said.code == 2
    found = said.json
    assert (found["texts"], found["distinct"], found["repeated"], found["skipped"], found["refused"]) == (8, 4, 2, 2, 2)
    assert found["routes"] == {"cache": 2, "local": 0, "api": 2, "batch": 0}
    assert found["skipped_rows"] == ["t2", "t6"]
    assert [(p["id"], p["row"]) for p in found["problems"]] == [("t3", 4), ("t8", 9)]
    assert found["problems"][0]["reason"].startswith("It has a NUL character")
    assert "surrogate" in found["problems"][1]["reason"]
    written = vectors_in(tmp_path / "v.parquet")
    good = {f"t{at}": text for at, text in enumerate(texts) if at in (0, 1, 4, 5, 7, 9)}
    assert list(written) == list(good)
    wanted = expected_vectors(SMALL, list(good.values()))
    assert np.stack(list(written.values())) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("when", ["refuse", "wait"])
def test_a_hard_budget_is_filled_and_names_the_rest(shell, openai: Sandbox, tmp_path: Path, when) -> None:
    """Ten calls and money for five and a half: just that is billed, every other row is named, nothing is over."""
    texts = [f"text number {n:02}" for n in range(40)]
    file = shell.jsonl(texts)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "router.toml").write_text("[providers.openai]\nmax_texts_per_call = 4\n")
    whole = next(c for c in shell("quote", file, "--json").json["candidates"] if c["model"] == SMALL)
    budget = nano(whole["cost_usd"]) * 55 // 100
    shell("policy", "set", "half", "--budget", f"{budget / 1e9:.9f}/total", "--when-exhausted", when, "--allow", SMALL)

    said = shell("embed", file, "--policy", "half", "--out", "v.parquet", "--json")
    bill = openai.bill()
    assert said.code == 3
    found = said.json
    assert (bill.calls, bill.texts) == (6, 22)
    assert bill.nanodollars == nano(found["cost_usd"]) == nano(shell("spend", "--json").json["settled_usd"]) <= budget
    assert (found["distinct"], found["refused"], found["routes"]["api"]) == (22, 18, 22)
    refused = {p["id"] for p in found["problems"]}
    written = set(vectors_in(tmp_path / "v.parquet"))
    assert refused | written == {f"t{n}" for n in range(40)}
    assert refused & written == set()
    assert all("half" in p["reason"] for p in found["problems"])

    again = shell("embed", file, "--policy", "half", "--out", "w.parquet", "--json")
    assert again.code == 3
    assert again.json["routes"] == {"cache": 22, "local": 0, "api": 0, "batch": 0}
    assert set(vectors_in(tmp_path / "w.parquet")) == written
    assert openai.bill() == bill
    people = shell("embed", file, "--policy", "half")
    assert people.code == 3
    assert all(f"(id {key})" in people.err for key in refused)


@pytest.mark.slow
def test_a_file_that_does_not_fit_goes_local_as_a_whole(shell, openai: Sandbox) -> None:
    """Half of it could be paid for; two spaces in one file could not be compared."""
    file = shell.jsonl([f"text number {n}" for n in range(8)])
    shell("policy", "set", "half", "--goal", "quality", "--budget", "0.0000002/total", "--when-exhausted", "local")
    said = shell("embed", file, "--policy", "half", "--json")
    assert said.code == 0
    assert said.json["space"] == "local/all-MiniLM-L6-v2"
    assert said.json["routes"] == {"cache": 0, "local": 8, "api": 0, "batch": 0}
    assert openai.bill().requests == 0


def test_nothing_answered_writes_nothing(shell, openai: Sandbox, tmp_path: Path) -> None:
    """With no money at all every row is named, exit 3, and no file appears."""
    shell("policy", "set", "none", "--budget", "0/total", "--when-exhausted", "refuse", "--allow", SMALL)
    said = shell("embed", shell.jsonl(["a", "b"]), "--policy", "none", "--out", "v.parquet", "--json")
    assert said.code == 3
    assert (said.json["refused"], said.json["out"]) == (2, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "texts.jsonl"]
    assert openai.bill().requests == 0


def test_a_provider_that_fails_is_exit_1(shell, openai: Sandbox, tmp_path: Path) -> None:
    """A key that the provider rejects: the rows are named, nothing is written or charged."""
    openai.configure(key="another")
    said = shell("embed", shell.jsonl(["a", "b"]), "--model", SMALL, "--out", "v.parquet", "--json")
    assert said.code == 1
    assert [p["id"] for p in said.json["problems"]] == ["t0", "t1"]
    assert not (tmp_path / "v.parquet").exists()
    assert openai.bill().nanodollars == nano(shell("spend", "--json").json["settled_usd"]) == 0


def test_a_text_that_the_provider_rejects_is_named_and_the_rest_is_written(shell, openai: Sandbox, tmp_path) -> None:
    """One poisonous text does not take its neighbours along."""
    openai.faults.add(Fault("poison", match="bad", times=None))
    said = shell("embed", shell.jsonl(["a", "bad", "c"]), "--model", SMALL, "--out", "v.jsonl", "--json")
    assert said.code == 1
    assert [p["id"] for p in said.json["problems"]] == ["t1"]
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["t0", "t2"]
    assert {(row["space"], row["model"], row["dimensions"]) for row in rows} == {(SMALL, SMALL, 1536)}
    openai.faults.clear()


def test_a_megabyte_is_split_or_refused_never_cut_in_silence(shell, openai: Sandbox, tmp_path: Path) -> None:
    """Split it has one vector, refused it is exit 2 and costs nothing, cut it is said so."""
    file = shell.jsonl(["word " * 200_000])
    refused = shell("embed", file, "--model", SMALL, "--long-texts", "refuse", "--out", "v.parquet")
    assert refused.code == 2
    assert "200,001 tokens; openai/text-embedding-3-small takes 8,192" in refused.err
    assert openai.bill().requests == 0
    assert not (tmp_path / "v.parquet").exists()
    cut = shell("embed", file, "--model", SMALL, "--long-texts", "cut", "--json").json
    assert (cut["cut"], cut["cut_rows"]) == (1, ["t0"])
    split = shell("embed", file, "--model", SMALL, "--json").json
    assert (split["routes"]["api"], split["cut"]) == (1, 0)
    assert nano(split["cost_usd"]) + nano(cut["cost_usd"]) == openai.bill().nanodollars


@pytest.mark.parametrize("ending", ["npz", "jsonl", "parquet"])
def test_texts_are_written_where_asked(shell, openai: Sandbox, tmp_path: Path, ending: str) -> None:
    """`--with-text` in each kind of file."""
    assert shell("embed", shell.jsonl(["a", "é"]), "--model", SMALL, "--with-text", "--out", f"v.{ending}").code == 0
    path = tmp_path / f"v.{ending}"
    if ending == "npz":
        texts = np.load(path, allow_pickle=False)["text"].tolist()
    elif ending == "parquet":
        texts = pq.read_table(path).to_pydict()["text"]
    else:
        texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert texts == ["a", "é"]


def test_a_document_is_chunked(shell, openai: Sandbox) -> None:
    """Chunks are named after the document; one of nothing but marks is skipped."""
    words = " ".join(f"word{n}" for n in range(400))
    file = shell.write("guide.md", f"# Title\n\n{words}\n\n# Next\n\n{words} again\n")
    found = shell("embed", file, "--model", SMALL, "--out", "v.jsonl", "--json").json
    ids = [json.loads(line)["id"] for line in (shell.folder / "v.jsonl").read_text().splitlines()]
    assert found["texts"] == len(ids) > 2
    assert ids == [f"guide.md#{n}" for n in range(1, len(ids) + 1)]


def test_a_broken_line_is_named_and_the_others_are_written(shell, openai: Sandbox, tmp_path: Path, monkeypatch) -> None:
    """Exit 2, the others are embedded, the sums include it; of many only the first are named."""
    file = shell.write("x.jsonl", '{"text": "a"}\n{"text": }\n{"text": "b"}\n' + "5\n" * 3)
    said = shell("embed", file, "--model", SMALL, "--out", "v.parquet", "--json")
    assert said.code == 2
    found = said.json
    assert (found["texts"], found["distinct"], found["refused"]) == (6, 2, 4)
    assert found["problems"][0] == {"id": "2", "row": 2, "reason": "It is not valid JSON: Expecting value."}
    assert list(vectors_in(tmp_path / "v.parquet")) == ["1", "3"]
    monkeypatch.setattr("router.cli.rows.MOST_BROKEN", 2)
    people = shell("embed", file, "--model", SMALL)
    assert people.err.splitlines()[0] == "line 2 (id 2): It is not valid JSON: Expecting value."
    assert people.err.splitlines()[2:] == ["... and 2 more.", "4 of 6 texts were not embedded."]
    assert shell("quote", file, "--model", SMALL, "--json").code == 2


def test_several_files_folders_and_zips_are_one_request(shell, openai: Sandbox, tmp_path: Path) -> None:
    """Ids tell the files apart; a file that cannot be read is named, exit 2, and the others go on."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "guide.md").write_text("# A guide to the mending of kettles\n")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing of one")
    archive = tmp_path / "more.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("lines.txt", "one\ntwo\n")
    said = shell("embed", shell.jsonl(["a"]), str(folder), str(archive), "--model", SMALL, "--out", "v.npz", "--json")
    assert said.code == 2
    assert [p["id"] for p in said.json["problems"]] == ["broken.pdf"]
    ids = np.load(tmp_path / "v.npz", allow_pickle=False)["id"].tolist()
    assert ids == ["texts.jsonl#t0", "guide.md#1", "lines.txt#1", "lines.txt#2"]
    assert openai.bill().texts == 4
    assert shell("quote", str(folder), "--model", SMALL, "--json").json["texts"] == 1


def test_people_are_told_route_cost_and_what_was_skipped(shell, openai: Sandbox) -> None:
    """Without --json the same in words; what is wrong with rows goes to stderr."""
    said = shell("embed", shell.jsonl(["a", "", "a"]), "--model", SMALL)
    assert said.code == 0
    assert "2 of 2 texts answered: 1 distinct, 1 repeated" in said.out
    assert "0 cache, 0 local, 1 api, 0 batch" in said.out
    assert said.err == "1 row is empty and skipped: t1\n"


def test_an_id_cannot_drive_the_terminal(shell, openai: Sandbox) -> None:
    """Escape sequences of a file are shown, not sent."""
    file = shell.write("x.jsonl", json.dumps({"id": "\x1b[2J", "text": "nul\0"}) + "\n")
    said = shell("embed", file, "--model", SMALL)
    assert "\x1b" not in said.out + said.err
    assert "\\x1b[2J" in said.err
