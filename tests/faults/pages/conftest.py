"""Faults as people meet them: the app in a real Chromium, with the fixtures of tests/browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import browser, page

__all__ = ["browser", "page"]

LONG = frozenset({"test_fault_07_gone.py", "test_fault_29_keys.py"})
"""A minute between them, so only under `--full` (make faults)."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves the long ones out, unless asked for."""
    return (collection_path.name in LONG and not config.getoption("--full")) or None
