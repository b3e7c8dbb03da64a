"""Where the tokens of WordPiece begin, looked up word by word: most words of a text were met before.

BERT's tokenizer takes a text apart at white space and punctuation before anything else, and what stands between is
tokenized by itself. So the tokens of a text are those of its words, each of which the tokenizer is asked for once.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

_WORD = re.compile(r"[^ \t\n\r!-/:-@\[-`{-~]+ ?|[!-/:-@\[-`{-~] ?|[ \t\n\r]+")
"""A stretch without ASCII white space and punctuation, or a mark, with a blank behind it; or white space."""
_AT_ONCE = 32
"""Texts whose words are in memory."""
_LONGEST = 32
_FIRST, _MOST = 20_000, 1 << 16
"""So many words are learnt from any text; so many are kept (of at most `_LONGEST` characters), in about 15 MB."""


class Words:
    """The words that were met. Several threads may use it."""

    def __init__(self, wordpiece: tokenizers.Tokenizer) -> None:
        self._wordpiece = wordpiece
        self._special = [token.content for token in wordpiece.get_added_tokens_decoder().values()]
        self._met: dict[str, tuple[int, ...]] = {}

    def starts(self, texts: Sequence[str], origins: Sequence[int]) -> Iterator[array[int]]:
        """For each text the characters at which its tokens begin, in order, counted from `origins` for its first."""
        for first in range(0, len(texts), _AT_ONCE):
            some = texts[first : first + _AT_ONCE]
            words = [[] if any(token in text for token in self._special) else _WORD.findall(text) for text in some]
            known = self._known(words)
            whole = [text for text, parts in zip(some, words, strict=True) if not parts or known is None]
            encoded = iter(self._wordpiece.encode_batch(whole, add_special_tokens=False))
            for parts, origin in zip(words, origins[first : first + _AT_ONCE], strict=True):
                if not parts or known is None:
                    yield array("L", [origin + start for start, _ in next(encoded).offsets])
                    continue
                places = accumulate(map(len, parts), initial=origin)
                found = map(known.__getitem__, parts)
                yield array("L", [at + start for at, starts in zip(places, found, strict=False) for start in starts])

    def _known(self, texts: Sequence[Sequence[str]]) -> dict[str, tuple[int, ...]] | None:
        """Where the tokens of each word begin; None where so many are new that the tokenizer is faster on the texts."""
        met = self._met  # other threads may add to it meanwhile, and take nothing away
        new = list(set().union(*texts).difference(met))
        if len(met) > _FIRST and 3 * len(new) > sum(map(len, texts)):
            return None
        encoded = self._wordpiece.encode_batch(new, add_special_tokens=False)
        learnt = {word: tuple(start for start, _ in one.offsets) for word, one in zip(new, encoded, strict=True)}
        kept = {word: starts for word, starts in learnt.items() if len(word) <= _LONGEST}
        if len(met) + len(kept) > _MOST:
            self._met = {}
            return met | learnt
        met.update(kept)
        return met if len(kept) == len(learnt) else met | learnt
