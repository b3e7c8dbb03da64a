"""What people do here, from the first click to the last, in Chromium, against the provider on loopback and its bill."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from router.domain import money
from router.sandbox import Sandbox
from tests.browser.helpers import ROOT, serving, settled


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
