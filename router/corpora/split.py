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
from dataclasses import fields
from hashlib import blake2b
from types import TracebackType
from typing import Any

from router.corpora import split_worker
from router.corpora.chunk import Chunk, chunk_text
from router.domain.errors import BadInput
from router.domain.values import Tokenizer

IN_PROCESS = 50_000
MEMORY = 448  # MB of address space
SECONDS, SECONDS_A_MIB = 22, 2  # with the reading of a file of 3 MB no more than 30 s, unless reading was slow as well
SENT = tuple(field.name for field in fields(Chunk) if field.name not in {"text", "digest"})
"""What of a chunk its process tells; the rest follows from the text."""


class Splitter:
    """Splits texts; several threads may. Ends its processes at the end of a `with`."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []  # taken and put back whole: append and pop are atomic

    def __enter__(self) -> Splitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            _end(self._idle.pop())

    def chunks(
        self, text: str, *, tokenizer: Tokenizer, limit: int, overlap: int = 0, markdown: bool = False
    ) -> Iterator[Chunk]:
        """As `chunk_text`.

        Raises:
            BadInput: as there; or it takes more than 448 MB, or 22 seconds and two more for each MiB of characters.
        """
        if len(text) <= IN_PROCESS:
            return chunk_text(text, tokenizer=tokenizer, limit=limit, overlap=overlap, markdown=markdown)
        return self._apart(text, {"tokenizer": tokenizer, "limit": limit, "overlap": overlap, "markdown": markdown})

    def _apart(self, text: str, how: dict[str, object]) -> Iterator[Chunk]:
        try:
            process = self._idle.pop()
        except IndexError:
            process = _start()
        seconds = SECONDS + SECONDS_A_MIB * (len(text) >> 20)
        answer = _ask(process, text, how, seconds)
        if answer is None:
            _end(process)
            raise BadInput(
                f"It cannot be split: that takes more than {seconds} seconds or {MEMORY} MB.",
                "Hand it in as several files, or as plain text.",
            )
        self._idle.append(process)
        if "refused" in answer:
            message, hint = answer["refused"]
            raise BadInput(message, hint)
        return (_chunk(text, dict(zip(SENT, values, strict=True))) for values in answer["chunks"])


def _chunk(text: str, sent: dict[str, Any]) -> Chunk:
    words = text[sent["start"] : sent["end"]]
    return Chunk(text=words, digest=blake2b(words.encode(), digest_size=32).digest(), **sent)


def _start() -> subprocess.Popen[bytes]:
    passed = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", split_worker.__file__, str(MEMORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**passed, "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"},
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


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
