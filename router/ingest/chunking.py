"""Splitting a document into chunks of at most so many tokens, so that an edit changes only the chunks around it.

A plain greedy splitter moves every boundary behind an edit, and every moved chunk would be paid for again. So a
document is cut into sections first, at places that depend on nothing but the words that stand there (content-defined
cuts, as in backup programs), and each section is split on its own: behind the edited section all stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from itertools import islice

from router.domain.errors import BadInput
from router.domain.values import Tokenizer
from router.splitting import Piece, has_fence, split

_SECTION_CHUNKS = 8  # chunks in a section, on average; each section wastes about half a chunk at its end
_SMALLEST_LIMIT = 16  # below it a single character and the markers of its tokenizer might not fit
_WORD_CHARACTERS = 3
_WORDLIKE = re.compile(r"[^\W_]")
_BLANK = re.compile(r"\n(?:[ \t]*\r?\n)+")
_FENCE_OR_BLANK = re.compile(rf"^ {{0,3}}(```|~~~)|{_BLANK.pattern}", re.MULTILINE)
_SEAMS = (re.compile(r"\n"), re.compile(r"[.!?]\s+|[。！？]"), re.compile(r"\s+"))
_HEADING = re.compile(r"#{1,6} [^\n]*\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a document: `document[start:end] == text`, in characters.

    Attributes:
        digest: BLAKE2b-256 of the exact text in UTF-8, 32 bytes: the same text has the same digest wherever it stands.
        near_empty: fewer than three letters or digits, such as a rule or a page number; not worth a vector.
        tokens: by the tokenizer that it was split by, markers included.
    """

    index: int
    start: int
    end: int
    text: str = field(repr=False)
    digest: bytes
    near_empty: bool
    tokens: int


SENT = tuple(field.name for field in fields(Chunk) if field.name not in {"text", "digest"})
"""What of a chunk a splitting process sends; the rest follows from the text."""


def chunk_text(
    text: str, *, tokenizer: Tokenizer, limit: int, overlap: int = 0, markdown: bool = False
) -> Iterator[Chunk]:
    """Chunks of at most `limit` tokens in the order of the text, without the white space at their ends.

    Tokens are those of `router.tokens.count`, markers included. Neighbours share at most `overlap` tokens; across
    the few cuts between sections they share none.

    Raises:
        BadInput: a limit below 16, an overlap that does not fit into it, or half a surrogate pair in the text.
    """
    if limit < _SMALLEST_LIMIT:
        raise BadInput(f"A chunk limit of {limit} tokens is too small.", f"Use {_SMALLEST_LIMIT} or more.")
    if not 0 <= overlap <= limit // 2:
        raise BadInput(
            f"An overlap of {overlap} tokens does not fit chunks of {limit}.", "Use at most half of the limit."
        )
    (pieces,) = _split([text], tokenizer, limit, overlap, markdown=markdown)
    return (_chunk(text, index, piece) for index, piece in enumerate(pieces))


def split_texts(texts: Sequence[str], *, tokenizer: Tokenizer, limit: int, overlap: int = 0) -> list[list[Piece]]:
    """The pieces of many texts, tokenised together, as of `chunk_text`; a text within the limit is left as it is.

    Raises:
        BadInput: half a surrogate pair in a text.
    """
    return _split(texts, tokenizer, limit, overlap, whole=True)


def _split(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    limit: int,
    overlap: int,
    *,
    markdown: bool = False,
    whole: bool = False,
) -> list[list[Piece]]:
    def sections(text: str) -> Iterator[tuple[int, int]]:
        return _sections(text, _section_size(tokenizer, limit), markdown)

    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise BadInput(
            "The text holds half a surrogate pair, which no encoding can carry.", "Replace or remove it."
        ) from None
    return list(split(tokenizer, texts, limit, sections=sections, overlap=overlap, markdown=markdown, whole=whole))


def is_near_empty(text: str) -> bool:
    """Fewer than three letters or digits."""
    return len(list(islice(_WORDLIKE.finditer(text), _WORD_CHARACTERS))) < _WORD_CHARACTERS


def _chunk(text: str, index: int, piece: Piece) -> Chunk:
    words = text[piece.start : piece.end]
    return Chunk(
        index=index,
        start=piece.start,
        end=piece.end,
        text=words,
        digest=blake2b(words.encode(), digest_size=32).digest(),
        near_empty=is_near_empty(words),
        tokens=piece.tokens,
    )


def _section_size(tokenizer: Tokenizer, limit: int) -> int:
    """Characters of a section on average; a token is about four characters of text, a byte one."""
    return _SECTION_CHUNKS * limit * (1 if tokenizer == "bytes" else 4)


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
