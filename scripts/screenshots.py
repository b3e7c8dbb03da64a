"""Every page as people see it, for looking at: `.venv/bin/python -m scripts.screenshots FOLDER [page ...]`.

Light and dark, 1280 and 400 wide, on an empty data folder and on the demo's ninety days; whole pages, not just what
fits on a screen. A page may be given with its query, as in `policies?policy=default`. With `--readme` instead of a
folder: the pictures of the README, into docs/images.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from router.demo import write
from router.sandbox import Sandbox
from tests.browser.helpers import ROOT, launch, serving, settled

PAGES = (
    "", "route", "spend", "policies", "policies?policy=default", "policies?policy=new+policy", "collections", "models",
    "connections",
)  # fmt: skip
WIDTHS = (1280, 400)
README = {"overview": "", "spend": "spend", "models": "models"}
README_HEIGHT = 1240
DRAWN = """
() => !document.querySelector('[data-testid=stSkeleton], [data-stale=true]')
  && [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(c => c.querySelector('.main-svg'))
"""


def whole(page: Page) -> None:
    """Make the window as high as the page, since Streamlit scrolls inside of it."""
    before = 0
    for _ in range(6):
        page.wait_for_load_state("networkidle")
        page.wait_for_function(DRAWN)
        height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
        if height == before:
            break
        page.set_viewport_size({"width": page.viewport_size["width"], "height": int(max(700, height + 40))})
        before = height
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


def readme(browser: Browser, url: str) -> None:
    """The pictures of the README."""
    for name, path in README.items():
        with browser.new_context(viewport={"width": 1280, "height": README_HEIGHT}, color_scheme="light") as context:
            page = context.new_page()
            page.goto(f"{url}/{path}")
            settled(page)
            page.wait_for_load_state("networkidle")
            page.wait_for_function(DRAWN)
            page.wait_for_timeout(700)
            file = ROOT / "docs" / "images" / f"{name}.png"
            page.screenshot(path=file)
            pack(file)


def pack(file: Path) -> None:
    """Keep the 256 most frequent colours, exactly: every surface and hue, and of the letters' edges the nearest."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(np.int32)
    found, where, often = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    kept = found[np.argsort(-often)[:256]]
    nearest = ((found[:, None] - kept) ** 2).sum(axis=2).argmin(axis=1)  # Pillow's own look-up greys the white
    small = Image.fromarray(nearest[where].reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
    small.putpalette(kept.astype(np.uint8).tobytes())
    small.save(file, optimize=True)


def main() -> int:
    """0; the pictures are in the folder."""
    where, *named = sys.argv[1:]
    pages = tuple(named) or PAGES
    with tempfile.TemporaryDirectory() as name, Sandbox(vectors="hash") as sandbox, ThreadPoolExecutor(1) as thread:
        # In a thread of its own: Playwright keeps an event loop running in the one that it is used in.
        thread.submit(write, Path(name) / "data", now=time.time()).result()
        demo = sandbox.environment | {"ROUTER_DEMO": "1"}
        with sync_playwright() as playwright, launch(playwright) as browser:
            for state in ("empty", "data"):
                env = {"ROUTER_DATA": str(Path(name) / state)} | (demo if state == "data" else {})
                if where == "--readme" and state == "empty":
                    continue
                with serving(ROOT / "app.py", Path(name) / f"{state}.log", env) as url:
                    if where == "--readme":
                        readme(browser, url)
                    else:
                        Path(where).mkdir(parents=True, exist_ok=True)
                        shoot(browser, url, Path(where), state, pages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
