"""Fixtures of the tests that drive the app in a real Chromium; tests/conftest.py keeps them in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from router.sandbox import Sandbox
from tests.browser.helpers import PATIENCE_S, ROOT, find_chromium, launch, serving
from tests.pages import seed

expect.set_options(timeout=1_000 * PATIENCE_S)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium a file. Not one a session: Playwright keeps an event loop running in this thread until it
    is closed, and any asyncio test that came after it in the same process would fail."""
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine; install one, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh tab without cookies or cache."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        context.set_default_timeout(1_000 * PATIENCE_S)
        yield context.new_page()


@pytest.fixture(scope="session")
def app_url(running: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the server that the tests share: made-up traffic of the last days, and keys for the sandbox."""
    folder = tmp_path_factory.mktemp("app")
    seed.write(folder / "data", now=time.time(), days=12, requests_a_day=3)
    env = {**running.environment, "ROUTER_DATA": str(folder / "data")}
    with serving(ROOT / "app.py", folder / "log.txt", env) as url:
        yield url
