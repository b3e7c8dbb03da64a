"""The provider on loopback, for the tests of this folder that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router.sandbox import Sandbox, SandboxConfig


@pytest.fixture(scope="session")
def one_sandbox() -> Iterator[Sandbox]:
    """One provider for all tests of the folder."""
    with Sandbox(batch_seconds=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def provider(one_sandbox: Sandbox) -> Sandbox:
    """The provider with an empty bill, no faults and its usual settings."""
    one_sandbox.reset()
    usual = SandboxConfig(batch_seconds=0.05)
    one_sandbox.configure(**{name: getattr(usual, name) for name in SandboxConfig.__dataclass_fields__})
    return one_sandbox
