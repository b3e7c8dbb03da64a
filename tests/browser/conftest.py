"""Fixtures of the tests that drive the app in a real Chromium. In CI a skip here is a failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.helpers import ROOT, find_chromium, launch, serving

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All browser tests go to one worker, so that they share one server."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, a skipped browser test is a failed one: nobody would read the skip."""
    report = yield
    if report.skipped and os.environ.get("CI") and HERE in item.path.parents and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


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
        yield context.new_page()


@pytest.fixture(scope="session")
def fresh_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[str]]:
    """`with fresh_app() as url:` is a server of its own on a data folder of its own."""

    def start() -> AbstractContextManager[str]:
        folder = tmp_path_factory.mktemp("app")
        return serving(ROOT / "app.py", folder / "log.txt", {"ROUTER_DATA": str(folder / "data")})

    return start


@pytest.fixture(scope="session")
def app_url(fresh_app: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of the server that the tests share."""
    with fresh_app() as url:
        yield url
