"""Faults 37 and 38: answers that do not end, plain and packed, and redirects to another host.

Figures: MiB by which a process grew (under 256), requests for each answer (1), texts that reached another host (0).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
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


def grown(folder: Path, url: str, texts: int, *kinds: str) -> dict[str, Any]:
    """What the program says that asks for endless answers."""
    command = [sys.executable, "-m", "tests.faults.endless", str(folder), url, str(texts), *kinds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_an_endless_answer_is_read_no_further_than_it_may_go(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """By each wire, and for batches: one clear error, one request, booked once as what it may have cost."""
    size = count(100, 700) * 1_000_000
    most = count(40, 256)
    with endless(size) as server:
        found = grown(tmp_path / "data", server.url, 3, *KINDS)
        said = found["said"]
        for kind in KINDS:
            for what in (*PAID, "download", "retrieve"):
                name, message = said[f"{kind}/{what}"]
                assert name == "BadReply"
                assert "answered with more than" in message
            settled, unconfirmed, held = said[f"{kind}/totals"]
            assert (settled, held) == (0, 0)
            assert unconfirmed > 0
        assert sum(server.asked.values()) == len(KINDS) * (len(PAID) + 2)
        assert max(server.asked.values()) == 1
    assert found["results"] <= 1 << 20
    assert found["grown_mib"] < most
    figure(
        37, f"{size // 10**6} MB, {', '.join(KINDS)}, by each wire: grew by {found['grown_mib']:.0f} MiB, asked once"
    )


def test_a_large_call_may_have_a_large_answer_and_no_more(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """Each wire's calls of so many texts at once: within the same bound."""
    size, texts = count(100, 700) * 1_000_000, count(100, 600)
    with endless(size) as server:
        found = grown(tmp_path / "data", server.url, texts, "gzip")
    assert found["grown_mib"] < 256
    figure(37, f"{texts} texts, {size // 10**6} MB of gzip: grew by {found['grown_mib']:.0f} MiB")


def test_an_endless_error_is_read_to_its_beginning(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[int, str], None]
) -> None:
    """The status counts: it is sent again as any 500 is, and the memory stays where it was."""
    size = count(100, 500) * 1_000_000
    with endless(size) as server:
        found = grown(tmp_path / "data", server.url, 1, "error")
    said = found["said"]
    for what in (*PAID, "download", "retrieve"):
        name, message = said[f"error/{what}"]
        assert name == "Overloaded"
        assert "500" in message
        assert len(message) < 500
    assert found["grown_mib"] < count(40, 256)
    figure(37, f"an error of {size // 10**6} MB, by each wire: grew by {found['grown_mib']:.0f} MiB")


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
