"""Splitting under limits: a long text is split in a process of its own, so that none takes time or memory without end.

Texts of up to `IN_PROCESS` characters are split where they are: of thirty kinds made to be slow none of that length
took two seconds, and most documents are shorter. A process is started for the first longer one, and kept for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from router.domain.errors import BadInput
from router.domain.values import Tokenizer
from router.ingest.chunking import split_texts
from router.ingest.guarded import MEMORY, Guarded
from router.splitting import Piece

IN_PROCESS = 50_000
SECONDS, SECONDS_A_MIB = 22, 10  # Chinese, a token a character, takes four seconds a MiB on one core
PART = 1 << 20
"""Characters that are split at once: a longer text is cut at a blank line, and takes no more memory."""
_WORKING = threading.Lock()
"""One such process at work at a time, on all cores: what it may take of memory is what all of them may take."""


class Splitter:
    """Splits texts; several threads may. Ends its process at the end of a `with`."""

    def __init__(self) -> None:
        self._process: Guarded | None = None

    def __enter__(self) -> Splitter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        with _WORKING:
            self._stop()

    def pieces(
        self, text: str, *, tokenizer: Tokenizer, limit: int, overlap: int = 0, markdown: bool = False
    ) -> Iterator[Piece]:
        """The pieces of one text, as of `split_texts`.

        Raises:
            BadInput: as there; or it takes more than 448 MB, or 22 seconds and ten more for each MiB of characters.
        """
        if len(text) <= IN_PROCESS:
            yield from split_texts([text], tokenizer=tokenizer, limit=limit, overlap=overlap, markdown=markdown)[0]
            return
        job: dict[str, object] = {"tokenizer": tokenizer, "limit": limit, "overlap": overlap, "markdown": markdown}
        begin = 0
        while begin < len(text):
            end = len(text)
            if end - begin > PART:
                seam = text.rfind("\n\n", begin + PART // 2, begin + PART)
                end = seam if seam > 0 else begin + PART
            for start, stop, size in self._answer(text[begin:end], job):
                yield Piece(start=begin + start, end=begin + stop, tokens=size)
            begin = end

    def _answer(self, part: str, job: dict[str, object]) -> list[tuple[int, int, int]]:
        seconds = SECONDS + SECONDS_A_MIB * (len(part) >> 20)
        with _WORKING:
            self._process = self._process or Guarded()
            try:
                answer: dict[str, Any] = self._process.ask(job, seconds, part.encode("utf-8", "surrogatepass"))
            except (TimeoutError, EOFError):
                self._stop()
                raise BadInput(
                    f"It cannot be split: that takes more than {seconds} seconds or {MEMORY} MB.",
                    "Hand it in as several files, or as plain text.",
                ) from None
        if "refused" in answer:
            raise BadInput(*answer["refused"])
        pieces: list[tuple[int, int, int]] = answer["done"]
        return pieces

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
