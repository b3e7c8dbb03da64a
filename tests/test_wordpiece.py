"""The places of WordPiece's tokens, word by word, are those that the tokenizer gives for the whole text."""

from __future__ import annotations

import random
from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router import tokens, wordpiece
from router.wordpiece import Words

_ODD = [
    *("word", "don't", "a/b_c", "x" * 101, " ", ". ", "\n\n", "\r\n", "\t"),
    *("\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\xa0", "\u3000", "\u200b", "\ufeff"),
    *("e\u0301", " \u0301", "-\u0338", "\u2260", "\u0130", "\u03a3", "\u1e9e", "\ufb01", "\u201c"),
    *("\u6f22\u5b57", "\uff0c", "\ud55c\uad6d\uc5b4", "\U0001f469\u200d\U0001f467"),
    *("[SEP]", "[MASK", "]", "[sep]", "[UNK] "),
]
TEXTS = st.lists(st.one_of(st.sampled_from(_ODD), st.text(max_size=12)), max_size=30).map("".join)


def whole(texts: list[str]) -> list[list[int]]:
    """The places by the tokenizer, each text in one piece."""
    encoded = tokens._load_wordpiece().encode_batch(texts, add_special_tokens=False)
    return [[start for start, _ in one.offsets] for one in encoded]


def fresh() -> Words:
    """One that has met no word."""
    return Words(tokens._load_wordpiece())


def starts(by: Words, texts: list[str]) -> list[list[int]]:
    """The places by `by`, each text's from 0."""
    return [list(found) for found in by.starts(texts, [0] * len(texts))]


@given(st.lists(TEXTS, max_size=6))
@example(["a [SEP] b", "", " ", "\u0301", "a\u0301\u0323 b", "ab\x0bcd ef"])
def test_places_are_the_tokenizers(texts: list[str]) -> None:
    """As the tokenizer has them for the whole text: one after another, and once more with all words met."""
    by = fresh()
    assert starts(by, texts) == whole(texts)
    assert starts(by, texts) == whole(texts)
    assert [len(found) + 2 for found in tokens.places("wordpiece", texts)] == tokens.count("wordpiece", texts)


def test_a_word_is_asked_for_once() -> None:
    """The second text of the same words costs the tokenizer nothing."""
    asked: list[str] = []

    class Counting:
        """The tokenizer, which notes what it is asked for."""

        def encode_batch(self, texts: list[str], **how: bool) -> object:
            asked.extend(texts)
            return tokens._load_wordpiece().encode_batch(texts, **how)

        get_added_tokens_decoder = staticmethod(tokens._load_wordpiece().get_added_tokens_decoder)

    by = Words(Counting())  # type: ignore[arg-type]
    starts(by, ["one two three two one two three."])
    assert sorted(asked) == [".", "one ", "three", "three ", "two "]
    starts(by, ["three two one two.", "one one one three"])
    assert sorted(asked[5:]) == ["two"]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither many words nor long ones fill the memory, and where most are new the whole texts are tokenized."""
    monkeypatch.setattr(wordpiece, "_FIRST", 50)
    monkeypatch.setattr(wordpiece, "_MOST", 200)
    rng, by = random.Random(3), fresh()
    sizes = set()
    for _ in range(40):
        text = " ".join([f"{rng.getrandbits(32):08x}" for _ in range(30)] + ["the house"] * rng.choice([1, 60]))
        text += " " + "y" * 50
        assert starts(by, [text]) == whole([text])
        sizes.add(len(by._met))
        assert len(by._met) <= 200
        assert max(map(len, by._met), default=0) <= 32
    assert max(sizes) > 100


def test_many_threads_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that share the words, and forget them in between, give the places of one."""
    monkeypatch.setattr(wordpiece, "_MOST", 100)
    rng, by = random.Random(5), fresh()
    texts = [" ".join(f"w{rng.randint(0, 300)}" for _ in range(100)) for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: starts(by, [text])[0], texts))
    assert found == whole(texts)


def test_places_are_counted_from_the_origin() -> None:
    """A stretch of a text gives places in the text, with special tokens spelt out and without."""
    assert list(fresh().starts(["ab cd", "a [SEP]"], [10, 100])) == [array("L", [10, 13]), array("L", [100, 102])]
