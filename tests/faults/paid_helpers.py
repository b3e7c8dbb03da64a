"""What the tests of paid calls share: routers on the sandbox, quick retries, and the books that must be right after
every case."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from router.engine import Router
from router.providers.base import EmbedCall, Floats
from router.sandbox import Sandbox, expected_vectors
from tests.faults.ledger_oracle import Books, audit, audit_folder

SMALL = "openai/text-embedding-3-small"
PAID = {"openai": SMALL, "cohere": "cohere/embed-v4.0", "voyage": "voyage/voyage-3.5"}
"""A model of each provider."""
every_provider = pytest.mark.parametrize("name", PAID)

MIRROR = """
[endpoints.mirror]
base_url = "{url}"
encoding = "float"
[[models]]
like = "openai/text-embedding-3-small"
id = "mirror/text-embedding-3-small"
source = "made up for a test"
[[models.prices]]
since = 2026-01-01
now = "0.02"
source = "made up for a test"
checked = 2026-01-01
"""
"""An endpoint on OpenAI's wire whose vectors come as numbers."""


def open_router(folder: Path, sandbox: Sandbox, toml: str = "", **env: str) -> AbstractAsyncContextManager[Router]:
    """A router that is pointed at the sandbox; `toml` is its `router.toml`."""
    folder.mkdir(exist_ok=True)
    if toml:
        (folder / "router.toml").write_text(toml, "utf-8")
    return Router.open(folder, env={**sandbox.environment, **env})


def limits(name: str = "openai", **values: float) -> str:
    """A table of `router.toml`: `limits(max_texts_per_call=1)`."""
    return f"[providers.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


async def connected(router: Router, sandbox: Sandbox, *names: str) -> None:
    """Have these providers load their SDKs and connect, for which a time-out of a moment would be too short."""
    for name in names:
        model = router.catalog.get(PAID[name])
        await router.providers[name].embed(EmbedCall(model=model, texts=("to connect",), role="document"))
    sandbox.reset()


def some_texts(n: int, about: str = "text") -> list[str]:
    """So many texts, each its own."""
    return [f"{about} number {i}" for i in range(n)]


def right(model: str, texts: Sequence[str], role: str = "document") -> Floats:
    """What the provider answers for these texts, `(n, d)` float32."""
    return expected_vectors(model, list(texts), role=role)


def wrong(vectors: Floats, oracle: Floats) -> int:
    """Rows that are not what the oracle says."""
    assert vectors.shape == oracle.shape
    return int((~(np.abs(vectors - oracle).max(axis=1) < 1e-5)).sum())


def quick_retries(patch: pytest.MonkeyPatch) -> None:
    """Retries wait for milliseconds, where their timing is not the point."""
    patch.setattr("router.dispatch.steps.FIRST_WAIT_S", 0.005)
    patch.setattr("router.dispatch.steps.LONGEST_WAIT_S", 0.02)


@contextmanager
def soon() -> Iterator[None]:
    """The block does not sit out what it is told to wait for (half a minute and more). A busy machine is slow too."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took <= 25, f"took {took:.2f} s"


def assert_books(router: Router | Path, sandbox: Sandbox) -> Books:
    """The books after a case, when all is quiet: I1, I2, I5, nothing held, claimed or pending."""
    if isinstance(router, Path):
        books = audit_folder(router)
    else:
        conn = router.database.reader()
        books = audit(conn)  # I5
        over = conn.execute(
            "SELECT b.owner, b.window FROM balances b JOIN budgets l USING (owner, window)"
            " WHERE l.hard = 1 AND b.settled + b.unconfirmed + b.held > l.amount"
        ).fetchall()
        assert over == [], "I1: a hard limit was passed"
        assert conn.execute("SELECT count(*) FROM budgets WHERE hard = 1").fetchone()[0] > 0, "no limit to be passed"
        assert conn.execute("SELECT count(*) FROM claims").fetchone() == (0,), "a text is claimed for ever"
    assert sandbox.bill().nanodollars <= books.shown, "I2: the provider billed more than the ledger shows"
    assert (books.held, books.pending) == (0, 0), "money is held and nothing is under way"
    return books
