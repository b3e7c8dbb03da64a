"""Reads one document in a process of its own, under limits of memory and processor time.

Such files come from strangers, and a few kilobytes of them can ask for gigabytes or for hours. Here they meet limits
that the operating system enforces, and nothing else: no keys in the environment, no database, of the router only the
readers of `router.ingest`.

    extract_worker.py KIND IN OUT CODEC MEGABYTES SECONDS CHARACTERS

Exit 0: OUT is the text in UTF-8, and OUT.notes a JSON list of sentences on what is not in it. Exit 3: OUT is the reason
why the file cannot be read. Anything else: it broke down.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

EXIT_REASON = 3
_MIB = 1 << 20


def _limit(megabytes: int, seconds: int) -> None:
    if sys.platform == "win32":
        return  # no such limits there: the time limit of the caller is all
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (megabytes * _MIB, megabytes * _MIB))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _write(blocks: Iterator[str], out: str, characters: int) -> None:
    from router.ingest.reader import Unreadable

    with open(out, "w", encoding="utf-8", errors="replace", newline="") as file:
        for block in blocks:
            characters -= len(block)
            if characters < 0:
                raise Unreadable("it holds more text than one document may; split it")
            file.write(block)


def main(arguments: list[str]) -> int:
    """Read one file; see the module's docstring for the arguments and the exit code."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from router.ingest.kinds import MODULES
    from router.ingest.reader import Unreadable

    kind, path, out, codec, megabytes, seconds, characters = arguments
    _limit(int(megabytes), int(seconds))
    notes: list[str] = []
    try:
        read = importlib.import_module(MODULES[kind]).read  # type: ignore[index]
        _write(read(path, codec, notes), out, int(characters))
    except MemoryError:
        reason = f"reading it takes more than {megabytes} MB of memory"
    except Unreadable as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    except Exception as error:  # a parser may raise anything on a broken file; whatever it is becomes the reason
        why = f"{type(error).__name__}: {str(error)[:200]}"
        reason = f"it is broken ({why}); open it in the program that made it, and save it anew"
    else:
        Path(out + ".notes").write_text(json.dumps(notes), encoding="utf-8")
        return 0
    with open(out, "w", encoding="utf-8", errors="replace") as file:
        file.write(reason)
    return EXIT_REASON


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
