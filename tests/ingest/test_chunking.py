"""Chunks to a token limit, and what an edit changes."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import BadInput
from router.domain.values import Tokenizer
from router.ingest import chunking
from router.ingest.chunking import is_near_empty, split_texts
from router.splitting import Piece
from router.tokens import count

WORDS = ["wing", "flow", "shear", "layer", "plate", "boundary", "heat", "speed", "pressure", "shock", "angle", "drag"]


def prose(paragraphs: int, seed: int = 7, *, markdown: bool = False) -> str:
    """Paragraphs of made-up sentences, with a heading now and then."""
    rng = random.Random(seed)
    parts = []
    for number in range(paragraphs):
        if markdown and number % 7 == 0:
            parts.append(f"## Section {number}")
        sentences = (" ".join(rng.choices(WORDS, k=rng.randint(5, 15))) + "." for _ in range(rng.randint(1, 6)))
        parts.append(" ".join(sentences))
    return "\n\n".join(parts)


def pieces(text: str, tokenizer: Tokenizer, limit: int, *, overlap: int = 0, markdown: bool = False) -> list[Piece]:
    """Of one text."""
    return split_texts([text], tokenizer=tokenizer, limit=limit, overlap=overlap, markdown=markdown)[0]


def chunks(text: str, tokenizer: Tokenizer, limit: int, *, overlap: int = 0, markdown: bool = False) -> list[str]:
    """Their words."""
    return [text[p.start : p.end] for p in pieces(text, tokenizer, limit, overlap=overlap, markdown=markdown)]


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize(("tokenizer", "limit"), [("cl100k_base", 64), ("wordpiece", 64), ("bytes", 300)])
def test_chunks_keep_to_the_limit_and_lose_no_word(tokenizer: Tokenizer, limit: int, markdown: bool) -> None:
    """No chunk has more tokens than the limit, all words are there in order, most chunks are well filled."""
    text = prose(60, markdown=markdown)
    found = chunks(text, tokenizer, limit, markdown=markdown)
    sizes = count(tokenizer, found)
    assert max(sizes) <= limit
    assert sum(sizes) / len(sizes) > limit / 2
    assert "".join("".join(chunk.split()) for chunk in found) == "".join(text.split())


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab .!\n\t#`~é日👩\x00-"), max_size=2_000),
    markdown=st.booleans(),
    overlap=st.sampled_from([0, 8]),
)
def test_chunks_of_any_text(text: str, markdown: bool, overlap: int) -> None:
    """Limits hold, tokens are counted, and nothing but white space lies between."""
    found = pieces(text, "bytes", 24, overlap=overlap, markdown=markdown)
    for piece in found:
        words = text[piece.start : piece.end]
        assert count("bytes", [words])[0] == piece.tokens <= 24
        assert is_near_empty(words) == (sum(character.isalnum() for character in words) < 3)
    edges = [0, *(edge for piece in found for edge in (piece.start, piece.end)), len(text)]
    assert all(not text[end:start].strip() for end, start in zip(edges[::2], edges[1::2], strict=True))


@cache
def known(text: str, markdown: bool, cut: object) -> frozenset[str]:
    """The chunks of a text that several edits begin with; `cut` is what cuts it just now."""
    return frozenset(chunks(text, "cl100k_base", 64, markdown=markdown))


def changed(before: str, after: str, *, markdown: bool) -> tuple[int, int]:
    """(chunks of `after` that `before` does not have, all chunks of `after`)."""
    old = known(before, markdown, chunking._sections)
    new = chunks(after, "cl100k_base", 64, markdown=markdown)
    return sum(chunk not in old for chunk in new), len(new)


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize("edit", ["longer", "gone", "new"])
def test_an_edit_changes_only_the_chunks_around_it(markdown: bool, edit: str) -> None:
    """Over ten places of a long document, one changed paragraph changes 4 % of the chunks on average."""
    text = prose(300, markdown=markdown)
    paragraphs = text.split("\n\n")
    total, fresh = 0, 0
    for at in range(5, 300, 30):
        middle = {"longer": [paragraphs[at] + " One more sentence here."], "gone": [], "new": [paragraphs[at], "New."]}
        after = "\n\n".join([*paragraphs[:at], *middle[edit], *paragraphs[at + 1 :]])
        new, all_ = changed(text, after, markdown=markdown)
        total, fresh = total + all_, fresh + new
    assert total > 10 * 100
    assert 0 < fresh <= 0.04 * total


@pytest.mark.parametrize("between", ["\n\n", " "])
@pytest.mark.parametrize("edit", ["changed", "inserted", "removed"])
def test_one_edited_sentence_keeps_93_percent(edit: str, between: str) -> None:
    """Over 50 long documents, the median share of chunks that an edit (a sentence, or a paragraph gone) changes, with
    paragraphs and without.
    """
    shares = []
    for seed in range(50):
        text = prose(200, seed=seed)
        rng = random.Random(seed)
        paragraphs = text.split("\n\n")
        at = rng.randrange(len(paragraphs))
        sentences = paragraphs[at].split(". ")
        where = rng.randrange(len(sentences))
        sentences[where : where + (edit == "changed")] = [" ".join(rng.choices(WORDS, k=rng.randint(5, 15)))]
        paragraphs[at : at + 1] = [] if edit == "removed" else [". ".join(sentences)]
        new, all_ = changed(text.replace("\n\n", between), between.join(paragraphs), markdown=False)
        assert all_ > 80
        shares.append(new / all_)
    assert 0 < median(shares) <= 0.07


def test_a_new_line_on_top_does_not_move_every_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an even text (a log) a line put on top moves all boundaries of a plain splitter, but few of ours."""
    text = "".join(f"2026-11-21 event {number} was handled\n\n" for number in range(1000))
    after = "2026-11-21 the log begins\n\n" + text
    new, all_ = changed(text, after, markdown=False)
    assert 0 < new <= 0.1 * all_
    monkeypatch.setattr("router.ingest.chunking._sections", lambda text, _size, _markdown: iter([(0, len(text))]))
    new, all_ = changed(text, after, markdown=False)
    assert new > 0.9 * all_


def test_overlap_repeats_the_end_of_the_neighbour() -> None:
    """With an overlap, chunks share words; without, they do not."""
    text = " ".join(f"word{number}" for number in range(200))
    apart = pieces(text, "cl100k_base", 32)
    shared = pieces(text, "cl100k_base", 32, overlap=8)
    assert all(first.end <= second.start for first, second in pairwise(apart))
    assert sum(first.end > second.start for first, second in pairwise(shared)) > len(shared) / 2
    assert max(count("cl100k_base", chunks(text, "cl100k_base", 32, overlap=8))) <= 32


def test_near_empty_chunks_are_flagged() -> None:
    """A rule or a page number is flagged, a short word is not; white space alone makes no chunk."""
    assert is_near_empty("-- 7 --")
    assert not is_near_empty("Yes.")
    assert chunks(" \n\n ", "bytes", 64) == []


def test_a_heading_stays_with_its_paragraph_and_code_stays_whole() -> None:
    """No section begins between a heading and what it is over, nor inside of a fence."""
    text = "\n\n".join(f"# Heading {n}\n\n{'plain words here ' * 6}\n\n```\nx = {n}\n\ny = {n}\n```" for n in range(60))
    found = chunks(text, "cl100k_base", 64, markdown=True)
    assert all(not chunk.splitlines()[-1].startswith("#") for chunk in found)
    assert all(chunk.count("```") % 2 == 0 for chunk in found)


@pytest.mark.parametrize("text", ["x" * 60_000, "words " * 10_000, "a line\n" * 10_000], ids=["run", "words", "lines"])
def test_long_texts_without_paragraphs_are_split_in_good_time(text: str) -> None:
    """No paragraph, no line or not even a space: still split, section by section."""
    assert "".join(chunks(text, "cl100k_base", 64)).replace(" ", "").replace("\n", "") == "".join(text.split())


def test_what_cannot_be_split_is_refused_at_once() -> None:
    """A limit below a single character, half a surrogate pair."""
    with pytest.raises(BadInput, match="cannot be split into pieces of 8 tokens"):
        chunks("x", "bytes", 8)
    with pytest.raises(BadInput, match="surrogate"):
        chunks("a\ud800b", "bytes", 64)
