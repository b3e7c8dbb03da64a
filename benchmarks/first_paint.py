"""How long until the app's first page is drawn, against an empty Streamlit app: `python -m benchmarks.first_paint`.

Each round starts a fresh server of the one and then of the other, so that both meet the same noise. Two times are
taken: *start* is from launching the program until its first page is drawn in a fresh Chromium tab; *again* is one more
fresh tab on the same server, from its navigation on. Drawn means that the first element of the script is on screen.
The ratio of the medians may be at most 1.5 for either; otherwise the exit code is 1.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.helpers import ROOT, launch, serving, settled

ROUNDS = 5
LIMIT = 1.5
EMPTY = "import streamlit as st\n\nst.write('Empty')\n"
QUIET = {"STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false", "STREAMLIT_SERVER_HEADLESS": "true"}

# Notes, frame by frame, when the first element of the script stands on the page; in milliseconds since navigation.
WATCH = """
const look = () => {
    const first = document.querySelector('[data-testid="stMainBlockContainer"] [data-testid="stElementContainer"]');
    if (first && first.getClientRects().length) { window.drawnAt = performance.now(); }
    else { requestAnimationFrame(look); }
};
requestAnimationFrame(look);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds until the first page was drawn: from the program's launch, and in a second fresh tab."""

    start: float
    again: float


def draw(browser: Browser, url: str) -> float:
    """Seconds from navigation until the first element of the script is drawn, in a fresh tab."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(url, wait_until="commit")
        page.wait_for_function("window.drawnAt > 0")
        milliseconds = float(page.evaluate("window.drawnAt"))
        settled(page)
    return milliseconds / 1_000


def measure(browser: Browser, script: Path, folder: Path) -> Times:
    """One fresh server, two fresh tabs."""
    env = {**QUIET, "ROUTER_DATA": str(folder / "data")}
    launched = time.monotonic()
    with serving(script, folder / "log.txt", env, health="/_stcore/health") as url:
        up = time.monotonic() - launched
        return Times(start=up + draw(browser, url), again=draw(browser, url))


def main() -> int:
    """Print the figures; 1 where a limit is passed."""
    ours: list[Times] = []
    empty: list[Times] = []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright, launch(playwright) as browser:
        folder = Path(name)
        script = folder / "empty.py"
        script.write_text(EMPTY)
        for number in range(1, ROUNDS + 1):
            empty.append(measure(browser, script, folder))
            ours.append(measure(browser, ROOT / "app.py", folder))
            print(
                f"round {number}: start {ours[-1].start:.2f} s against {empty[-1].start:.2f} s, "
                f"again {ours[-1].again:.2f} s against {empty[-1].again:.2f} s",
                flush=True,
            )
    worst = 0.0
    for what in ("start", "again"):
        mine = statistics.median(getattr(times, what) for times in ours)
        theirs = statistics.median(getattr(times, what) for times in empty)
        worst = max(worst, mine / theirs)
        print(
            f"first paint, {what}: {mine:.2f} s, empty Streamlit app {theirs:.2f} s "
            f"(medians of {ROUNDS}): {mine / theirs:.2f}x, limit {LIMIT}x"
        )
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
