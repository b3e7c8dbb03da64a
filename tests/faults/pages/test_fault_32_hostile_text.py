"""Fault 32 on the pages: whatever a document, collection, policy, model or provider is called or says, is text.

Figures: things that ran (0), requests to another host (0), places where a text was not shown as it was written (0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page

from router.domain.errors import RouterError
from router.domain.values import Budget, Policy
from router.host import Host
from router.sandbox import Sandbox
from tests.browser.helpers import ROOT, serving
from tests.browser.steps import press, visit, write
from tests.faults.pages.refusing import refusing
from tests.waits import until

SMALL = "openai/text-embedding-3-small"
MARKED = {
    "Qa": "*Qa*", "Qb": "_Qb_", "Qc": "**Qc**", "Qd": "`Qd`", "Qe": "~~Qe~~", "Qf": "$Qf$",
    "Qg": "[Qg](javascript:ran(1))", "Qh": ":red[Qh]", "skateboarding": ":material/skateboarding:",
    "rhinoceros": ":rhinoceros:", "Qi": "<b onclick=ran(2)>Qi</b>", "ran(3)": "<img src=x onerror=ran(3)>",
    "ran(4)": "<script>ran(4)</script>", "Qj": "![Qj](http://evil.invalid/j.png)",
    "Qk": "http://evil.invalid/Qk", "www": "www.evil.invalid", "mail": "mail@evil.invalid", "cmd": "=cmd|'x'!A1",
}  # fmt: skip
"""Words that are on no page but for what is written around them, which a page must show with them."""
TEXT = " ".join(MARKED.values())
NAME = "<img src=x onerror=ran(3)>*Qa*_Qb_$Qf$[Qg](javascript:ran(1)):red[Qh]`Qd`"
BROKEN = f"{NAME}2"
MODEL = "evil/<img/src=x/onerror=ran(5)>*Qa*_Qb_$Qf$[Qg](javascript:ran(1)):material/skateboarding:"
DOCUMENT = f"{NAME}=cmd|'x'!A1.md"

LOOK = """([marked, words]) => {
    const parts = [document.title];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) { parts.push(walk.currentNode.data); }
    const text = parts.join('').replace(/\\u2060/g, '').replace(/\\s+/g, ' ');
    const times = (part) => text.split(part).length - 1;
    const broken = words.filter((word, i) => times(word) !== times(marked[i]));
    const active = [...document.querySelectorAll(
        'img[src="x"], [onerror], [onclick], .katex, a[href^="java"], a[href*="evil.invalid"], a[href^="mailto:"]'
    )].map(one => one.outerHTML);
    return {shown: marked.reduce((sum, part) => sum + times(part), 0), bad: [...broken, ...active],
            emoji: text.includes('\\u{1F98F}'), text};
}"""


@pytest.fixture
def refuser() -> Iterator[str]:
    """The URL of a provider whose every answer is an error that says TEXT; 402 is not tried again."""
    with refusing(402, "insufficient_quota", lambda _: TEXT) as url:
        yield url


def write_hostile(folder: Path, url: str, env: dict[str, str]) -> None:
    """A data folder in which everything that has a name has a hostile one, past the checks of the names too."""
    folder.mkdir()
    texts = folder.parent / "texts"
    texts.mkdir()
    (texts / "good.md").write_text(TEXT, "utf-8")
    (texts / "$Qf$_Qb_`Qd`.pdf").write_bytes(b"%PDF-1.4 nothing")
    model = {"id": MODEL, "name": TEXT, "space": MODEL, "dimensions": 8, "tokenizer": "bytes"}
    price = {"now": "0.02", "source": TEXT}
    lines = ["[endpoints.evil]", f"base_url = {json.dumps(url)}", "[[models]]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in model.items()]
    lines += ["limits = {texts_per_call = 8, tokens_per_text = 2048}", "[[models.prices]]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in price.items()]
    lines += ["since = 2026-01-01", "checked = 2026-01-01"]
    (folder / "router.toml").write_text("\n".join(lines), "utf-8")
    host = Host(folder, env=env)
    try:
        host.run(_fill(host, texts))
    finally:
        host.close()


async def _fill(host: Host, texts: Path) -> None:
    router, library = host.router, host.library
    for goal in ("quality", "economy"):  # two versions, past `validate`, which lets no such name through
        policy = Policy(name=NAME, goal=goal, allow=("*", NAME), budgets=(Budget(amount=10_000, window="month"),))
        await router.database.write(lambda conn, policy=policy: router.policies._save(conn, policy))
    for name, pinned in ((NAME, SMALL), (BROKEN, MODEL)):
        await library.create(name, policy=NAME, model=pinned)
        await library.add_files(name, [texts])
        await library.confirm(name)
    rename = "UPDATE documents SET name = ? WHERE state = 'ready'"  # what is uploaded loses some of these signs
    await library.corpora.database.write(lambda conn: conn.execute(rename, (DOCUMENT,)))
    await until(lambda: all(job.state in ("done", "paused") for job in library.jobs.all()))
    await router.embed(["a text"], model=SMALL, policy=NAME)
    with pytest.raises(RouterError, match="Qa"):
        await router.embed([TEXT], model=MODEL, policy=NAME)


class Looker:
    """One tab that goes from view to view and counts what should not be."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.ran: list[str] = []
        self.elsewhere: list[str] = []
        self.shown = self.views = 0
        page.expose_function("ran", lambda number: self.ran.append(str(number)))
        page.on("dialog", lambda dialog: (self.ran.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.elsewhere.append(request.url) if self._leaves(request.url) else None)

    def _leaves(self, url: str) -> bool:
        return not url.startswith((f"{self.url}/", "data:", "blob:", "about:"))

    def go(self, path: str, *texts: str) -> None:
        """Open a view and look at it."""
        visit(self.page, f"{self.url}/{path}")
        self.look(*texts)

    def look(self, *texts: str) -> None:
        """These texts are there, in tables a moment later, and nothing that is there was run, loaded or eaten."""
        self.views += 1
        self.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
        for text in texts:
            self.page.wait_for_function(f"text => ({LOOK})([[text], []]).shown > 0", arg=text)
        found = self.found()
        assert found["bad"] == [], (self.page.url, found["bad"], found["text"])
        assert not found["emoji"]
        self.shown += found["shown"]

    def found(self) -> dict[str, Any]:
        """What is on the page."""
        return dict(self.page.evaluate(LOOK, [list(MARKED.values()), list(MARKED)]))


def test_the_look_finds_what_is_rendered(page: Page) -> None:
    """Each kind of text, were it rendered, would be found."""
    looker = Looker(page, "about:blank")
    for word, rendered in {
        "Qa": "<em>Qa</em>", "Qb": "\\_Qb\\_", "Qd": "<code>Qd</code>", "Qf": '<span class="katex">Qf</span>',
        "skateboarding": "<i>skateboarding</i>", "Qg": '<a href="javascript:ran(1)">Qg</a>', "Qh": "<span>Qh</span>",
    }.items():  # fmt: skip
        page.set_content(f"<p>{rendered}</p>")
        assert word in looker.found()["bad"]
    page.set_content("<img src=x onerror=ran(3)>")
    page.wait_for_function("document.images[0].complete")
    assert looker.ran == ["3"]


def test_hostile_text_is_text_on_every_page(
    page: Page, refuser: str, sandbox: Sandbox, tmp_path: Path, figure: Callable[[int, str], None]
) -> None:
    """Every page, every part of one, with names and messages that would run, load, link, or be formatted away."""
    env = {**sandbox.environment, "ROUTER_DATA": str(tmp_path / "data")}
    write_hostile(tmp_path / "data", refuser, env)
    page.set_viewport_size({"width": 1600, "height": 1800})
    with serving(ROOT / "app.py", tmp_path / "log.txt", env) as url:
        looker, name, broken, unknown = Looker(page, url), quote(NAME), quote(BROKEN), quote(TEXT)
        table = page.get_by_test_id("stDataFrame").first
        looker.go("", NAME, BROKEN, "*Qa*")
        press(page, table, at=(15, 55), then=page.get_by_text(re.compile(r"^Request \d+")))
        looker.look("policy " + NAME, TEXT[:200])
        looker.go("policies", NAME)
        looker.go(f"policies?policy={name}", NAME)
        looker.go(f"policies?policy={unknown}", TEXT)
        looker.go("collections", NAME, BROKEN)
        looker.go(f"collections?collection={unknown}", TEXT)
        looker.go(f"collections?collection={name}", NAME, DOCUMENT)
        press(page, table, at=(15, 90), then=page.get_by_text(re.compile("^Chunks of")))  # the first could not be read
        looker.look(f"Chunks of {DOCUMENT}", TEXT)
        looker.go(f"collections?collection={name}&tab=Search")
        page.get_by_label("Look for").fill(TEXT)
        press(page, page.get_by_role("button", name="Search", exact=True), then=page.get_by_text("compared in openai"))
        looker.look(f"{DOCUMENT}#1", TEXT)
        looker.go(f"collections?collection={broken}&tab=Jobs", TEXT[:200])
        looker.go(f"collections?collection={broken}&tab=Settings", MODEL)
        looker.go(f"spend?by=collection&only={name}", NAME, f"{NAME} is the largest")
        looker.go("route")
        texts, embed = (
            page.get_by_label("Texts, one a line"),
            page.get_by_role("button", name=re.compile(r"Embed \d+ texts?: ")),
        )
        write(page, texts, f"{TEXT}\nanother {TEXT}", enter="Control+Enter", then=embed)
        press(page, embed, then=page.get_by_text("How alike"))
        looker.look(f"another {TEXT}")
        looker.go("connections")
        test = page.get_by_role("button", name=re.compile("^Test .*skateboarding"))
        press(page, test, then=page.get_by_text("evil answered 402"))
        looker.look(f"evil answered 402: {TEXT[:200]}")
        looker.go("models", MODEL)
    assert looker.ran == []
    assert looker.elsewhere == []
    figure(32, f"{looker.views} views, {looker.shown} hostile texts as they were written; 0 ran, 0 left")
