"""Fault 44: two actions in a row on ticked rows, in Chromium, while another process changes the rows under them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from router import Router
from router.library import Library
from tests.browser.helpers import ROOT, serving
from tests.browser.steps import CLICK_MS, TRY_MS, press, until_it_shows, visit
from tests.pages import seed

ROW = 35
"""Pixels: the height of a table's head, and of each of its rows."""
MILLION = 10**6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of this file's own, which this process writes to while the app does."""
    return tmp_path_factory.mktemp("ticks")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """An app on that folder."""
    seed.write(folder / "data", now=1_795_000_000.0, days=1, requests_a_day=2)
    with serving(
        ROOT / "app.py", folder / "log.txt", {"ROUTER_DATA": str(folder / "data"), "ROUTER_WORKER": "0"}
    ) as at:
        yield at


def elsewhere(folder: Path, do: Callable[[Router, Library], Coroutine[Any, Any, Any]]) -> Any:
    """Do something with the same data in another engine, as another process would."""

    async def go() -> Any:
        async with Router.open(folder / "data", env={}) as router:
            library = Library(router)
            try:
                return await do(router, library)
            finally:
                await library.aclose()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(go())).result()


def amounts(folder: Path) -> list[int]:
    """What is unconfirmed, newest first, in millions of nanodollars."""

    async def read(router: Router, _: Library) -> list[int]:
        return [row.amount // MILLION for row in router.ledger.unconfirmed()]

    found: list[int] = elsewhere(folder, read)
    return found


def tick(page: Page, table: Locator, row: int, then: Locator) -> None:
    """Tick a row of a table, and see the button say so; a second click would take the tick away."""

    def click() -> None:
        if not then.is_visible():
            table.click(position={"x": 15, "y": ROW * row + 1.5 * ROW}, timeout=TRY_MS)
        expect(then).to_be_visible(timeout=TRY_MS)

    until_it_shows(page, click)


def button(page: Page, label: str) -> Locator:
    """A button by the end of its name, which begins with its icon's."""
    return page.get_by_role("button", name=re.compile(rf"(^|\s){re.escape(label)}$"))


def agree(page: Page, button: Locator, yes: str, said: str) -> None:
    """Press a button, say yes to its question, and see what came of it."""
    dialog = page.get_by_role("dialog")
    press(page, button, then=dialog)
    answer(page, yes, said)


def answer(page: Page, yes: str, said: str) -> None:
    """Say yes to the question that stands."""
    dialog = page.get_by_role("dialog")

    def click() -> None:
        if dialog.is_visible():
            dialog.get_by_role("button", name=yes).click(timeout=TRY_MS)
        expect(dialog).to_have_count(0, timeout=CLICK_MS)

    until_it_shows(page, click)
    expect(page.get_by_text(said, exact=True).first).to_be_visible()


@pytest.mark.parametrize("name", ["spend", "models"])
def test_two_actions_on_ticked_charges(name: str, page: Page, url: str, folder: Path) -> None:
    """Strike two, then confirm one, then try one that was struck elsewhere; nobody else's charge is ever touched."""
    seed.unconfirmed(folder / "data", *(n * MILLION for n in range(1, 7)))
    others = amounts(folder)[6:]
    table = page.locator('[class*="st-key-unconfirmed-"] [data-testid="stDataFrame"]')
    strike, confirm = button(page, "Strike"), button(page, "Confirm")
    visit(page, f"{url}/{name}")
    expect(strike).to_be_disabled()
    tick(page, table, 0, then=button(page, "Strike 1 charge, $0.0060"))
    tick(page, table, 2, then=button(page, "Strike 2 charges, $0.0100"))
    seed.unconfirmed(folder / "data", 9 * MILLION)  # it stands above them when the button is pressed
    agree(page, button(page, "Strike 2 charges, $0.0100"), "Strike 2 charges", "2 charges, $0.0100 struck.")
    assert amounts(folder) == [9, 5, 3, 2, 1, *others]
    expect(strike).to_be_disabled()
    expect(confirm).to_be_disabled()

    tick(page, table, 2, then=button(page, "Confirm 1 charge, $0.0030"))
    agree(page, button(page, "Confirm 1 charge, $0.0030"), "Confirm 1 charge", "1 charge, $0.0030 confirmed.")
    assert amounts(folder) == [9, 5, 2, 1, *others]
    expect(strike).to_be_disabled()

    tick(page, table, 1, then=button(page, "Strike 1 charge, $0.0050"))
    press(page, button(page, "Strike 1 charge, $0.0050"), then=page.get_by_role("dialog"))

    async def first(router: Router, _: Library) -> None:
        (row,) = [row for row in router.ledger.unconfirmed() if row.amount == 5 * MILLION]
        await router.ledger.reconcile(row.id, confirm=False)

    elsewhere(folder, first)
    answer(page, "Strike 1 charge", "Nothing was changed. 1 charge had been confirmed or struck elsewhere.")
    assert amounts(folder) == [9, 2, 1, *others]
    expect(strike).to_be_disabled()


def test_two_actions_on_ticked_documents(page: Page, url: str, folder: Path) -> None:
    """Delete one, then another, while documents come before them, and a ticked one is replaced."""

    def names(_: Router, library: Library) -> Any:
        async def read() -> list[str]:
            return [row.name for row in library.documents("mine")]

        return read()

    def add(*letters: str, text: str = "The text of") -> None:
        for letter in letters:
            (folder / f"{letter}.md").write_text(f"{text} {letter}.")
        paths = [folder / f"{letter}.md" for letter in letters]
        elsewhere(folder, lambda _, library: library.add_files("mine", paths))

    elsewhere(folder, lambda _, library: library.create("mine", policy="local"))
    add("b", "d", "f", "h")
    table = page.locator('[class*="st-key-documents-mine-1-"] [data-testid="stDataFrame"]')
    delete = button(page, "Delete 1 document, 1 chunk")
    visit(page, f"{url}/collections?collection=mine")
    tick(page, table, 1, then=delete)  # d
    add("a", "c")
    agree(page, delete, "Delete 1 document", "1 document deleted.")
    assert elsewhere(folder, names) == ["a.md", "b.md", "c.md", "f.md", "h.md"]
    expect(delete).to_have_count(0)
    tick(page, table, 3, then=delete)  # f
    agree(page, delete, "Delete 1 document", "1 document deleted.")
    assert elsewhere(folder, names) == ["a.md", "b.md", "c.md", "h.md"]

    tick(page, table, 2, then=delete)  # c
    press(page, delete, then=page.get_by_role("dialog"))
    add("c", text="Another text of")
    said = "0 documents deleted. 1 document had been deleted or replaced elsewhere."
    answer(page, "Delete 1 document", said)
    assert elsewhere(folder, names) == ["a.md", "b.md", "c.md", "h.md"]
    expect(delete).to_have_count(0)
