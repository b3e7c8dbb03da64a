"""Fault 33: the page URL of every page asked first on a fresh server, where people have to sign in.

Figure: pages of which anything is shown, or sent, before the sign-in (0). tests/browser/test_frame.py has the other
half: without sign-in the frame always runs.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, WebSocket, expect

from tests.browser.helpers import ROOT, serving
from tests.browser.steps import visit

PAGES = (
    "connections",
    "policies?policy=default",
    "collections?collection=x",
    "spend",
    "models",
    "route",
    "overview",
    "",
)
FILES = (
    "main",
    "main.py",
    "pages/spend",
    "pages/spend.py",
    "app.py",
    "pages/components/access.py",
    "../pages/spend.py",
)
"""No addresses of pages; whatever comes back, it is not what these files hold or draw."""
SECRETS = """
[auth]
redirect_uri = "http://127.0.0.1/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "id"
client_secret = "secret"
server_metadata_url = "http://127.0.0.1:9/.well-known/openid-configuration"
[access]
editors = ["edith@example.org"]
"""
INSIDE = (
    b"Paid calls",
    b"of $10.00",
    b"text-embedding-3-small",
    b"New policy",
    b"Key for this process",
    b"import streamlit",
)
"""What is on the pages, and must not even be sent."""


def test_no_page_passes_by_the_sign_in(page: Page, tmp_path: Path, figure: Callable[[int, str], None]) -> None:
    """Whatever is asked, the first request of the server's life among them: the sign-in, and nothing of the pages."""
    sent: list[bytes] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: sent.append(frame if isinstance(frame, bytes) else frame.encode()))

    page.on("websocket", listen)
    (tmp_path / "secrets.toml").write_text(SECRETS, "utf-8")
    env = {"ROUTER_DATA": str(tmp_path / "data"), "STREAMLIT_SECRETS_FILES": str(tmp_path / "secrets.toml")}
    with serving(ROOT / "app.py", tmp_path / "log.txt", env) as url:
        for path in PAGES:
            visit(page, f"{url}/{path}")
            expect(page.get_by_role("button", name="Sign in")).to_be_visible()
            expect(page.get_by_test_id("stSidebar")).to_have_count(0)
        for path in FILES:
            try:
                with urllib.request.urlopen(f"{url}/{path}", timeout=60) as reply:
                    sent.append(reply.read())
            except urllib.error.HTTPError as error:
                sent.append(error.read())
    assert any(b"Sign in" in frame for frame in sent)
    shown = [word for word in INSIDE if any(word in frame for frame in sent)]
    assert shown == []
    figure(33, f"{len(PAGES) + len(FILES)} addresses before the sign-in: {len(shown)} words from inside sent")
