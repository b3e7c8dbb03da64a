"""The estimate of a large corpus, from the shell: first, on stderr, and the exact quote after it."""

from __future__ import annotations

import json
import re

import pytest

from router.cli import corpus
from router.jobs import estimate
from router.sandbox import Sandbox
from tests.cli.conftest import MODEL, Shell


@pytest.fixture
def file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    """JSON lines that are large, for the while of a test."""
    monkeypatch.setattr(estimate, "LEAST_BYTES", 100_000)
    monkeypatch.setattr(estimate, "SECONDS", 600.0)
    return shell.jsonl([f"letter number {n} on how to mend the things in the house" for n in range(40_000)])


def test_an_estimate_comes_first_and_the_exact_quote_follows(
    shell: Shell, openai: Sandbox, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both commands say so before they read; `--json` stays one object, and nothing is spent."""
    added = shell("collections", "add", "letters", file, "--model", MODEL)
    said, *notes = added.err.splitlines()
    money = r"likely \$[\d.]+ \(\$[\d.]+ to \$[\d.]+\) with text-embedding-3-small; the exact quote follows"
    found = re.fullmatch(rf"estimate, from \d+ % of the text: ([\d,]+) to ([\d,]+) texts, {money}", said)
    assert found, said
    low, high = (int(number.replace(",", "")) for number in found.groups())
    assert 39_000 < low < high < 41_000  # whether it holds 40,000 is a matter of 19 in 20
    assert notes == ["estimate: Repeats of a text are seen only within the sample: with many of them it costs less."]
    assert "40,000 chunks, 40,000 distinct" in added.out

    told: list[object] = []
    tell = corpus.tell_estimate
    monkeypatch.setattr(corpus, "tell_estimate", lambda one: (told.append(one), tell(one)))
    quote = shell("quote", file, "--collection", "letters", "--json")
    assert json.loads(quote.out)["distinct"] == 40_000
    assert quote.err.splitlines() == added.err.splitlines()
    assert len(told) == 1
    assert openai.bill().calls == 0


def test_a_small_corpus_is_quoted_at_once(shell: Shell, openai: Sandbox) -> None:
    """No estimate, no line."""
    assert shell("collections", "add", "few", shell.jsonl(["one", "two"]), "--model", MODEL).err == ""
