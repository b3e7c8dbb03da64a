"""Splitting a document into chunks of at most so many tokens, so that an edit changes only the chunks around it.

A plain greedy splitter moves every boundary behind an edit, and every moved chunk would be paid for again. So a
document is cut into sections first, at places that depend on nothing but the words that stand there (content-defined
cuts, as in backup programs), and each section is split on its own: behind the edited section all stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice

from router.domain.errors import BadInput
from router.domain.values import Tokenizer
from router.splitting import Piece, has_fence, split

_SECTION_CHUNKS = 8  # chunks in a section, on average; each section wastes about half a chunk at its end
_WORD_CHARACTERS = 3
_WORDLIKE = re.compile(r"[^\W_]")
_BLANK = re.compile(r"\n(?:[ \t]*\r?\n)+")
_FENCE_OR_BLANK = re.compile(rf"^ {{0,3}}(```|~~~)|{_BLANK.pattern}", re.MULTILINE)
_SEAMS = (re.compile(r"\n"), re.compile(r"[.!?]\s+|[。！？]"), re.compile(r"\s+"))
_HEADING = re.compile(r"#{1,6} [^\n]*\s*")


def split_texts(
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    limit: int,
    overlap: int = 0,
    markdown: bool = False,
    whole: bool = False,
) -> list[list[Piece]]:
    """The pieces of each text, tokenised together: at most `limit` tokens each, in order, no white space at their ends.

    Tokens are those of `router.tokens.count`, markers included. Neighbours share at most `overlap` tokens; across
    the few cuts between sections they share none. With `whole`, a text within the limit is left as it is.

    Raises:
        BadInput: half a surrogate pair in a text, or a limit smaller than a single character's tokens.
    """
    size = _SECTION_CHUNKS * limit * (1 if tokenizer == "bytes" else 4)  # a token is about four characters of text
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise BadInput(
            "The text holds half a surrogate pair, which no encoding can carry.", "Replace or remove it."
        ) from None
    return list(
        split(
            tokenizer,
            texts,
            limit,
            sections=lambda text: _sections(text, size, markdown),
            overlap=overlap,
            markdown=markdown,
            whole=whole,
        )
    )


def is_near_empty(text: str) -> bool:
    """Fewer than three letters or digits."""
    return len(list(islice(_WORDLIKE.finditer(text), _WORD_CHARACTERS))) < _WORD_CHARACTERS


def _sections(text: str, size: int, markdown: bool) -> Iterator[tuple[int, int]]:
    """The text as spans (begin, end) without gaps, about `size` characters each."""
    begin = 0
    for start, end in _blocks(text, size, markdown):
        if start > begin and _cuts_before(text[start:end], size):
            yield begin, start
            begin = start
    if begin < len(text):
        yield begin, len(text)


def _cuts_before(block: str, size: int) -> bool:
    """Whether a section begins with this block: by its words alone; likelier if long or under a heading."""
    words = block.strip()
    weight = max(len(words), size // 4) if _HEADING.match(words) else len(words)
    number = int.from_bytes(blake2b(words.encode("utf-8", "replace"), digest_size=8).digest())
    return number % size < weight


def _blocks(text: str, size: int, markdown: bool) -> Iterator[tuple[int, int]]:
    """Spans of paragraphs; a heading goes with what follows it, a fenced block of code stays whole where it can."""
    begin, fence = 0, ""
    for seam in (_FENCE_OR_BLANK if has_fence(text) else _BLANK).finditer(text):
        if seam.lastindex:
            mark = seam[1]
            if markdown:
                fence = "" if fence == mark else fence or mark
        elif not fence and not (markdown and _HEADING.fullmatch(text, begin, seam.end())):
            yield from _smaller(text, begin, seam.end(), size, 0)
            begin = seam.end()
    yield from _smaller(text, begin, len(text), size, 0)


def _smaller(text: str, begin: int, end: int, size: int, level: int) -> Iterator[tuple[int, int]]:
    """The span itself, or, where it is longer than `size`, its lines, sentences, words or at last even pieces."""
    if end - begin <= size:
        yield begin, end
    elif level == len(_SEAMS):
        yield from ((at, min(at + size, end)) for at in range(begin, end, size))
    else:
        for seam in _SEAMS[level].finditer(text, begin, end):
            yield from _smaller(text, begin, seam.end(), size, level + 1)
            begin = seam.end()
        if begin < end:
            yield from _smaller(text, begin, end, size, level + 1)
