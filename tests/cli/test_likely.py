"""Likely and most, in the shell: which model is chosen, what is said of it, and how far off it was."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from router.sandbox import Sandbox
from tests.tokenizers import COUNTING

QUERIES = Path(__file__).resolve().parents[2] / "samples" / "queries.jsonl"
LITE = "voyage/voyage-4-lite"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Sandbox:
    """Every provider has a key, and is reached on loopback."""
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    return sandbox


def test_economy_takes_the_better_model_at_the_same_likely_price(shell, keys: Sandbox) -> None:
    """voyage-4-lite, though the most that it can cost is six times what text-embedding-3-small costs."""
    shell("policy", "set", "thrifty", "--goal", "economy", "--min-quality", "50")
    said = shell("quote", str(QUERIES), "--policy", "thrifty", "--json")
    assert said.code == 0
    assert said.json["chosen"] == LITE
    by_model = {one["model"]: one for one in said.json["candidates"]}
    lite, small = by_model[LITE], by_model["openai/text-embedding-3-small"]
    assert Decimal(lite["expected_usd"]) <= Decimal(small["expected_usd"]) == Decimal(small["cost_usd"])
    assert Decimal(lite["cost_usd"]) > 5 * Decimal(small["cost_usd"])
    assert ", likely $0.0000" in said.json["decision"]
    assert ", at most $0.0000" in said.json["decision"]
    people = shell("quote", str(QUERIES), "--policy", "thrifty")
    assert f"go to {LITE} over its API, likely $0.0000" in people.out
    assert keys.bill().calls == 0


def test_embed_and_the_drill_down_tell_both(shell, keys: Sandbox) -> None:
    """`cost_usd` of `embed` is what was billed, and of a candidate the most."""
    said = shell("embed", shell.jsonl(["a b c", "d e f"]), "--model", LITE, "--json").json
    assert said["cost_usd"] == said["expected_usd"] == f"0.{keys.bill().nanodollars:09d}"
    from router.store.database import connect

    (found,) = connect(shell.folder / "data" / "router.db").execute("SELECT candidates FROM requests").fetchone()
    (chosen,) = [one for one in json.loads(found) if one["chosen"]]
    assert chosen["expected_usd"] == said["expected_usd"]
    assert Decimal(chosen["cost_usd"]) > 5 * Decimal(chosen["expected_usd"])


def test_doctor_says_how_far_the_expected_cost_was_off(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """By model, over the calls that were learned from, each judged before; nothing before there is one."""
    names = {check["name"] for check in shell("doctor", "--json").json["checks"]}
    assert "expected cost" in names
    with Sandbox(counting=COUNTING) as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        for at in range(3):
            texts = shell.jsonl([f"Der Leuchtturmwärter reparierte {at} Barometer, noch vor der Schneeschmelze."])
            assert shell("embed", texts, "--model", LITE).code == 0
    found = {check["name"]: check["detail"] for check in shell("doctor", "--json").json["checks"]}
    assert "over 3 calls, each judged before it was learned from" in found[f"expected cost of {LITE}"]
    assert "expected cost" not in found


@pytest.mark.parametrize("pattern", ["voyage/*", "cohere/*"])
def test_a_family_with_twice_the_true_cost_embeds_a_whole_file(
    shell, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """Under the policy's own defaults, where not one model fits at its most: the likely cheapest, call by call."""
    texts = [f"{at}. The keeper of the lighthouse mended the barometer before the snow came. " * 4 for at in range(60)]
    with Sandbox(counting=COUNTING) as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        file = shell.jsonl(texts)
        monkeypatch.setenv("ROUTER_DATA", str(shell.folder / "true"))
        shell("policy", "set", "p", "--allow", pattern, "--goal", "economy", "--budget", "5/month")
        true = shell("embed", file, "--policy", "p", "--json").json
        assert true["cost_usd"] == f"{provider.bill().nanodollars / 1e9:.9f}"
        provider.reset()
        monkeypatch.setenv("ROUTER_DATA", str(shell.folder / "tight"))
        twice = 2 * Decimal(true["cost_usd"])
        assert shell("policy", "set", "p", "--allow", pattern, "--budget", f"{twice}/month").code == 0
        quoted = shell("quote", file, "--policy", "p", "--json").json
        assert all(Decimal(one["cost_usd"]) > twice for one in quoted["candidates"] if one["eligible"])
        said = shell("embed", file, "--policy", "p", "--json")
        assert (said.code, said.json["model"], said.json["routes"]["api"]) == (0, true["model"], 60), said.json
        spent = shell("spend", "--json").json
        assert provider.bill().nanodollars <= twice * 10**9
        assert spent["settled_usd"] == f"{provider.bill().nanodollars / 1e9:.9f}"
        assert (spent["unconfirmed_usd"], spent["held_usd"]) == ("0.000000000",) * 2
