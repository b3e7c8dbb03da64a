"""Splitting under limits: a long text is split in a process of its own, so that none takes time or memory without end.

Texts of up to `IN_PROCESS` characters are split where they are: of thirty kinds made to be slow none of that length
took two seconds, and most documents are shorter. A process is started for the first longer one, and kept for the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import blake2b
from types import TracebackType
from typing import Any

from router.domain.errors import BadInput
from router.domain.values import Tokenizer
from router.ingest import split_worker
from router.ingest.chunking import SENT, Chunk, chunk_text

IN_PROCESS = 50_000
MEMORY = 448  # MB of address space
SECONDS, SECONDS_A_MIB = 22, 10  # Chinese, a token a character, takes four seconds a MiB on one core
PART = 1 << 20
"""Characters that are split at once: a longer text is cut at a blank line, and takes no more memory."""
_WORKING = threading.Lock()
"""One such process at work at a time, on all cores: what it may take of memory is what all of them may take."""


class Splitter:
    """Splits texts; several threads may. Ends its process at the end of a `with`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Splitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _WORKING:
            self._stop()

    def chunks(
        self, text: str, *, tokenizer: Tokenizer, limit: int, overlap: int = 0, markdown: bool = False
    ) -> Iterator[Chunk]:
        """As `chunk_text`.

        Raises:
            BadInput: as there; or it takes more than 448 MB, or 22 seconds and ten more for each MiB of characters.
        """
        if len(text) <= IN_PROCESS:
            return chunk_text(text, tokenizer=tokenizer, limit=limit, overlap=overlap, markdown=markdown)
        return self._apart(text, {"tokenizer": tokenizer, "limit": limit, "overlap": overlap, "markdown": markdown})

    def _apart(self, text: str, how: dict[str, object]) -> Iterator[Chunk]:
        index = begin = 0
        while begin < len(text):
            end = len(text)
            if end - begin > PART:
                seam = text.rfind("\n\n", begin + PART // 2, begin + PART)
                end = seam if seam > 0 else begin + PART
            for values in self._answer(text[begin:end], how):
                sent = dict(zip(SENT, values, strict=True))
                sent |= {"index": index, "start": sent["start"] + begin, "end": sent["end"] + begin}
                words = text[sent["start"] : sent["end"]]
                yield Chunk(text=words, digest=blake2b(words.encode(), digest_size=32).digest(), **sent)
                index += 1
            begin = end

    def _answer(self, part: str, how: dict[str, object]) -> list[list[Any]]:
        seconds = SECONDS + SECONDS_A_MIB * (len(part) >> 20)
        with _WORKING:
            if self._process is None:
                self._process = _start()
            answer = _ask(self._process, part, how, seconds)
            if answer is None:
                self._stop()
        if answer is None:
            raise BadInput(
                f"It cannot be split: that takes more than {seconds} seconds or {MEMORY} MB.",
                "Hand it in as several files, or as plain text.",
            )
        if "refused" in answer:
            message, hint = answer["refused"]
            raise BadInput(message, hint)
        chunks: list[list[Any]] = answer["chunks"]
        return chunks

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    passed = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", split_worker.__file__, str(MEMORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**passed, "TOKENIZERS_PARALLELISM": "true", "MALLOC_ARENA_MAX": "2"},
    )


def _ask(process: subprocess.Popen[bytes], text: str, how: dict[str, object], seconds: float) -> dict[str, Any] | None:
    """The process's answer; None where it broke down, or had to be stopped."""
    data = text.encode("utf-8", "surrogatepass")
    assert process.stdin is not None
    assert process.stdout is not None
    alarm = threading.Timer(seconds, process.kill)
    alarm.daemon = True
    alarm.start()
    try:
        process.stdin.write(json.dumps({**how, "bytes": len(data)}).encode() + b"\n")
        process.stdin.write(data)
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:  # it has ended already
        line = b""
    finally:
        alarm.cancel()
    answer: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    return answer
