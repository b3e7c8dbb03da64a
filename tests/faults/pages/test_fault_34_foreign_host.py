"""Fault 34: a foreign Host or Origin on the loopback app, by HTTP and by websocket (DNS rebinding)."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.browser.helpers import ROOT, serving

PATHS = (
    "/", "/overview", "/spend", "/policies", "/healthz", "/export", "/_stcore/health", "/_stcore/host-config",
    "/static/js/index.js", "/_stcore/upload_file/a/b", "/media/x",
)  # fmt: skip


def ask(url: str, path: str, host: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """Status, Location and body of one request with this Host."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": host, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    found = reply.status, reply.getheader("Location") or "", reply.read()
    connection.close()
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The app as `make run` starts it, on a data folder of its own."""
    folder: Path = tmp_path_factory.mktemp("foreign")
    with serving(ROOT / "app.py", folder / "log.txt", {"ROUTER_DATA": str(folder / "data")}) as url:
        yield url


def test_a_foreign_name_gets_not_one_byte_of_the_app(server: str) -> None:
    """Whatever is asked for; and a redirect leads to a path, never to the name that was sent."""
    own = urlsplit(server).netloc
    for path in PATHS:
        for method in ("GET", "POST", "PUT", "DELETE"):
            status, location, body = ask(server, path, "evil.example", method)
            assert (status, location) == (403, ""), f"{method} {path}"
            assert b"localhost" in body
            assert len(body) < 300
        forwarded = ask(server, path, "evil.example", **{"X-Forwarded-Host": own})
        assert forwarded[0] == 403
    assert ask(server, "/", own)[0] == 200
    assert ask(server, "/overview?only=a", own)[:2] == (307, "/?only=a")
    assert ask(server, "/healthz", "localhost")[0] == 200


def test_a_foreign_websocket_is_not_opened(server: str) -> None:
    """By Host or by Origin; one of the app's own page is."""
    own = urlsplit(server).netloc
    host, _, port = own.partition(":")
    for name, origin in (
        ("evil.example", f"http://evil.example:{port}"), (host, "http://evil.example"), (host, "http://localhost:1"),
        (host, "null"), ("evil.example", None), (host, f"http://{own}"),
    ):  # fmt: skip
        answered = 403
        try:
            with connect(
                f"ws://{name}:{port}/_stcore/stream", origin=origin, open_timeout=30,
                sock=socket.create_connection((host, int(port))),
            ):  # fmt: skip
                answered = 101
        except InvalidStatus as refused:
            answered = refused.response.status_code
        assert answered == (101 if origin == f"http://{own}" else 403), (name, origin)


def test_uploads_of_another_page_are_refused(server: str) -> None:
    """What changes something needs an Origin of this server."""
    own = urlsplit(server).netloc
    refused = ask(server, "/_stcore/upload_file/a/b", own, "PUT", Origin="http://evil.example")
    assert refused[0] == 403
    assert b"localhost" in refused[2]
