"""Splitting a text at its best seams, by tokens that are counted once.

A text is tokenised once, with the place of every token. What a stretch of it counts is then the difference of two
numbers, so that no candidate for a piece is tokenised again; and seams are looked for only where a piece may end. The
time is that of the tokenizer, whatever the text is made of.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from router import tokens
from router.domain.errors import BadInput
from router.domain.values import Tokenizer

_SLACK = 2
"""Tokens that a piece may count more alone than in its text for cl100k_base: its first word has lost its blank."""
_AT_ONCE = 1 << 18
"""Characters whose tokens' places are held at once."""
_AHEAD = 8
"""Characters behind a seam that tell what it is."""
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_HEADING = re.compile(r"#{1,6} [^\n]*")
_SEAMS = (
    re.compile(r"\n(?=[ \t\r]*\n)"),  # before a blank line
    re.compile(r"\n"),
    re.compile(r"[.!?…。！？](?:(?<=[。！？])|[\"'”’)\]]*(?=\s))"),
    re.compile(r"(?=\s)"),
)
"""Where a piece may end, the best first: a paragraph, a line, a sentence, a word."""
_MARKDOWN_SEAMS = (re.compile(r"\n(?=[ \t\r\n]*#{1,6} )"), *_SEAMS)
_LINES = 3
"""The first so many kinds of seams of Markdown are not taken inside a fence, nor between a heading and its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`text[start:end]`, without white space at its ends, and its tokens, markers included."""

    start: int
    end: int
    tokens: int


def split(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    limit: int,
    *,
    sections: Callable[[str], Iterable[tuple[int, int]]],
    overlap: int,
    markdown: bool,
    whole: bool,
) -> Iterator[list[Piece]]:
    """The pieces of each text, of at most `limit` tokens, in order; together they are the text but for white space.

    No piece goes across the borders of `sections`, spans (begin, end) of a text without gaps. A piece ends at the best
    seam (heading, paragraph, line, sentence, word) that leaves it at least half full. Neighbours share at most
    `overlap` tokens. With `whole`, a text within the limit is one piece, white space and all.

    Raises:
        BadInput: the limit is smaller than a single character's tokens.
    """
    room, markers = _room(tokenizer, limit), tokens.MARKERS_OF[tokenizer]
    for batch in tokens.blocks(texts, len, size=_AT_ONCE):
        for text, places in zip(batch, tokens.places(tokenizer, batch), strict=True):
            if whole and len(places) + markers <= limit:
                (size,) = tokens.count(tokenizer, [text]) if tokenizer == "bytes" else [len(places) + markers]
                if size <= limit:
                    yield [Piece(start=0, end=len(text), tokens=size)]
                    continue
            one = _Text(text, places, markdown)
            spans = (
                span
                for begin, end in sections(text)
                for span in one.spans(begin, end, room, overlap=min(overlap, room // 2))
            )
            yield _exact(tokenizer, text, spans, limit)


def split_evenly(tokenizer: Tokenizer, text: str, limit: int) -> list[str]:
    """The text in about even pieces of at most `limit` tokens each, split at the best seams near the even places.

    As few pieces as the limit allows are aimed at; a seam that fits badly may cost one more. The pieces in
    order are the whole text, except white space at the seams and the two ends. A text within the limit is one piece.

    Raises:
        BadInput: the limit is smaller than a single character's tokens.
    """
    if tokens.count(tokenizer, [text])[0] <= limit:
        return [text]
    (places,) = tokens.places(tokenizer, [text])
    room = _room(tokenizer, limit)
    spans = _Text(text, places, False).spans(0, len(text), room, even=True)
    return [text[piece.start : piece.end] for piece in _exact(tokenizer, text, spans, limit)] or [text.strip()]


def _room(tokenizer: Tokenizer, limit: int) -> int:
    room = limit - tokens.MARKERS_OF[tokenizer]
    return max(1, room - _SLACK if tokenizer == "cl100k_base" and room > 8 * _SLACK else room)


def has_fence(text: str) -> bool:
    """Whether a fence may stand in the text: looking for its lines takes longer."""
    return "```" in text or "~~~" in text


class _Text:
    """One text and the places of its tokens: the characters at which they begin, in order."""

    def __init__(self, text: str, places: Sequence[int], markdown: bool) -> None:
        self._text = text
        self._places = places
        self._fences = [match.start() for match in _FENCE.finditer(text)] if markdown and has_fence(text) else []
        self._seams = _MARKDOWN_SEAMS if markdown else _SEAMS
        self._markdown = markdown

    def spans(
        self, begin: int, stop: int, room: int, *, overlap: int = 0, even: bool = False
    ) -> Iterator[tuple[int, int, int]]:
        """(start, end, tokens) of each piece of `text[begin:stop]`, at most `room` tokens; full, or all about even."""
        start = end = begin
        first, beyond = bisect_left(self._places, begin), bisect_left(self._places, stop)
        while (left := beyond - first) > 0:
            behind = end
            if left <= room:
                end = stop
            else:
                about = -(-left // -(-left // room)) if even else room
                found = None
                if even:
                    found = self._between(first, behind, about - about // 10, min(room, about + about // 25))
                if found is None:
                    found = self._between(first, behind, about // 2, room)
                end = min(stop, max(self._place(first + about), behind + 1) if found is None else found)
            last = bisect_left(self._places, end)
            yield start, end, last - first
            start, first = end, last
            if overlap and end < stop:
                start = self._back(last - overlap, end)
                first = bisect_left(self._places, start)

    def _between(self, first: int, behind: int, least: int, most: int) -> int | None:
        """The best seam that gives a piece from token `first` on so many tokens, and lies behind `behind`."""
        return self._seam(max(self._place(first + least), behind + 1), self._place(first + most))

    def _place(self, token: int) -> int:
        return self._places[token] if token < len(self._places) else len(self._text)

    def _back(self, token: int, end: int) -> int:
        """The first word that begins at this token or behind it, and before `end`; else `end`."""
        for at in range(self._place(max(0, token)), end):
            if self._text[at].isspace():
                return at
        return end

    def _seam(self, low: int, high: int) -> int | None:
        """The last one of the best kind of seams between two places; None where there is none."""
        window = self._text[low : high + _AHEAD]
        for number, pattern in enumerate(self._seams):
            bound = self._markdown and number < _LINES
            places = (low + match.end() for match in pattern.finditer(window))
            fitting = [at for at in places if at <= high and not (bound and self._kept_together(at))]
            if fitting:
                return fitting[-1]
        line = self._text.rfind("\n", low, high) if self._markdown else -1
        return line if line >= 0 else None  # inside a fence that is too long to stay whole

    def _kept_together(self, at: int) -> bool:
        """True inside a fence, and behind a heading."""
        if bisect_left(self._fences, at) % 2:
            return True
        before = self._text[max(0, at - 200) : at].rstrip()
        return bool(_HEADING.fullmatch(before.rpartition("\n")[2]))


def _exact(tokenizer: Tokenizer, text: str, spans: Iterator[tuple[int, int, int]], limit: int) -> list[Piece]:
    """The spans without white space at their ends, with the tokens that they have alone, each within the limit."""
    found: list[tuple[int, str, int | None]] = []
    for start, end, size in spans:
        bare = text[start:end].strip()
        if bare:
            begin = text.index(bare[0], start)
            known = tokenizer == "wordpiece" and _apart(text, begin) and _apart(text, begin + len(bare))
            found.append((begin, bare, size + tokens.MARKERS_OF[tokenizer] if known else None))
    counted = iter(tokens.count(tokenizer, [bare for _, bare, size in found if size is None]))
    pieces: list[Piece] = []
    for begin, bare, known_size in found:
        exact = next(counted) if known_size is None else known_size
        if exact <= limit:
            pieces.append(Piece(start=begin, end=begin + len(bare), tokens=exact))
        else:
            pieces += _cut_up(tokenizer, bare, begin, limit)
    return pieces


def _apart(text: str, at: int) -> bool:
    """True where WordPiece begins a word anew, so that both sides have the tokens that they have together."""
    return at in (0, len(text)) or _parts(text[at - 1]) or _parts(text[at])


def _parts(character: str) -> bool:
    """True for white space, punctuation and Chinese characters, which BERT's tokenizer takes for words of their own."""
    if character.isspace() or "\u4e00" <= character <= "\u9fff":
        return True
    return not character.isalnum() if character.isascii() else unicodedata.category(character)[0] == "P"


def _cut_up(tokenizer: Tokenizer, piece: str, begin: int, limit: int) -> list[Piece]:
    """What counts more alone than in its text, in stretches that fit."""
    pieces: list[Piece] = []
    end = begin + len(piece)
    while piece := piece.lstrip():
        begin = end - len(piece)
        head = tokens.cut(tokenizer, piece, limit)
        if not head:
            raise BadInput(f"A text cannot be split into pieces of {limit} tokens.", "Use a model with a higher limit.")
        bare = head.rstrip()
        pieces.append(Piece(start=begin, end=begin + len(bare), tokens=tokens.count(tokenizer, [bare])[0]))
        piece = piece[len(head) :]
    return pieces
