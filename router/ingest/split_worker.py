"""Splits texts in a process of its own, under a limit of memory; whoever started it ends it if one takes too long.

    split_worker.py MEGABYTES

Each job on stdin is a line of JSON (the arguments of `chunk_text`, and how many bytes of UTF-8 follow), then the text.
Each answer on stdout is a line of JSON: {"chunks": [[...], ...]} with the values of `chunking.SENT`, or
{"refused": [message, hint]}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_MIB = 1 << 20


def main(megabytes: int) -> None:
    """Answer jobs until stdin ends."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if sys.platform != "win32":  # no such limit there
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes * _MIB, megabytes * _MIB))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        data = sys.stdin.buffer.read(job.pop("bytes"))
        text = data.decode("utf-8", "surrogatepass")
        del data
        sys.stdout.write(json.dumps(_answer(text, job)) + "\n")
        sys.stdout.flush()


def _answer(text: str, job: dict[str, Any]) -> dict[str, Any]:
    from router.domain.errors import BadInput
    from router.ingest.chunking import SENT, chunk_text

    try:
        return {"chunks": [[getattr(chunk, name) for name in SENT] for chunk in chunk_text(text, **job)]}
    except BadInput as error:
        return {"refused": [error.message, error.hint]}


if __name__ == "__main__":
    main(int(sys.argv[1]))
