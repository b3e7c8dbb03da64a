"""The provider on loopback, for the tests of this folder that ask for it."""

from __future__ import annotations

import pytest

from router.sandbox import Sandbox


@pytest.fixture
def provider(sandbox: Sandbox) -> Sandbox:
    """The provider, whose batches are done in a moment."""
    sandbox.configure(batch_seconds=0.05)
    return sandbox
