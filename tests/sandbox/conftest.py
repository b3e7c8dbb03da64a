"""Batches move by hand only here."""

from __future__ import annotations

import pytest

from router.sandbox import Sandbox


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """The provider, whose batches are never done by themselves."""
    sandbox.configure(batch_seconds=1e9)
    return sandbox
