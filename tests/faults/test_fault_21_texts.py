"""Fault 21: over-long, empty, white, surrogate, NUL and 1 MB texts. Figure: texts that were cut in silence (0)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from router import splitting, tokens
from router.domain.errors import BadInput
from router.domain.values import LongTexts, Policy
from router.pipeline.validate import MOST_BYTES
from router.providers.base import Floats
from router.sandbox import Sandbox
from tests.faults.paid_helpers import SMALL, assert_books, open_router, right, some_texts, wrong

LIMIT = 8_192
OLD_COHERE = "cohere/embed-english-v3.0"
"""512 tokens a text, of which only an upper bound can be counted."""


def long_text(words: int) -> str:
    """Sentences of ten words; a token a word, about."""
    return " ".join(f"word{i}." if i % 10 == 9 else "word" for i in range(words))


def average(model: str, pieces: list[str], weights: list[int]) -> Floats:
    """The mean of the pieces' vectors by weight, of unit length: the oracle of a split text, `(1, d)`."""
    mean = (right(model, pieces).astype(np.float64) * np.array(weights)[:, None]).sum(axis=0)
    return (mean / np.sqrt((mean * mean).sum())).astype(np.float32)[None]


BAD = {
    "": "is empty",
    " \t\r\n\u2003": "is empty",
    "half an emoji \ud83d": "half of a surrogate pair at character 15",
    "\udc00": "half of a surrogate pair at character 1",
    "a\0b": "NUL character at byte 2",
    "x" * (MOST_BYTES + 1): "10,000,001 bytes long",
}


@pytest.mark.parametrize(("text", "why"), BAD.items(), ids=["empty", "white", "high", "low", "NUL", "huge"])
async def test_what_is_no_text_is_refused_before_anything_is_sent(
    sandbox: Sandbox, tmp_path: Path, text: str, why: str
) -> None:
    """In a request the whole of it is, with the position; in a file that row is named and the others are embedded."""
    texts = ["first", text, "third"]
    async with open_router(tmp_path, sandbox) as router:
        with pytest.raises(BadInput, match=f"^Text 2 .*{why}") as raised:
            await router.embed(texts, model=SMALL, policy="quality")
        assert raised.value.hint
        with pytest.raises(BadInput):
            await router.quote(texts, model=SMALL, policy="quality")
        assert (sandbox.bill().requests, assert_books(router, sandbox).shown) == (0, 0)

        result = await router.embed(texts, model=SMALL, policy="quality", partial=True)
        assert list(result.problems) == [1]
        assert why in str(result.problems[1])
        assert result.routes == ("api", "refused", "api")
        assert np.isnan(result.vectors[1]).all()
        assert wrong(result.vectors[[0, 2]], right(SMALL, ["first", "third"])) == 0
        assert sandbox.bill().texts == 2
        assert_books(router, sandbox)


async def test_what_is_empty_once_normalised_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    """A policy that strips white space leaves nothing of it."""
    async with open_router(tmp_path, sandbox) as router:
        await router.policies.save(Policy(name="clean", goal="quality", normalise=True), [SMALL])
        with pytest.raises(BadInput, match="Text 1 is empty"):
            await router.embed(["\ufeff \n".replace("\ufeff", "")], model=SMALL, policy="clean")
        assert sandbox.bill().requests == 0


async def test_odd_but_good_texts_are_embedded_as_they_are(sandbox: Sandbox, tmp_path: Path) -> None:
    """Emoji, right-to-left, combining marks, control characters, one character, special tokens: all exact."""
    texts = ["👩‍👩‍👧‍👦", "\u202eabc", "e\u0301", "\u00e9", "\x01\x7f", "a", "<|endoftext|>", "a\n", "\ufeff", "𝕏" * 500]
    async with open_router(tmp_path, sandbox) as router:
        result = await router.embed(texts, model=SMALL, policy="quality")
        assert wrong(result.vectors, right(SMALL, texts)) == 0
        assert assert_books(router, sandbox).settled == sandbox.bill().nanodollars


@pytest.mark.parametrize("size", ["just over", "1 MB"])
async def test_over_long_texts_by_each_policy(
    sandbox: Sandbox, tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None], size: str
) -> None:
    """Refused, split and averaged, or cut and reported; never cut in silence, and the short text beside it is right."""
    words = LIMIT + 1 if size == "just over" else count(60_000, 180_000)
    text = long_text(words)
    if size == "just over":
        text = "word" + " word" * LIMIT
        assert tokens.count("cl100k_base", [text]) == [LIMIT + 1]
    short = "a short text"
    silent = 0
    async with open_router(tmp_path, sandbox) as router:
        for policy in ("refuse", "split", "cut"):
            await router.policies.save(Policy(name=policy, goal="quality", long_texts=policy), [SMALL])

        with pytest.raises(BadInput, match=r"longer than its 8,192 tokens and the policy refuses long texts"):
            await router.embed([short, text], model=SMALL, policy="refuse")
        assert sandbox.bill().requests == 0
        file = await router.embed([text, short], model=SMALL, policy="refuse", partial=True)
        assert f"tokens; {SMALL} takes 8,192" in str(file.problems[0])
        assert wrong(file.vectors[1:], right(SMALL, [short])) == 0
        assert sandbox.bill().texts == 1

        split = await router.embed([short, text], model=SMALL, policy="split")
        pieces = splitting.split_evenly("cl100k_base", text, LIMIT)
        assert "".join("".join(pieces).split()) == "".join(text.split()), "a part of the text was left out"
        oracle = average(SMALL, pieces, tokens.count("cl100k_base", pieces))
        assert wrong(split.vectors, np.concatenate([right(SMALL, [short]), oracle])) == 0
        assert split.cut == ()
        assert sandbox.bill().texts == 1 + len(pieces)

        cut = await router.embed([text, short, text], model=SMALL, policy="cut")
        beginning = tokens.cut("cl100k_base", text, LIMIT)
        assert wrong(cut.vectors, right(SMALL, [beginning, short, beginning])) == 0
        silent += cut.cut != (0, 2)
        assert sandbox.bill().texts == 2 + len(pieces)

        # What was cut, split or refused is not taken for one of the others the next time, and costs nothing again.
        bill = sandbox.bill()
        for policy, before in (("split", split), ("cut", cut)):
            again = await router.embed([text, short], model=SMALL, policy=policy)
            both = before.vectors[[1, 0]] if policy == "split" else before.vectors[:2]
            assert wrong(again.vectors, both) == 0
            assert again.cost == 0
        assert silent == 0
        with pytest.raises(BadInput):
            await router.embed([text], model=SMALL, policy="refuse")
        assert sandbox.bill() == bill
        assert assert_books(router, sandbox).settled == bill.nanodollars
    assert max(e.tokens for e in sandbox.received()) <= 300_000
    figure(21, f"{len(text):,} characters in {len(pieces)} pieces, cut or refused by policy: {silent} cut in silence")


async def test_a_cut_text_from_the_cache_is_reported_too(sandbox: Sandbox, tmp_path: Path) -> None:
    """The second answer is the same vector, of the same beginning, and says so."""
    text = "word" + " word" * LIMIT
    async with open_router(tmp_path, sandbox) as router:
        for _ in range(2):
            result = await router.embed(["short", text], model=SMALL, policy="quality", long_texts="cut")
            assert result.cut == (1,)


@pytest.mark.parametrize("how", ["split", "cut"])
async def test_a_model_whose_tokens_are_only_bounded(sandbox: Sandbox, tmp_path: Path, how: LongTexts) -> None:
    """The provider is told not to cut, and what it gets is short enough by the bound: nothing is lost in silence."""
    text = long_text(2_000)
    async with open_router(tmp_path, sandbox) as router:
        result = await router.embed([text], model=OLD_COHERE, policy="quality", long_texts=how)
        received = [e for e in sandbox.received() if e.status == 200]
        if how == "split":
            pieces = splitting.split_evenly("bytes", text, 512)
            assert sum(e.texts for e in received) == len(set(pieces))
            assert wrong(result.vectors, average(OLD_COHERE, pieces, tokens.count("bytes", pieces))) == 0
            assert result.cut == ()
        else:
            assert wrong(result.vectors, right(OLD_COHERE, [tokens.cut("bytes", text, 512)])) == 0
            assert result.cut == (0,)
        assert {e.status for e in sandbox.received()} == {200}
        assert_books(router, sandbox)


async def test_pieces_that_texts_share_are_paid_for_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Two long texts of the same beginning, cut: one text is billed; each position is reported as cut."""
    same = long_text(LIMIT + 2_000)
    texts = [f"{same} ending {i}" for i in range(3)] + some_texts(1)
    async with open_router(tmp_path, sandbox) as router:
        result = await router.embed(texts, model=SMALL, policy="quality", long_texts="cut")
        assert result.cut == (0, 1, 2)
        assert sandbox.bill().texts == 2
        assert_books(router, sandbox)
