"""Fault 29 on the pages: keys of the environment and typed ones; rejected, repeated by the provider, sent to nobody.

Figure: places where a key was found (0): pages, what the server sent them, addresses, the browser's storage, log, data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Page, WebSocket, expect

from router.sandbox import Sandbox
from tests.browser.helpers import ROOT, free_port, serving
from tests.browser.steps import press, visit
from tests.faults.pages.refusing import refusing

KEYS = {"OPENAI_API_KEY": "sk-canary-env-1f0a", "ECHO_KEY": "sk-canary-echo-77ab", "NOBODY_KEY": "sk-canary-down-e5d0"}
WRONG, GOOD = "sk-canary-typed-wrong-4d2b", "sk-canary-typed-good-9c31"
CANARIES = [*KEYS.values(), WRONG, GOOD]
VISIBLE = "text-embedding-3-small"
"""What is on the pages, in what the server sends, and in the data: it shows that a key would be found there."""
PAGES = ("", "models", "spend", "route", "policies", "collections")


@pytest.fixture
def echo() -> Iterator[str]:
    """The URL of a provider that refuses every key and repeats it, as some do."""

    def repeat(headers: Mapping[str, str]) -> str:
        key = {name.lower(): value for name, value in headers.items()}["authorization"].removeprefix("Bearer ")
        return f"Incorrect API key provided: {key}."

    with refusing(401, "invalid_api_key", repeat) as url:
        yield url


class Search:
    """Everything that the browser is shown, sent or keeps, searched for the keys."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.hits: list[str] = []
        self.found = {"page": 0, "frames": 0, "data": 0}
        self.looked_at = 0
        page.on("websocket", self._listen)
        page.on("request", lambda request: self.look("address", request.url))
        page.on("console", lambda message: self.look("console", message.text))

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self.look("frames", frame))

    def look(self, where: str, what: str | bytes) -> None:
        """Note each key that is there."""
        data = what.encode("utf-8", "replace") if isinstance(what, str) else what
        self.looked_at += len(data)
        self.hits += [f"{key[:15]}... in {where}" for key in CANARIES if key.encode() in data]
        if where in self.found:
            self.found[where] += VISIBLE.encode() in data

    def now(self) -> None:
        """The page as it is: its HTML, what its fields hold, and what the browser keeps."""
        self.look("page", self.page.content())
        self.look("fields", self.page.evaluate("[...document.querySelectorAll('input')].map(i => i.value).join()"))
        self.look("storage", self.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])"))


def test_no_key_reaches_a_page_an_address_the_log_or_the_data(
    page: Page, echo: str, sandbox: Sandbox, tmp_path: Path, figure: Callable[[int, str], None]
) -> None:
    """Connections as people use it: test, a rejected key, another one, a provider that is down, and forget it all."""
    data, log = tmp_path / "data", tmp_path / "log.txt"
    data.mkdir()
    toml = [endpoint("echo", echo), endpoint("nobody", f"http://127.0.0.1:{free_port()}/v1")]
    (data / "router.toml").write_text("\n".join(toml), "utf-8")
    sandbox.configure(key=GOOD)
    env = {**sandbox.environment, **KEYS, "ROUTER_DATA": str(data), "STREAMLIT_LOGGER_LEVEL": "debug"}
    search = Search(page)
    with serving(ROOT / "app.py", log, env) as url:
        visit(page, f"{url}/connections")
        field = page.locator(".st-key-key-openai input")
        for name, says in (("openai", "openai answered 401"), ("echo", "Incorrect API key provided: ***"),
                           ("nobody", "nobody cannot be reached")):  # fmt: skip
            press(page, page.locator(f".st-key-test-{name} button"), then=page.get_by_text(says))
            search.now()
        for key, says in ((WRONG, "openai answered 401"), (GOOD, "openai/text-embedding-3-small answered in")):
            field.fill(key)
            use = page.locator("[class*=st-key-FormSubmitter-form-openai] button")
            press(page, use, then=page.locator(".st-key-key-openai input:placeholder-shown"))  # it is empty
            expect(page.get_by_text("openai answered")).to_have_count(0)
            press(page, page.locator(".st-key-test-openai button"), then=page.get_by_text(says))
            search.now()
        for path in PAGES:
            visit(page, f"{url}/{path}")
            search.now()
        visit(page, f"{url}/connections")
        forget = page.locator(".st-key-forget-openai button").first  # a second one is for narrow windows
        press(page, forget, then=page.get_by_placeholder("or set OPENAI_API_KEY"))
        search.now()
        for path in sorted(data.rglob("*")):  # while it is open: the WALs too
            if path.is_file():
                search.look("data", path.read_bytes())
        search.look("log", log.read_bytes())
        assert b"Running script" in log.read_bytes(), "the log is not at its loudest"
    assert search.hits == []
    assert all(search.found.values()), search.found
    figure(29, f"{len(CANARIES)} keys, {len(PAGES) + 1} pages, {search.looked_at:,} bytes: {len(search.hits)} hits")


def endpoint(name: str, url: str) -> str:
    """A provider of the operator's in router.toml, with one model in a space of its own."""
    return f"""
[endpoints.{name}]
base_url = "{url}"
key_variable = "{name.upper()}_KEY"
[[models]]
id = "{name}/small"
space = "{name}/small"
dimensions = 8
tokenizer = "bytes"
limits = {{ texts_per_call = 8, tokens_per_text = 2048 }}
prices = [{{ since = 2026-01-01, now = "0.02", source = "made up for a test", checked = 2026-01-01 }}]
"""
