"""Faults as people meet them: the app in a real Chromium, with the fixtures of tests/browser."""

from tests.browser.conftest import browser, page

__all__ = ["browser", "page"]
