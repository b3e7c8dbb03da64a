"""Set-ups that keep calls from leaving, in the shell: nothing is unconfirmed, the cause is named, `doctor` sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from router.sandbox import Sandbox

SMALL = "openai/text-embedding-3-small"
MISSING = "/nonexistent/ca.pem"
ROOT = Path(__file__).resolve().parents[2]
BROKEN = {
    "certificates": ("SSL_CERT_FILE", MISSING, f"SSL_CERT_FILE names {MISSING}"),
    "folder": ("SSL_CERT_DIR", "/nonexistent", "SSL_CERT_DIR names /nonexistent"),
    "proxy": ("HTTP_PROXY", "socks5://127.0.0.1:9", "HTTP_PROXY names a SOCKS proxy"),
    "address": ("OPENAI_BASE_URL", "127.0.0.1:9/v1", "OPENAI_BASE_URL is not an address"),
}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def checks(answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Name -> (status, detail)."""
    return {check["name"]: (check["status"], check["detail"]) for check in answer["checks"]}


@pytest.mark.parametrize("what", BROKEN)
def test_nothing_is_unconfirmed_and_doctor_says_the_same(
    shell, openai: Sandbox, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Exit 1 with the variable or the file named, twice; nothing to strike; `doctor` names it without `--reach`."""
    variable, value, says = BROKEN[what]
    monkeypatch.setenv(variable, value)
    file = shell.jsonl([f"text {i}" for i in range(60)])
    for _ in range(2):
        said = shell("embed", file, "--model", SMALL, "--policy", "quality")
        assert said.code == 1
        assert says in " ".join((said.out + said.err).split())
    spent = shell("spend", "--json").json
    assert {spent[name] for name in ("settled_usd", "unconfirmed_usd", "held_usd")} == {"0.000000000"}
    assert openai.received() == []
    found = shell("doctor", "--json")
    assert found.code == 1
    wrong = [detail for status, detail in checks(found.json).values() if status == "wrong"]
    assert len(wrong) == 1
    assert says in wrong[0]
    monkeypatch.delenv(variable)
    if variable == "OPENAI_BASE_URL":
        monkeypatch.setenv(variable, f"{openai.url}/openai/v1")
    assert shell("embed", file, "--model", SMALL, "--policy", "quality").code == 0
    assert shell("doctor", "--json").code == 0


def test_a_log_of_tls_keys_that_cannot_be_written_is_named(shell, openai: Sandbox) -> None:
    """In a fresh program, where importing a package that makes a TLS context would be the first to meet it."""
    env = {**os.environ, "SSLKEYLOGFILE": "/nonexistent/keys.log"}
    command = [sys.executable, "-m", "router", "embed", shell.jsonl(["a b c"]), "--model", SMALL]
    said = subprocess.run(command, check=False, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert said.returncode == 1
    assert "/nonexistent/keys.log cannot be opened: No such file or directory." in said.stderr
    assert "SSLKEYLOGFILE" in said.stderr
    assert shell("spend", "--json").json["unconfirmed_usd"] == "0.000000000"
    assert openai.received() == []


def test_doctor_tells_which_certificates_and_which_proxy(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not read is named; a proxy's password is not shown."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/mine.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:a-secret-password@10.1.2.3:3128")
    said = shell("doctor", "--json")
    found = checks(said.json)
    assert found["certificates"] == ("note", "the system's; REQUESTS_CA_BUNDLE is not read, SSL_CERT_FILE is")
    assert found["openai address"] == ("ok", "api.openai.com:443 through the proxy 10.1.2.3:3128 (HTTPS_PROXY)")
    assert "a-secret-password" not in said.out


@contextmanager
def moved() -> Iterator[tuple[str, list[str]]]:
    """A server that redirects everything to another one; its address, and what it was sent."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path} {self.headers}")
            self.send_response(307)
            self.send_header("location", "http://elsewhere.invalid/v1/embeddings")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_reach_asks_without_a_key_and_says_what_answers(
    shell, openai: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--reach` goes the way that calls go; a redirect is named and not followed, an unknown name is wrong."""
    with moved() as (url, seen):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        for name in ("CO_API_URL", "VOYAGE_BASE_URL"):
            monkeypatch.setenv(name, "http://nobody.invalid/v1")
        found = checks(shell("doctor", "--reach", "--json").json)
        status, detail = found["reach openai"]
        assert (status, "answers with a redirect, which is not followed; see OPENAI_BASE_URL" in detail) == ("ok", True)
    assert found["reach voyage"][0] == "note"
    assert "nobody.invalid:80: its name cannot be resolved" in found["reach voyage"][1]
    assert len(seen) == 1
    assert "a-secret-key" not in seen[0]
    assert "authorization" not in seen[0].lower()
