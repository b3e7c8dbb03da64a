"""A process under limits of memory and time, which reads or splits what a stranger handed in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

from router.ingest import guarded_worker

MEMORY = 448  # MB of address space


class Guarded:
    """One such process, with at most `seconds` of processor time in all (0: no limit); ended at the end of a `with`."""

    def __init__(self, seconds: int = 0) -> None:
        passed = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", guarded_worker.__file__, str(MEMORY), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**passed, "TOKENIZERS_PARALLELISM": "true", "MALLOC_ARENA_MAX": "2"},
        )

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.communicate()

    def ask(self, job: dict[str, object], seconds: float, data: bytes = b"") -> dict[str, Any]:
        """The answer to a job, as `guarded_worker` says.

        Raises:
            TimeoutError: there is none within so many seconds; the process has ended, as it has at an
            EOFError: it broke down, as where it asks for too much memory.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        alarm = threading.Timer(seconds, self._process.kill)
        alarm.daemon = True
        end = time.monotonic() + seconds
        alarm.start()
        try:
            self._process.stdin.write(json.dumps({**job, "bytes": len(data)}).encode() + b"\n" + data)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:  # it has ended already
            line = b""
        finally:
            alarm.cancel()
        if not line.endswith(b"\n"):
            raise TimeoutError if time.monotonic() >= end else EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer
