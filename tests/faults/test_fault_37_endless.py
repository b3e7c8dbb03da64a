"""Faults 37 and 38: answers that do not end, plain and packed, and redirects to another host.

Figures: MiB by which a process grew (under 256), requests for each answer (1), texts that reached another host (0).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from router.domain.errors import NotConfigured
from router.providers.base import reply_limit
from router.sandbox import Sandbox
from tests.faults.endless import endless
from tests.faults.paid_helpers import PAID, assert_books, open_router, quick_retries, some_texts
from tests.providers.test_check import call_of

KINDS = ("plain", "chunked", "gzip", "deflate", "twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a program said that asked for endless answers, of so many bytes; and the requests that the server had."""

    size: int
    texts: int
    found: dict[str, Any]
    asked: Counter[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, count: Callable[[int, int], int]) -> Run:
    """The program, in a process of its own: three texts for each kind of answer, and many for one."""
    size, texts = count(100, 700) * 1_000_000, count(100, 600)
    cases = [f"{kind}:3" for kind in (*KINDS, "error")] + [f"gzip:{texts}"]
    with endless(size) as server:
        command = [sys.executable, "-m", "tests.faults.endless", str(tmp_path_factory.mktemp("endless")), server.url]
        done = subprocess.run([*command, *cases], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return Run(size=size, texts=texts, found=json.loads(done.stdout), asked=server.asked)


def test_memory_stays_where_it_was(
    run: Run, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """Whatever comes, by each wire and for batches: no more is kept than the call explains."""
    grown = run.found["grown_mib"]
    assert grown < count(96, 256)
    assert run.found["results"] <= 1 << 20
    figure(
        37, f"{run.size // 10**6} MB, {', '.join(KINDS)}, by each wire, and {run.texts} texts: grew by {grown:.0f} MiB"
    )


def test_an_endless_answer_is_one_clear_error(run: Run, figure: Callable[[int, str], None]) -> None:
    """One request each, booked once as what it may have cost; what is asked of the batch tier is told the same way."""
    said = run.found["said"]
    for kind in KINDS:
        for what in (*PAID, "download", "retrieve"):
            name, message = said[f"{kind}:3/{what}"]
            assert name == "BadReply"
            assert "answered with more than" in message
        settled, unconfirmed, held = said[f"{kind}:3/totals"]
        assert (settled, held) == (0, 0)
        assert unconfirmed > 0
        if kind != "gzip":  # it is asked for many texts too
            assert [n for path, n in run.asked.items() if path.startswith(f"/{kind}/")] == [1] * (len(PAID) + 2)
    figure(37, f"{', '.join(KINDS)}, by each wire: asked once")


def test_an_endless_error_is_told_by_its_status(run: Run) -> None:
    """It is read to its beginning, and sent again as any 500 is."""
    for what in (*PAID, "download", "retrieve"):
        name, message = run.found["said"][f"error:3/{what}"]
        assert name == "Overloaded"
        assert "500" in message
        assert len(message) < 500


async def test_redirects_are_not_followed(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None]
) -> None:
    """By each wire, one request; it is not billed, and the other host and the variable are named."""
    quick_retries(monkeypatch)
    there = f"{sandbox.url.replace('127.0.0.1', 'localhost')}/openai/v1/embeddings"
    with endless(0) as server:
        url = f"{server.url}/moved/{quote(there, safe='')}"
        urls = dict.fromkeys(("OPENAI_BASE_URL", "CO_API_URL", "VOYAGE_BASE_URL"), url)
        async with open_router(tmp_path, sandbox, **urls) as router:
            for name, model in PAID.items():
                with pytest.raises(NotConfigured, match="307, a redirect to localhost") as caught:
                    await router.embed(some_texts(5), model=model, policy="quality")
                assert router.settings.endpoints[name].url_setting in caught.value.hint
            assert assert_books(router, sandbox).shown == 0
        assert sum(server.asked.values()) == len(PAID)
    assert sandbox.received() == []
    figure(38, f"a redirect to another host: {len(sandbox.received())} texts posted again")


def test_the_longest_honest_answer_is_within_its_bound() -> None:
    """Numbers at full length and indented, an object around each, and the texts repeated, every character escaped."""
    texts = ("\U0001f642" * 200, "é" * 200, "plain")
    call = call_of(3, dimensions=256)
    call = type(call)(model=call.model, texts=texts, role="document")
    rows = [
        {"object": "embedding", "index": i, "embedding": [-1.2345678901234567e-05] * 256, "text": text}
        for i, text in enumerate(texts)
    ]
    answer = {"object": "list", "data": rows, "texts": texts, "model": "m" * 100, "usage": {"prompt_tokens": 10**9}}
    assert len(json.dumps(answer, indent=1)) < reply_limit(call)
