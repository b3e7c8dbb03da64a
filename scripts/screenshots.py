"""Every page as people see it, for looking at: `.venv/bin/python -m scripts.screenshots FOLDER [page ...]`.

Light and dark, 1280 and 400 wide, on an empty data folder and on one with made-up traffic; whole pages, not just what
fits on a screen. A page may be given with its query, as in `policies?policy=default`.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.helpers import ROOT, launch, serving, settled
from tests.pages import seed

PAGES = ("", "route", "spend", "policies", "policies?policy=default", "collections", "models", "connections")
WIDTHS = (1280, 400)


def whole(page: Page) -> None:
    """Make the window as high as the page, since Streamlit scrolls inside of it."""
    page.wait_for_load_state("networkidle")
    for _ in range(2):
        height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
        page.set_viewport_size({"width": page.viewport_size["width"], "height": int(max(700, height + 40))})
        page.wait_for_function(
            "[...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(c => c.querySelector('.main-svg'))"
        )
        page.wait_for_load_state("networkidle")
    page.wait_for_timeout(700)  # charts and tables are drawn over several frames, and nothing says when the last is


def shoot(browser: Browser, url: str, folder: Path, state: str, pages: tuple[str, ...]) -> None:
    """All pages of one server."""
    for theme in ("light", "dark"):
        for width in WIDTHS:
            for name in pages:
                with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme) as context:
                    page = context.new_page()
                    page.goto(f"{url}/{name}")
                    settled(page)
                    whole(page)
                    label = re.sub(r"\W+", "-", name) or "overview"
                    page.screenshot(path=folder / f"{label}-{state}-{theme}-{width}.png")


def main() -> int:
    """0; the pictures are in the folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    pages = tuple(sys.argv[2:]) or PAGES
    with tempfile.TemporaryDirectory() as name:
        seed.write(Path(name) / "data", now=time.time())
        with sync_playwright() as playwright, launch(playwright) as browser:
            for state in ("empty", "data"):
                env = {"ROUTER_DATA": str(Path(name) / state)}
                with serving(ROOT / "app.py", Path(name) / f"{state}.log", env) as url:
                    shoot(browser, url, folder, state, pages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
