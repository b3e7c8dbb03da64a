"""`quote`: the cost calculator, which spends nothing."""

from __future__ import annotations

from router.sandbox import Sandbox

SMALL = "openai/text-embedding-3-small"


def candidate(quote: dict, model: str) -> dict:
    """One candidate of a quote in JSON."""
    return next(c for c in quote["candidates"] if c["model"] == model)


def test_a_thousand_times_sample_text(shell, openai: Sandbox) -> None:
    """2,000 tokens and $0.000040 for all of them; after dedupe two tokens are paid for."""
    file = shell.write("sample.txt", "Sample text\n" * 1000)
    said = shell("quote", file, "--model", SMALL, "--json")
    assert said.code == 0
    quote = said.json
    assert (quote["texts"], quote["distinct"], quote["tokens"], quote["chosen"]) == (1000, 1, 2000, SMALL)
    small = candidate(quote, SMALL)
    assert (small["full_tokens"], small["full_cost_usd"]) == (2000, "0.000040000")
    assert (small["tokens_to_pay"], small["cost_usd"]) == (2, "0.000000040")
    assert openai.bill().requests == 0
    people = shell("quote", file, "--model", SMALL)
    row = next(line for line in people.out.splitlines() if "→" in line)
    assert row.split()[1:] == [SMALL, "54.8", "0", "2,000", "$0.000040", "2", "<", "$0.000001", "0.5"]
    assert quote["decision"] in people.out


def test_every_candidate_has_what_the_contract_says(shell, openai: Sandbox) -> None:
    """Also those that are not eligible, each with its reason; a local model pays nothing."""
    quote = shell("quote", shell.jsonl(["a", "b", "a"]), "--json").json
    keys = {"model", "space", "quality", "cached", "cost_usd", "seconds", "eligible", "reason"}
    assert all(set(c) >= keys and c["reason"] for c in quote["candidates"])
    assert {c["eligible"] for c in quote["candidates"]} == {True, False}
    local = candidate(quote, "local/all-MiniLM-L6-v2")
    assert (local["cost_usd"], local["tokens_to_pay"]) == ("0.000000000", 0)
    assert set(quote) >= {"texts", "distinct", "tokens", "candidates", "chosen", "decision"}


def test_what_is_cached_is_not_to_be_paid(shell, openai: Sandbox) -> None:
    """One of two texts was embedded before: half is cached, the full cost stays."""
    shell("embed", shell.jsonl(["apple"]), "--model", SMALL)
    bill = openai.bill()
    small = candidate(shell("quote", shell.jsonl(["apple", "pear tree"]), "--json").json, SMALL)
    assert (small["cached"], small["full_tokens"], small["tokens_to_pay"]) == (1, 3, 2)
    assert openai.bill() == bill


def test_a_quote_that_would_be_refused_is_exit_3(shell, openai: Sandbox) -> None:
    """With the kill switch on and only a paid model allowed; the candidates are shown all the same."""
    shell("policy", "set", "paid", "--allow", SMALL)
    shell("pay", "off")
    said = shell("quote", shell.jsonl(["a"]), "--policy", "paid", "--json")
    assert said.code == 3
    assert said.json["chosen"] is None
    assert said.json["decision"].startswith("Refused")
    assert said.json["candidates"]


def test_bad_rows_are_named_before_anything_is_paid(shell, openai: Sandbox) -> None:
    """What `embed` would refuse, and what it would skip."""
    quote = shell("quote", shell.jsonl(["a", "", "b\0"]), "--json").json
    assert quote["skipped_rows"] == ["t1"]
    assert [p["id"] for p in quote["problems"]] == ["t2"]
    assert "(id t2)" in shell("quote", shell.jsonl(["a", "", "b\0"])).err
