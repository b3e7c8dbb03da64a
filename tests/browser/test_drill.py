"""From a bar of the spend chart to the requests behind it, to one of them, and back, in Chromium."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.steps import TRY_MS, press, until_it_shows, visit

BARS = '[class*="st-key-spent-"] .barlayer .point path'


def test_a_bar_leads_to_its_requests_and_they_add_up_to_it(page: Page, app_url: str) -> None:
    """A click chooses the bar that it is on; it stands in the URL, and what is paid together is what the bar says."""
    latest, behind = (page.get_by_role("heading", name=n) for n in ("Latest requests", "Requests behind the bar"))
    visit(page, f"{app_url}/spend?range=7d&by=provider")
    expect(latest).to_be_visible()
    bars, said = page.locator(BARS), page.locator(".hoverlayer .hovertext")
    expect(bars.first).to_be_attached()
    heights = bars.evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
    tallest = bars.nth(heights.index(max(heights)))

    def point_at_it() -> None:
        page.mouse.move(0, 0)
        tallest.scroll_into_view_if_needed()
        tallest.hover(force=True)  # Plotly's own layer lies over the bars, and sees the mouse
        expect(said).to_contain_text("$", timeout=TRY_MS)

    def click_it() -> None:
        point_at_it()
        tallest.click(force=True)
        expect(behind).to_be_visible(timeout=TRY_MS)

    until_it_shows(page, point_at_it)
    provider, _, amount = said.locator("tspan").all_text_contents()
    until_it_shows(page, click_it)
    expect(latest).to_have_count(0)
    expect(page).to_have_url(re.compile(rf"bar=\d{{4}}-\d\d-\d\d&of={provider}$"))
    together = page.get_by_text(re.compile(rf"^\d+ requests?, {re.escape(amount)} together\."))
    expect(together).to_be_visible()
    expect(page.locator(f'{BARS}:not([style*="opacity: 0.3"])')).to_have_count(1)

    visit(page, page.url)  # as somebody opens it to whom the link was sent
    expect(together).to_be_visible()
    decision = page.get_by_text(re.compile(r"^Request \d+ · "))
    press(page, page.get_by_test_id("stDataFrame").first, then=decision, at=(15, 55))
    press(page, page.get_by_role("button", name=re.compile(f" · {provider}$")), then=latest)
    expect(page).not_to_have_url(re.compile("bar="))
