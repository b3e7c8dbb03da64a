"""Kinds of text are told apart, and ratios to a tokenizer that is at hand are learned from totals that mix them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.kinds import KINDS, kind_of_text
from router.domain.ratios import ALIKE, TEXT, Errors, Ratios, features, learned, products
from router.domain.values import Estimate
from tests.tokenizers import LANGUAGES, PROGRAMMING, files

PRIOR = Ratios(models=("*",), base="cl100k_base", by_kind=dict.fromkeys(KINDS, 0.9))
TRUE = {
    "english": 1.05, "latin": 0.9, "cyrillic": 0.7, "cjk": 0.5, "arabic": 0.55, "indic": 0.4, "other": 0.6, "code": 1.2,
}  # fmt: skip
KIND_OF = {
    "english": "english", "german": "latin", "french": "latin", "russian": "cyrillic", "chinese": "cjk",
    "arabic": "arabic", **dict.fromkeys(PROGRAMMING, "code"),
}  # fmt: skip


def test_kinds_are_told_apart() -> None:
    """Of 180 texts in six languages and three programming languages, at most one in twenty is taken for another."""
    found = [(name, kind_of_text(text)) for name, text in files(180, seed=5, half=0)]
    assert {name for name, _ in found} == {*LANGUAGES, *PROGRAMMING}
    wrong = [(name, kind) for name, kind in found if kind != KIND_OF[name]]
    assert len(wrong) <= 9
    assert {name for name, _ in wrong} <= set(PROGRAMMING)  # a header may be all comment


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "other"),
        ("   \n", "other"),
        ("🙂🙂🙂", "other"),
        ("How do I reset the password of my account?", "english"),
        ("यह पुस्तक बहुत अच्छी है।", "indic"),
        ("これは日本語の文章です。", "cjk"),
        ("한국어 문장입니다.", "cjk"),
        ("Ελληνικό κείμενο", "other"),
        ("שלום לכולם", "arabic"),
        ("if (x > 0) { return y[0]; }", "code"),
    ],
)
def test_short_texts_have_a_kind(text: str, kind: str) -> None:
    """Any text has one, the empty one too."""
    assert kind_of_text(text) == kind


@given(st.text())
def test_any_text_has_a_kind(text: str) -> None:
    """Total, and the same every time."""
    assert kind_of_text(text) in KINDS
    assert kind_of_text(text) == kind_of_text(text)


def some_calls(seed: int, number: int, added: float = 0.0) -> list[tuple[dict[str, float], int, int]]:
    """Calls that mix kinds of text, with a few per cent of noise: features, expected and billed tokens."""
    rng = random.Random(seed)
    calls = []
    for _ in range(number):
        texts = [
            Estimate(kind=rng.choice(KINDS), base=rng.randint(20, 900), tokens=0) for _ in range(rng.randint(3, 40))
        ]
        billed = sum(TRUE[t.kind] * t.base * rng.gauss(1, 0.05) + added for t in texts)
        calls.append((features(texts), sum(round(PRIOR.by_kind[t.kind] * t.base) for t in texts), round(billed)))
    return calls


def sums_of(calls: list[tuple[dict[str, float], int, int]]) -> dict[tuple[str, str], float]:
    """What these calls add up to."""
    total: dict[tuple[str, str], float] = {}
    for call in calls:
        for key, more in products(*call).items():
            total[key] = total.get(key, 0.0) + more
    return total


@settings(max_examples=25)
@given(st.integers(0, 400), st.sampled_from([0.0, 9.0]))
def test_the_ratio_of_each_kind_is_found_from_mixed_totals(seed: int, added: float) -> None:
    """After two hundred calls each is within 15 %, with or without a prompt of nine tokens on every text."""
    found = learned(PRIOR, sums_of(some_calls(seed, 200, added)))
    assert all(abs(found.by_kind[kind] / TRUE[kind] - 1) < 0.15 for kind in KINDS)
    assert found.per_text >= 0


@given(st.integers(0, 10_000))
def test_the_order_of_calls_does_not_matter(seed: int) -> None:
    """The sums are additive, so several processes may learn at once."""
    calls = some_calls(seed, 12)
    one, other = learned(PRIOR, sums_of(calls)), learned(PRIOR, sums_of(calls[::-1]))
    assert all(one.by_kind[kind] == pytest.approx(other.by_kind[kind]) for kind in KINDS)


def test_little_is_learned_from_little() -> None:
    """No call leaves the catalog's ratios alone, a small one moves its kind a little, and no other kind."""
    assert learned(PRIOR, {}) is PRIOR
    call = features([Estimate(kind="cjk", base=50, tokens=45)])
    found = learned(PRIOR, products(call, 45, 90))
    assert 0.9 < found.by_kind["cjk"] < 1.1
    assert found.by_kind["english"] == pytest.approx(0.9)


@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(1, 10**6))
def test_an_estimate_stays_within_the_bound(kind: str, base: int, most: int) -> None:
    """At least a token, and never more than what is held."""
    assert 1 <= ALIKE.estimate(kind, base, most).tokens <= most  # type: ignore[arg-type]  # one of the kinds


def test_errors_are_shares_of_the_bill() -> None:
    """The mean difference of a call, and its typical relative size; nothing is divided by nothing."""
    one = Errors(calls=4, expected=1_000, billed=1_100, absolute=120, squares=0.04)
    assert (round(one.off, 4), one.spread) == (0.1091, 0.1)
    none = Errors(calls=0, expected=0, billed=0, absolute=0, squares=0.0)
    assert (none.off, none.spread) == (0, 0)
    assert features([])[TEXT] == 0
