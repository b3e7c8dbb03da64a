"""What people do on a page, done until it shows.

Streamlit redraws a page at any moment after a step: a late rerun closes a list, replaces a box with what was typed in
it, or moves a button away under the mouse, and the slower the machine, the more often. So every step waits for what
it is to bring about, and is done again where that does not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from playwright.sync_api import Error, Locator, Page, Position, expect

from tests.browser.helpers import PATIENCE_S, settled

TRY_MS = 10_000
"""How long one try waits for what it brings about, before the next."""
CLICK_MS = 20_000
"""The same for a click: it is hardly ever lost, and to click twice is not always as good as once."""


def visit(page: Page, url: str) -> None:
    """Open a page and wait until it is drawn."""
    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    settled(page)


def press(page: Page, what: Locator, then: Locator, *, at: tuple[float, float] | None = None) -> None:
    """Click, and see what comes of it. `at` is where in the element, else in its middle."""
    position: Position | None = {"x": at[0], "y": at[1]} if at else None

    def click() -> None:
        if not then.is_visible():
            what.click(timeout=TRY_MS, position=position)
        expect(then).to_be_visible(timeout=CLICK_MS)

    until_it_shows(page, click)


def write(page: Page, box: Locator, text: str, then: Locator, *, enter: str = "Enter") -> None:
    """Fill in a text box, and see what comes of it."""

    def fill() -> None:
        box.fill(text, timeout=TRY_MS)
        box.press(enter, timeout=TRY_MS)
        expect(then).to_be_visible(timeout=TRY_MS)
        expect(box).to_have_value(text, timeout=TRY_MS)

    until_it_shows(page, fill)


def choose(page: Page, label: str, option: str) -> None:
    """Pick an option of a select box by typing it."""
    box = page.get_by_role("combobox", name=label, exact=True)

    def pick() -> None:
        box.blur(timeout=TRY_MS)  # what was typed and not picked goes
        if box.input_value(timeout=TRY_MS) != option:
            box.fill(option, timeout=TRY_MS)
            page.get_by_role("option", name=option, exact=True).click(timeout=TRY_MS)
            box.blur(timeout=TRY_MS)
        expect(box).to_have_value(option, timeout=TRY_MS)

    until_it_shows(page, pick)


def until_it_shows(page: Page, step: Callable[[], None]) -> None:
    """Do a step that waits for what it brings about, up to a time, until that comes."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        settled(page)
        try:
            step()
        except (AssertionError, Error):
            if time.monotonic() > deadline:
                raise
        else:
            break
    settled(page)
