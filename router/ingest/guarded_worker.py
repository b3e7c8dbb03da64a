"""Reads and splits files of strangers in a process of its own, under limits of memory and processor time.

A few kilobytes of such a file can ask for gigabytes or for hours. Here they meet limits that the operating system
enforces, and nothing else: no keys in the environment, no database, of the router only the readers and the splitter.

    guarded_worker.py MEGABYTES SECONDS (of processor time; 0: no limit)

Each job on stdin is a line of JSON: the arguments of `_read`, or of `split_texts` and a text; "bytes" is how many of
UTF-8 follow with it. Each answer on stdout is a line of JSON: {"done": ...}, or {"refused": [message, hint]}.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(megabytes: int, seconds: int) -> None:
    """Answer jobs until stdin ends."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if sys.platform != "win32":  # no such limits there: the time limit of the caller is all
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        if seconds > 0:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a parser prints is no answer
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        size = job.pop("bytes")
        answer = _split(sys.stdin.buffer.read(size), **job) if size else _read(megabytes, **job)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _split(data: bytes, **how: Any) -> dict[str, Any]:
    """The pieces of a text as (start, end, tokens)."""
    from router.domain.errors import BadInput
    from router.ingest.chunking import split_texts

    try:
        (pieces,) = split_texts([data.decode("utf-8", "surrogatepass")], **how)
    except BadInput as error:
        return {"refused": [error.message, error.hint]}
    return {"done": [(piece.start, piece.end, piece.tokens) for piece in pieces]}


def _read(megabytes: int, kind: str, path: str, out: str, codec: str, characters: int) -> dict[str, Any]:
    """Write the text of a document to `out` in UTF-8; answers with sentences on what is not in it."""
    from router.ingest.kinds import MODULES
    from router.ingest.reader import Unreadable

    notes: list[str] = []
    try:
        blocks = importlib.import_module(MODULES[kind]).read(path, codec, notes)  # type: ignore[index]
        with open(out, "w", encoding="utf-8", errors="replace", newline="") as file:
            for block in blocks:
                characters -= len(block)
                if characters < 0:
                    raise Unreadable("it holds more text than one document may; split it")
                file.write(block)
        return {"done": notes}
    except MemoryError:
        reason = f"reading it takes more than {megabytes} MB of memory"
    except Unreadable as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    except Exception as error:  # a parser may raise anything on a broken file; whatever it is becomes the reason
        why = f"{type(error).__name__}: {str(error)[:200]}"
        reason = f"it is broken ({why}); open it in the program that made it, and save it anew"
    return {"refused": [reason, ""]}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
