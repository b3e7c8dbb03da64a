"""A large corpus in the browser: what it would likely cost while it is read, and the quote in its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from router.sandbox import Sandbox
from tests.browser.helpers import settled
from tests.browser.steps import press, visit, write


def test_an_estimate_is_shown_until_the_quote_is_there(
    page: Page, app_url: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """While a large file is read its estimate is there, marked so; then the exact quote, and the estimate no more."""
    name, create = (
        page.get_by_label("Name", exact=True),
        page.get_by_role("button", name=re.compile(r"\bCreate$"), disabled=False),
    )
    visit(page, f"{app_url}/collections")
    press(page, page.get_by_text("New collection"), then=name)
    write(page, name, "large", then=create)
    press(page, create, then=page.get_by_text("No document yet."))
    path = tmp_path / "rows.jsonl"
    words = "how to mend the things that you have in the house, and what they are for " * 8
    path.write_text("".join(json.dumps({"text": f"{n} {words}"}) + "\n" for n in range(12_000)), "utf-8")
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files(path)
    marked = page.get_by_text(re.compile(r"from\s\d+\s% of the text: [\d,]+ to [\d,]+ texts, .* exact quote follows\."))
    read = page.get_by_role("button", name="Read 1 file")
    expect(read).to_be_visible()
    settled(page)
    read.click()
    expect(marked).to_be_visible()  # for as long as the reading takes
    expect(page.get_by_text(re.compile("^1 document .1 new., 12,000 chunks: 12,000 texts"))).to_be_visible()
    expect(marked).to_have_count(0)
    assert sandbox.bill().calls == 0
