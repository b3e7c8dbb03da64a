"""A sandbox for the tests of the real SDKs, and providers that are closed afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from router.config import Settings, load_settings
from router.engine import PROVIDERS
from router.providers.base import Provider
from router.sandbox import Sandbox

Connect = Callable[..., Provider]


@pytest.fixture
def settings(tmp_path: Path, sandbox: Sandbox) -> Settings:
    """The settings of a process that is pointed at the sandbox."""
    return load_settings(tmp_path, env=sandbox.environment)


@pytest.fixture
async def connect(settings: Settings) -> AsyncIterator[Connect]:
    """`connect("openai", timeout_s=1)` is the provider, its endpoint changed so; closed at the end."""
    made: list[Provider] = []

    def make(name: str, **changes: object) -> Provider:
        endpoint = settings.endpoints[name]
        for key, value in changes.items():
            setattr(endpoint, key, value)
        made.append(PROVIDERS[endpoint.wire](endpoint))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()
