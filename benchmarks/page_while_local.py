"""Whether pages answer while a long local run goes on: `python -m benchmarks.page_while_local`.

A collection of a few thousand texts is embedded by the local model, in a job of the app's own process, which takes
every core it can get. Meanwhile, thirty times: *health* is a GET of /healthz; *rerun* is, in a tab that is open, from
the click on a page's link until that page's heading stands and its script has run to the end; *new tab* is, in a fresh
context, from the navigation to the first byte of the answer, and *drawn* until the heading stands there. The same is
measured first on the idle app. The worst rerun and the worst first byte beside the run may take a second each, on a
machine that has nothing else to do; otherwise the exit code is 1.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from router.host import Host
from router.store.database import connect
from tests.browser.helpers import ROOT, launch, serving
from tests.browser.steps import press, visit

TEXTS = 6_000
TURNS = 30
LIMIT_S = 1.0
JUDGED = ("rerun", "new tab")
PAGES = {
    "Overview": "", "Route a text": "route", "Collections": "collections", "Spend": "spend", "Policies": "policies",
    "Models": "models", "Connections": "connections",
}  # fmt: skip
SAMPLES = ROOT / "samples" / "help-centre"

# Seconds from the click on a link until its page is drawn and the script has ended, looked at in every frame.
CLICK = """title => new Promise(resolve => {
    const began = performance.now();
    const app = document.querySelector('[data-testid="stApp"]');
    const links = [...document.querySelectorAll('[data-testid="stSidebarNav"] a')];
    links.find(link => link.innerText.trim().endsWith(title)).click();
    const look = () => {
        const heading = document.querySelector('h1');
        const drawn = heading && heading.innerText.trim() === title && !heading.closest('[data-stale="true"]');
        const done = app.getAttribute('data-test-script-state') === 'notRunning';
        if (drawn && done) { resolve((performance.now() - began) / 1000); } else { requestAnimationFrame(look); }
    };
    requestAnimationFrame(look);
})"""
FIRST_BYTE = "performance.getEntriesByType('navigation')[0].responseStart / 1000"
DRAWN = """new Promise(resolve => {
    const look = () => document.querySelector('h1') ? resolve(performance.now() / 1000) : requestAnimationFrame(look);
    look();
})"""

Times = dict[str, list[float]]


def write_corpus(folder: Path) -> None:
    """A job of TEXTS texts for the local model, queued: the app takes it up when it starts."""
    articles = [path.read_text(encoding="utf-8") for path in sorted(SAMPLES.glob("*.md"))]
    rows = folder.parent / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for n in range(TEXTS):
            file.write(json.dumps({"text": f"{n} {articles[n % len(articles)][:600]}"}) + "\n")
    os.environ["ROUTER_WORKER"] = "0"
    host = Host(folder, env={})
    try:
        host.run(host.library.create("long", policy="local", model="local/all-MiniLM-L6-v2"))
        host.run(host.library.add_files("long", [rows]))
    finally:
        host.close()
        del os.environ["ROUTER_WORKER"]


def start(page: Page, url: str, folder: Path) -> None:
    """Confirm the quote, and wait until the model is loaded and the first texts are done."""
    visit(page, f"{url}/collections?collection=long")
    press(page, page.get_by_role("button", name=re.compile("^Embed ")), then=page.get_by_text("Job 1"))
    while not done(folder):
        page.wait_for_timeout(50)


def look(browser: Browser, page: Page, url: str) -> Times:
    """TURNS of each time, in seconds."""
    times: Times = defaultdict(list)
    titles = list(PAGES)
    for turn in range(TURNS):
        title = titles[turn % len(titles)]
        began = time.perf_counter()
        with urllib.request.urlopen(f"{url}/healthz", timeout=60) as reply:
            reply.read()
        times["health"].append(time.perf_counter() - began)
        times["rerun"].append(page.evaluate(CLICK, title))
        with browser.new_context() as context:
            tab = context.new_page()
            tab.goto(f"{url}/{PAGES[title]}", wait_until="commit", timeout=120_000)
            times["drawn"].append(tab.evaluate(DRAWN))
            times["new tab"].append(tab.evaluate(FIRST_BYTE))
    return times


def done(folder: Path) -> int:
    """Texts of the job that are done."""
    conn = connect(folder / "router.db", readonly=True)
    try:
        return int(conn.execute("SELECT done FROM jobs").fetchone()[0])
    finally:
        conn.close()


def main() -> int:
    """Print the figures; 1 where a limit is passed."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright, launch(playwright) as browser:
        folder = Path(name) / "data"
        write_corpus(folder)
        with serving(ROOT / "app.py", Path(name) / "log.txt", {"ROUTER_DATA": str(folder)}) as url:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            visit(page, f"{url}/connections")
            look(browser, page, url)  # every page once, so that nothing is imported any more
            idle = look(browser, page, url)
            start(page, url, folder)
            before, began = done(folder), time.monotonic()
            beside = look(browser, page, url)
            after, took = done(folder), time.monotonic() - began
    if after >= TEXTS:
        print("the local run was over too soon")
        return 1
    print(f"local run: {after - before:,} texts in {took:.0f} s, {(after - before) / took:.0f} texts/s")
    for what in ("health", "rerun", "new tab", "drawn"):
        a, b = idle[what], beside[what]
        print(
            f"{what:8}  idle {statistics.median(a):.3f} s, worst {max(a):.3f};"
            f"  beside the run {statistics.median(b):.3f} s, worst {max(b):.3f}"
        )
    worst = max(max(beside[what]) for what in JUDGED)
    print(f"worst answer of a page beside the run: {worst:.2f} s, limit {LIMIT_S:g} s")
    return int(worst > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
