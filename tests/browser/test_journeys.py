"""What people do here, from the first click to the last, in Chromium, against the provider on loopback and its bill."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from router.domain import money
from router.sandbox import Sandbox
from tests.browser.helpers import ROOT
from tests.browser.steps import choose, press, visit, write


def test_a_policy_with_a_budget_holds(page: Page, app_url: str, sandbox: Sandbox) -> None:
    """Create a policy with a tiny budget, embed paid texts until it refuses, and read the spend: it is the bill."""
    name, dollars = page.get_by_label("Name"), page.get_by_label("Dollars")
    visit(page, f"{app_url}/policies")
    press(page, page.get_by_role("button", name="New policy"), then=name)
    write(page, name, "tiny", then=page.get_by_text("The defaults: balanced"))
    press(page, page.get_by_role("button", name="Add a budget"), then=dollars)
    write(page, dollars, "0.00001", then=page.get_by_text("budget: none → $0.000010 a month"))
    choose(page, "When the money is gone", "Refuse")
    expect(page.get_by_text("when the money is gone: local → refuse")).to_be_visible()
    press(page, page.get_by_role("button", name="Save"), then=page.get_by_text("Saved: tiny, version 1."))

    texts, go = (
        page.get_by_label("Texts, one a line"),
        page.get_by_role("button", name=re.compile(r"Embed \d+ texts?: ")),
    )
    press(page, page.get_by_role("link", name="Route a text"), then=texts)
    choose(page, "Policy", "tiny")
    press(page, page.get_by_text("Model and dimensions"), then=page.get_by_role("combobox", name="Model", exact=True))
    choose(page, "Model", "openai/text-embedding-3-small")
    long = " ".join(["a text that is paid for"] * 60)  # about 300 tokens, 6,000 nanodollars
    write(page, texts, f"{long}\nand a short one\nand a short one", then=go, enter="Control+Enter")
    press(page, go, then=page.get_by_text("API 2"))
    expect(page.get_by_text("repeated 1")).to_be_visible()
    assert sandbox.bill().calls == 1

    refusal = page.get_by_text(re.compile(r"more is needed\."))
    write(page, texts, f"another, {long}", then=refusal.first, enter="Control+Enter")
    expect(page.get_by_role("button", name=re.compile(r"Embed \d+ texts?: "))).to_have_count(0)
    bill = sandbox.bill()
    assert bill.calls == 1
    assert 5_000 < bill.nanodollars <= 10_000

    visit(page, f"{app_url}/spend?only=tiny")
    spent = page.get_by_test_id("stMetric").filter(has=page.get_by_text("Spent", exact=True))
    expect(spent).to_contain_text(money.show(bill.nanodollars))
    expect(page.get_by_test_id("stSidebar")).to_contain_text("of $10.00 a month")


def test_a_corpus_is_quoted_embedded_searched_and_exported(
    page: Page, app_url: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Upload good and bad files, read the quote, confirm, watch the job to its end, find a text, take it all away."""
    name, create = (
        page.get_by_label("Name", exact=True),
        page.get_by_role("button", name=re.compile(r"\bCreate$"), disabled=False),
    )
    visit(page, f"{app_url}/collections")
    press(page, page.get_by_text("New collection"), then=name)
    write(page, name, "handbook", then=create)
    press(page, create, then=page.get_by_text("No document yet."))

    articles = [ROOT / "samples/help-centre" / f"{name}.md" for name in ("cancel-an-invoice", "backups", "audit-log")]
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files([*articles, tmp_path / "broken.pdf"])
    read = page.get_by_role("button", name="Read 4 files")
    expect(read).to_be_visible()
    press(page, read, then=page.get_by_text("3 of 4 files could be read."))
    expect(page.get_by_text(re.compile("^3 documents .3 new., "))).to_be_visible()
    assert sandbox.bill().calls == 0
    choose(page, "Model", "openai/text-embedding-3-small")
    choose(page, "When", "now")
    order = page.get_by_role("button", name=re.compile("^Embed .* with text-embedding-3-small"))
    press(page, order, then=page.get_by_text("Job 1"))
    look = page.get_by_label("Look for")
    press(page, page.get_by_role("button", name="Search it"), then=look)  # which comes when the job is done
    bill = sandbox.bill()
    assert bill.calls > 0

    look.fill("How is an invoice cancelled?")
    found = page.get_by_text(re.compile("texts compared in openai/text-embedding-3-small"))
    press(page, page.get_by_role("button", name="Search", exact=True), then=found)
    expect(page.get_by_text(re.compile(r"cancel-an-invoice\.md#\d")).first).to_be_visible()
    assert sandbox.bill().calls == bill.calls + 1

    export = page.get_by_role("link", name="JSON lines")
    press(page, page.get_by_text("Settings", exact=True), then=export)
    with page.expect_download() as waiting:
        export.click()
    rows = [json.loads(line) for line in Path(waiting.value.path()).read_text().splitlines()]
    vectors = [row for row in rows if "vector" in row]
    assert {row["id"].partition("#")[0] for row in vectors} == {path.name for path in articles}
    assert {len(row["vector"]) for row in vectors} == {1536}


def test_the_dashboard_is_filtered_and_drilled_into(page: Page, app_url: str) -> None:
    """From the month's figure to one group's, to a request, to what it was decided among; the view is in the URL."""
    figure = page.get_by_test_id("stMetric").first
    by_model = page.get_by_role("heading", name="Spent a day, by model")
    visit(page, app_url)
    expect(figure).to_contain_text("Spent this month")
    press(page, page.get_by_role("link", name="Spend"), then=page.get_by_role("radio", name="model"))
    press(page, page.get_by_role("radio", name="model"), then=by_model)
    all_policies = figure.inner_text()
    choose(page, "Policy", "quality")
    expect(figure).not_to_have_text(all_policies, use_inner_text=True)
    expect(page).to_have_url(re.compile("by=model"))
    expect(page).to_have_url(re.compile("only=quality"))
    shown = figure.inner_text()
    visit(page, page.url)  # as somebody opens it to whom the link was sent
    expect(by_model).to_be_visible()
    expect(figure).to_have_text(shown, use_inner_text=True)
    table = page.get_by_test_id("stDataFrame").nth(1)
    press(page, table, then=page.get_by_text(re.compile(r"^Request \d+ · ")), at=(15, 55))
    expect(page.get_by_text(re.compile("policy quality, version 1"))).to_be_visible()
