"""Exports by a link: signed, streamed from disk, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from pages.components import download
from router.host import host
from router.sandbox import Sandbox
from tests.pages.test_collections import embedded


@pytest.fixture(autouse=True)
def paid(data: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys for the sandbox, and no worker but the one that a test runs itself."""
    for name, value in {**sandbox.environment, "ROUTER_WORKER": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def client() -> TestClient:
    """A browser at the route alone."""
    return TestClient(Starlette(routes=[Route("/export", download.export)]))


def test_a_link_gives_the_whole_collection(client: TestClient, tmp_path: Path) -> None:
    """Under its name, with its size said before, and no file stays on disk."""
    embedded(tmp_path)
    answer = client.get(download.link("mine", ".jsonl"))
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''mine.jsonl"
    assert int(answer.headers["content-length"]) == len(answer.content)
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == 3
    assert {len(row["vector"]) for row in rows} == {1536}
    uploads = host().router.settings.data / "uploads"
    assert [path for path in uploads.rglob("*") if path.is_file()] == []


def test_only_links_that_were_made_here_are_answered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another collection's, not another ending's, not one without a signature, not an old one."""
    good = {name: value for name, [value] in parse_qs(urlsplit(download.link("mine", ".npz")).query).items()}
    for change in (
        {"collection": "theirs"}, {"ending": "/../../x.npz"}, {"until": "9999999"}, {"signature": ""},
        {"signature": "é"},
    ):  # fmt: skip
        assert client.get(f"/export?{urlencode({**good, **change})}").status_code == 403
    assert client.get("/export").status_code == 403
    monkeypatch.setattr(download, "LIFE_H", -1)
    assert client.get(download.link("mine", ".npz")).status_code == 403


def test_what_the_router_says_no_to_is_said(client: TestClient, tmp_path: Path) -> None:
    """In words, and not as a broken file."""
    embedded(tmp_path)
    answer = client.get(download.link("nobody's", ".npz"))
    assert (answer.status_code, "There is no collection" in answer.text) == (409, True)
