"""What people do here, from the first click to the last, in Chromium, against the provider on loopback and its bill."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from router.domain import money
from router.sandbox import Sandbox
from tests.browser.helpers import ROOT, serving, settled
from tests.pages import seed


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The provider on loopback."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def url(sandbox: Sandbox, tmp_path: Path) -> Iterator[str]:
    """The app with a key for the sandbox, on a data folder of its own."""
    env = {**sandbox.environment, "ROUTER_DATA": str(tmp_path / "data")}
    with serving(ROOT / "app.py", tmp_path / "log.txt", env) as running:
        yield running


def choose(page: Page, label: str, option: str) -> None:
    """Pick an option of a select box by typing it, once nothing moves: its list closes when the page does."""
    page.evaluate("Promise.all(document.getAnimations().map(a => a.finished.catch(() => null)))")
    box = page.get_by_role("combobox", name=label, exact=True)
    box.fill(option)
    expect(page.get_by_role("option", name=option, exact=True)).to_be_visible()
    box.press("Enter")
    settled(page)
    expect(box).to_have_value(option)


def embed(page: Page, texts: str) -> None:
    """Write texts, wait for their quote, and press the button."""
    page.get_by_label("Texts, one a line").fill(texts)
    page.get_by_label("Texts, one a line").press("Control+Enter")
    settled(page)
    page.get_by_role("button", name=re.compile("^Embed .* for ")).click()


def test_a_policy_with_a_budget_holds(page: Page, url: str, sandbox: Sandbox) -> None:
    """Create a policy with a tiny budget, embed paid texts until it refuses, and read the spend: it is the bill."""
    page.goto(f"{url}/policies")
    settled(page)
    page.get_by_role("button", name="New policy").click()
    page.get_by_label("Name").fill("tiny")
    page.get_by_label("Name").press("Enter")
    settled(page)
    page.get_by_role("button", name="Add a budget").click()
    page.get_by_label("Dollars").fill("0.00001")
    page.get_by_label("Dollars").press("Enter")
    settled(page)
    choose(page, "When the money is gone", "Refuse")
    expect(page.get_by_text("budget: none → $0.000010 a month")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: tiny, version 1.")).to_be_visible()

    page.get_by_role("link", name="Route a text").click()
    settled(page)
    choose(page, "Policy", "tiny")
    page.get_by_text("Model and dimensions").click()
    choose(page, "Model", "openai/text-embedding-3-small")
    long = " ".join(["a text that is paid for"] * 60)  # about 300 tokens, 6,000 nanodollars
    embed(page, f"{long}\nand a short one\nand a short one")
    expect(page.get_by_text("API 2")).to_be_visible()
    expect(page.get_by_text("repeated 1")).to_be_visible()
    assert sandbox.bill().calls == 1

    page.get_by_label("Texts, one a line").fill(f"another, {long}")
    page.get_by_label("Texts, one a line").press("Control+Enter")
    refusal = page.get_by_text(re.compile(r"more is needed\."))
    expect(refusal.first).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("^Embed "))).to_have_count(0)
    bill = sandbox.bill()
    assert bill.calls == 1
    assert 5_000 < bill.nanodollars <= 10_000

    page.goto(f"{url}/spend?only=tiny")
    settled(page)
    spent = page.get_by_test_id("stMetric").filter(has=page.get_by_text("Spent", exact=True))
    expect(spent).to_contain_text(money.show(bill.nanodollars))
    expect(page.get_by_test_id("stSidebar")).to_contain_text("of $10.00 a month")


def test_a_corpus_is_quoted_embedded_searched_and_exported(
    page: Page, url: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Upload good and bad files, read the quote, confirm, watch the job to its end, find a text, take it all away."""
    page.goto(f"{url}/collections")
    settled(page)
    page.get_by_text("New collection").click()
    page.get_by_label("Name", exact=True).fill("handbook")
    page.get_by_label("Name", exact=True).press("Enter")
    settled(page)
    page.get_by_role("button", name="Create it").click()
    expect(page.get_by_text("No document yet.")).to_be_visible()

    articles = [ROOT / "samples/help-centre" / f"{name}.md" for name in ("cancel-an-invoice", "backups", "audit-log")]
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files([*articles, tmp_path / "broken.pdf"])
    page.get_by_role("button", name="Read 4 files").click()
    expect(page.get_by_text("3 of 4 files could be read.")).to_be_visible()
    expect(page.get_by_text(re.compile("^3 documents .3 new., "))).to_be_visible()
    assert sandbox.bill().calls == 0
    choose(page, "Model", "openai/text-embedding-3-small")
    choose(page, "When", "now")
    page.get_by_role("button", name=re.compile("^Embed .* with text-embedding-3-small")).click()
    expect(page.get_by_text("Job 1")).to_be_visible()
    page.get_by_role("button", name="Search it").click()  # which comes when the job is done
    bill = sandbox.bill()
    assert bill.calls > 0

    page.get_by_label("Look for").fill("How is an invoice cancelled?")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text(re.compile("texts compared in openai/text-embedding-3-small"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"cancel-an-invoice\.md#\d")).first).to_be_visible()
    assert sandbox.bill().calls == bill.calls + 1

    page.get_by_text("Settings", exact=True).click()
    settled(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="JSON lines").click()
    rows = [json.loads(line) for line in Path(waiting.value.path()).read_text().splitlines()]
    vectors = [row for row in rows if "vector" in row]
    assert {row["id"].partition("#")[0] for row in vectors} == {path.name for path in articles}
    assert {len(row["vector"]) for row in vectors} == {1536}


def test_the_dashboard_is_filtered_and_drilled_into(page: Page, tmp_path: Path) -> None:
    """From the month's figure to one group's, to a request, to what it was decided among; the view is in the URL."""
    seed.write(tmp_path / "data", now=time.time(), days=12, requests_a_day=3)
    with serving(ROOT / "app.py", tmp_path / "log.txt", {"ROUTER_DATA": str(tmp_path / "data")}) as url:
        page.goto(url)
        settled(page)
        expect(page.get_by_test_id("stMetric").first).to_contain_text("Spent this month")
        page.get_by_role("link", name="Spend").click()
        settled(page)
        page.get_by_role("radio", name="model").click()
        settled(page)
        choose(page, "Policy", "quality")
        expect(page).to_have_url(re.compile("by=model"))
        expect(page).to_have_url(re.compile("only=quality"))
        settled(page)  # the URL is set while the page is still being drawn
        shown = page.get_by_test_id("stMetric").first.inner_text()
        page.goto(page.url)  # as somebody opens it to whom the link was sent
        settled(page)
        expect(page.get_by_role("heading", name="Spent a day, by model")).to_be_visible()
        assert page.get_by_test_id("stMetric").first.inner_text() == shown
        table = page.get_by_test_id("stDataFrame").nth(1)
        table.scroll_into_view_if_needed()
        table.click(position={"x": 15, "y": 55})
        expect(page.get_by_text(re.compile(r"^Request \d+ · "))).to_be_visible()
        expect(page.get_by_text(re.compile("policy quality, version 1"))).to_be_visible()
