"""Token counts, remembered by digest so that a text that comes again costs nothing to count.

By cl100k_base, unless whoever starts the sandbox hands in another way of counting for a provider: the tests count
Voyage's and Cohere's tokens by vocabularies that the router does not have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

Counting = Callable[[list[str]], list[int]]
"""Tokens of each text, in order; called from several threads."""
REMEMBERED = 1_000_000
INLINE_CHARACTERS = 4_000  # about a millisecond of counting; more goes to a thread, so that others are served


@cache
def encoding() -> tiktoken.Encoding:
    """The cl100k_base encoding from the packaged vocabulary (no download)."""
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(__file__).parents[1] / "data" / "tiktoken"))
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


def count_cl100k(texts: list[str]) -> list[int]:
    """Tokens of each text by cl100k_base."""
    if len(texts) < 64:
        return [len(encoding().encode_ordinary(text)) for text in texts]
    return [len(found) for found in encoding().encode_ordinary_batch(texts, num_threads=2)]


class TokenCounter:
    """Counts tokens off the event loop. Used from the server's loop only."""

    def __init__(self, counting: Counting = count_cl100k) -> None:
        self._counting = counting
        self._known: dict[bytes, int] = {}

    async def count(self, texts: list[str], digests: list[bytes]) -> list[int]:
        """Tokens of each text, in order."""
        found = {key: self._known[key] for key in digests if key in self._known}
        missing = {key: text for key, text in zip(digests, texts, strict=True) if key not in found}
        if missing:
            new = list(missing.values())
            small = sum(map(len, new)) <= INLINE_CHARACTERS
            counts = self._counting(new) if small else await asyncio.to_thread(self._counting, new)
            if len(self._known) + len(new) > REMEMBERED:
                self._known.clear()
            found.update(zip(missing, counts, strict=True))
            self._known.update(found)
        return [found[key] for key in digests]
