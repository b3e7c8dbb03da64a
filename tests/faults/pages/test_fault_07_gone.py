"""Fault 7 on the pages: who looks goes away, in the middle of a call or of a job.

Figures: holds that leak (0), paid vectors lost (0), texts billed twice (0); and how fast pages answer beside a job.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from router.host import Host
from router.sandbox import Fault, Sandbox
from tests.browser.helpers import PATIENCE_S, ROOT, serving, settled
from tests.browser.steps import press, visit, write
from tests.faults.ledger_oracle import audit_folder
from tests.faults.paid_helpers import assert_books
from tests.waits import until

SMALL = "openai/text-embedding-3-small"
TITLES = ("Route a text", "Collections", "Spend", "Policies", "Models", "Connections", "Overview")
TEXTS = 12


@pytest.fixture(scope="module")
def folder(running: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a collection whose texts wait to be confirmed, one a call, two calls at once."""
    path = tmp_path_factory.mktemp("gone") / "data"
    path.mkdir()
    (path / "router.toml").write_text(
        "[providers.openai]\nmax_texts_per_call = 1\nmax_in_flight = 2\ntimeout_s = 600\n", "utf-8"
    )
    rows = path.parent / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in range(TEXTS)), "utf-8")
    host = Host(path, env=running.environment)
    try:
        host.run(host.library.create("handbook", model=SMALL))
        host.run(host.library.add_files("handbook", [rows]))
    finally:
        host.close()
    return path


@pytest.fixture(scope="module")
def url(running: Sandbox, folder: Path) -> Iterator[str]:
    """The app on that folder."""
    env = {**running.environment, "ROUTER_DATA": str(folder)}
    with serving(ROOT / "app.py", folder.parent / "log.txt", env) as address:
        yield address


def wait_until(true: Callable[[], object]) -> None:
    """`until`, in a thread of its own: Playwright keeps an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, until(true)).result()


def test_a_page_that_goes_away_in_mid_call_loses_nothing(
    page: Page, url: str, folder: Path, sandbox: Sandbox, count: Callable[[int, int], int],
    figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """The page is run anew, reloaded or closed while its call is out: the call settles and its vector is kept."""
    trials, asked = count(3, 30), [f"asked in trial {n}" for n in range(count(3, 30))]
    for trial, text in enumerate(asked):
        sandbox.faults.add(Fault("hang"))
        tab = page.context.new_page()
        visit(tab, f"{url}/route")
        texts, embed = (
            tab.get_by_label("Texts, one a line"),
            tab.get_by_role("button", name=re.compile("^Embed 1 text")),
        )
        write(tab, texts, text, enter="Control+Enter", then=embed)
        embed.click()
        wait_until(lambda: sandbox.bill().calls > trial)  # noqa: B023  # done before the next turn
        if trial % 3 == 0:
            texts.fill("another text")
            texts.press("Control+Enter")
        elif trial % 3 == 1:
            tab.reload()
        else:
            tab.close()
        sandbox.release()
        wait_until(lambda: is_settled(folder, sandbox))
        tab.close()
    visit(page, f"{url}/route")
    write(page, page.get_by_label("Texts, one a line"), "\n".join(asked), enter="Control+Enter",
          then=page.get_by_text(f"Without the {trials} cached: 0 texts"))  # fmt: skip
    bill = sandbox.bill()
    assert (bill.texts, bill.most_often) == (trials, 1)
    assert_books(folder, sandbox)
    figure(7, f"{trials} pages gone in mid-call: 0 holds leaked, 0 paid vectors lost")


def is_settled(folder: Path, sandbox: Sandbox, before: int = 0) -> bool:
    """Whether all that was billed since then is settled, and nothing is held."""
    books = audit_folder(folder)
    return (books.settled - before, books.held) == (sandbox.bill().nanodollars, 0)


def tour(page: Page) -> dict[str, float]:
    """Seconds until each page is drawn, from the click on its link."""
    took = {}
    for title in TITLES:
        start = time.monotonic()
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
        settled(page)
        took[title] = time.monotonic() - start
    return took


def test_pages_answer_beside_a_job_that_outlives_its_tab(
    browser: Browser, page: Page, url: str, folder: Path, sandbox: Sandbox, figure: Callable[[int, str], None]
) -> None:
    """A starts a job, looks at every page and is closed; B sees it go on and end; what B changes, C sees."""
    spent = audit_folder(folder).settled
    sandbox.faults.add(Fault("hang", times=None, seconds=600))  # each call, until it is released
    with browser.new_context() as context:
        a = context.new_page()
        a.set_default_timeout(1_000 * PATIENCE_S)
        visit(a, url)
        before = tour(a)
        visit(a, f"{url}/collections?collection=handbook")
        order = a.get_by_role("button", name=re.compile(f"^Embed {TEXTS} texts"))
        press(a, order, then=a.get_by_text("Job 1"))
        beside = tour(a)  # a page that waited for the job would not be drawn at all
        slowest = max(TITLES, key=lambda title: beside[title])
        figure(7, f"pages beside a job: slowest {slowest} in {beside[slowest]:.2f} s, without it"
                  f" {before[slowest]:.2f} s; of all {max(before.values()):.2f} s")  # fmt: skip
        assert sandbox.bill().calls == 2, "the job is not as it was"
    b = page  # A is closed
    progress = b.get_by_test_id("stSidebar").get_by_text(re.compile(f" of {TEXTS} texts"))
    visit(b, url)
    expect(progress).to_contain_text(f"0 of {TEXTS} texts")
    sandbox.release()
    expect(progress).to_contain_text(f"2 of {TEXTS} texts")  # by itself
    visit(b, f"{url}/collections?collection=handbook&tab=Jobs")
    expect(b.get_by_role("button", name="Pause")).to_be_visible()
    sandbox.faults.clear()
    sandbox.release()
    expect(b.get_by_role("button", name="Search it")).to_be_visible()
    expect(progress).to_have_count(0)
    wait_until(lambda: is_settled(folder, sandbox, spent))
    assert (sandbox.bill().texts, sandbox.bill().most_often) == (TEXTS, 1)

    with browser.new_context() as context:
        c = context.new_page()
        c.set_default_timeout(1_000 * PATIENCE_S)
        visit(c, f"{url}/policies?policy=economy")
        visit(b, f"{url}/policies?policy=economy")
        press(b, b.get_by_text("Local models only"), then=b.get_by_text("local only: no → yes"))
        press(b, b.get_by_role("button", name="Save", exact=True), then=b.get_by_text("Saved: economy, version 2."))
        c.reload()
        expect(c.get_by_text("Versions (2)")).to_be_visible()
        expect(c.get_by_role("switch", name="Local models only")).to_be_checked()
        stopped = "Paid calls are stopped. Cache and local models go on."
        press(c, c.get_by_test_id("stSidebar").get_by_text("Paid calls"), then=c.get_by_text(stopped))
        press(b, b.get_by_role("link", name="Models"), then=b.get_by_text(stopped))
        expect(b.get_by_role("switch", name="Paid calls")).not_to_be_checked()
    figure(7, f"a job of {TEXTS} texts outlived its tab: 0 billed twice; two browsers showed the same")
