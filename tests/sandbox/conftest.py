"""A sandbox a module, reset for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router.sandbox import Sandbox, SandboxConfig


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """One sandbox for the tests of a module."""
    with Sandbox(batch_seconds=1e9) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """A sandbox with an empty bill, no faults and the default configuration (batches move by hand only)."""
    running.reset()
    defaults = SandboxConfig(batch_seconds=1e9)
    running.configure(**{name: getattr(defaults, name) for name in SandboxConfig.__dataclass_fields__})
    return running
