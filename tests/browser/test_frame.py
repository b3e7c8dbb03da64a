"""The frame: whatever URL is asked first, the page comes with its navigation around it (fault 33)."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.helpers import PATIENCE_S, ROOT, serving
from tests.browser.steps import visit

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py") if path.stem not in {"main", "__init__"})
NAVIGATION = '[data-testid="stSidebarNav"]'


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each page costs the start of a server: two of them, and all under `--full`."""
    if "first" in metafunc.fixturenames:
        metafunc.parametrize("first", PAGES if metafunc.config.getoption("--full") else ["collections", "spend"])


def visit_in_frame(page: Page, url: str) -> None:
    """Open a page and see it drawn, with what stands around every page."""
    visit(page, url)
    expect(page.locator(NAVIGATION)).to_be_visible()
    expect(page).to_have_title(re.compile(".+ · Embedding Router$"))
    assert page.get_by_role("dialog").count() == 0, page.get_by_role("dialog").inner_text()
    assert page.get_by_test_id("stException").count() == 0, page.get_by_test_id("stException").inner_text()


def test_a_page_asked_first_on_a_fresh_server_comes_in_the_frame(first: str, tmp_path: Path, page: Page) -> None:
    """The first request that a server ever gets is for one page's URL: the frame runs, and that page in it."""
    with serving(ROOT / "app.py", tmp_path / "log.txt", {"ROUTER_DATA": str(tmp_path / "data")}) as url:
        visit_in_frame(page, f"{url}/{first}")


def test_every_page_is_in_the_navigation(app_url: str, page: Page) -> None:
    """A file in pages/ that no link leads to is dead or, worse, reachable some other way."""
    visit(page, app_url)
    links = page.locator(f"{NAVIGATION} a").evaluate_all("links => links.map(link => new URL(link.href).pathname)")
    assert sorted(link.strip("/") or "overview" for link in links) == PAGES


def test_every_page_comes_in_the_frame_and_asks_no_other_host_for_anything(app_url: str, page: Page) -> None:
    """Fonts, icons and scripts come from this server: who looks at their money is nobody else's business."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        visit_in_frame(page, f"{app_url}/{name}")
        page.wait_for_load_state("networkidle")
    assert asked
    assert [url for url in asked if not url.startswith((app_url, "data:", "blob:"))] == []


def test_health_is_answered_without_a_page(app_url: str) -> None:
    """/healthz is served on the port of the pages."""
    with urllib.request.urlopen(f"{app_url}/healthz", timeout=PATIENCE_S) as reply:
        assert reply.status == 200
        assert json.load(reply) == {"status": "ok"}
