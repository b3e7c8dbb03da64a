"""The frame: whatever URL is asked first, the page comes with its navigation around it (fault 33)."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Page, expect

from tests.browser.helpers import ROOT, settled

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py") if path.stem not in {"main", "__init__"})
NAVIGATION = '[data-testid="stSidebarNav"]'


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asked_first_on_a_fresh_server_comes_in_the_frame(
    name: str, fresh_app: Callable[[], AbstractContextManager[str]], page: Page
) -> None:
    """The first request that a server ever gets is for one page's URL: the frame runs, and that page in it."""
    with fresh_app() as url:
        page.goto(f"{url}/{name}")
        settled(page)
        expect(page.locator(NAVIGATION)).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page).to_have_title(re.compile(".+ · Embedding Router$"))
        assert page.get_by_role("dialog").count() == 0, page.get_by_role("dialog").inner_text()
        assert page.get_by_test_id("stException").count() == 0, page.get_by_test_id("stException").inner_text()


def test_every_page_is_in_the_navigation(app_url: str, page: Page) -> None:
    """A file in pages/ that no link leads to is dead or, worse, reachable some other way."""
    page.goto(app_url)
    settled(page)
    links = page.locator(f"{NAVIGATION} a").evaluate_all("links => links.map(link => new URL(link.href).pathname)")
    assert sorted(link.strip("/") or "overview" for link in links) == PAGES


def test_a_page_asks_no_other_host_for_anything(app_url: str, page: Page) -> None:
    """Fonts, icons and scripts come from this server: who looks at their money is nobody else's business."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        page.goto(f"{app_url}/{name}")
        settled(page)
        page.wait_for_load_state("networkidle")
    assert asked
    assert [url for url in asked if not url.startswith((app_url, "data:", "blob:"))] == []


def test_health_is_answered_without_a_page(app_url: str) -> None:
    """/healthz is served on the port of the pages."""
    with urllib.request.urlopen(f"{app_url}/healthz", timeout=10) as reply:
        assert reply.status == 200
        assert json.load(reply) == {"status": "ok"}
