"""`doctor`: finds what is wrong, and shows no key."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from router.cli import doctor as doctor_module
from router.cli.doctor import filesystem_of
from router.sandbox import Sandbox

SMALL = "openai/text-embedding-3-small"


def checks(answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Name -> (status, detail)."""
    return {check["name"]: (check["status"], check["detail"]) for check in answer["checks"]}


def test_a_sound_installation_is_exit_0_and_no_key_is_shown(shell, openai: Sandbox) -> None:
    """Keys are `set` or `missing`; budgets, pragmas and the books are looked at."""
    shell("embed", shell.jsonl(["a"]), "--model", SMALL)
    said = shell("doctor", "--json")
    assert said.code == 0
    assert said.json["ok"] is True
    found = checks(said.json)
    assert found["openai"] == ("ok", "OPENAI_API_KEY is set")
    assert found["cohere"] == ("note", "CO_API_KEY is missing")
    assert "synchronous=FULL" in found["router.db"][1]
    assert found["account budget"] == ("ok", "$10.00 a month")
    assert found["integrity"][0] == found["local/all-MiniLM-L6-v2"][0] == found["vocabulary"][0] == "ok"
    people = shell("doctor")
    assert people.code == 0
    assert "a-secret-key" not in said.out + people.out
    assert openai.bill().calls == 1


def test_a_balance_that_differs_from_its_entries_is_wrong(shell, openai: Sandbox) -> None:
    """Somebody edited the books by hand."""
    shell("embed", shell.jsonl(["a"]), "--model", SMALL)
    with closing(sqlite3.connect("data/router.db")) as conn, conn:
        conn.execute("UPDATE balances SET settled = settled - 1 WHERE owner = 'account' AND window = 'month'")
    said = shell("doctor", "--json")
    assert said.code == 1
    assert said.json["ok"] is False
    status, detail = checks(said.json)["integrity"]
    assert (status, "account's for the month" in detail) == ("wrong", True)


def test_books_of_a_newer_version_are_wrong_and_not_touched(shell) -> None:
    """The rest is looked at all the same."""
    shell("spend")
    with closing(sqlite3.connect("data/router.db")) as conn, conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('router', 'm999_later', '')"
        )
    said = shell("doctor", "--json")
    assert said.code == 1
    assert "newer version" in checks(said.json)["databases"][1]


def test_a_broken_router_toml_is_wrong(shell) -> None:
    """Named as `settings`."""
    Path("data").mkdir()
    Path("data/router.toml").write_text("colour = 1\n")
    said = shell("doctor", "--json")
    assert said.code == 1
    assert "colour" in checks(said.json)["settings"][1]


def test_providers_are_reached_only_when_asked(shell, openai: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection and no request; a port where nobody listens is wrong where there is a key."""
    for name in ("CO_API_URL", "VOYAGE_BASE_URL"):
        monkeypatch.setenv(name, "http://nobody.invalid/v1")
    assert not [name for name in checks(shell("doctor", "--json").json) if name.startswith("reach")]
    said = shell("doctor", "--reach", "--json")
    assert said.code == 0
    found = checks(said.json)
    assert (found["reach openai"][0], found["reach cohere"][0]) == ("ok", "note")
    assert openai.bill().requests == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    said = shell("doctor", "--reach", "--json")
    assert (said.code, checks(said.json)["reach openai"][0]) == (1, "wrong")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/me/fast tmpfs rw 0 0
/dev/sdb1 /mnt/my\\040disk xfs rw 0 0
overlay /mnt/my\\040disk btrfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/data", "ext4"),
        ("/home/me/data", "nfs4"),
        ("/home/me/fast/data", "tmpfs"),
        ("/homestead", "ext4"),
        ("/mnt/my disk/data", "btrfs"),
    ],
)
def test_the_innermost_and_latest_mount_counts(folder: str, kind: str) -> None:
    """Names that only begin alike are other folders."""
    assert filesystem_of(Path(folder), MOUNTS) == kind
    assert filesystem_of(Path(folder), "") == ""


def test_a_network_file_system_is_wrong(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's WAL needs shared memory, which no network file system has."""
    monkeypatch.setattr(doctor_module, "_mounts", lambda: "server:/ / nfs4 rw 0 0\n")
    said = shell("doctor", "--json")
    assert (said.code, checks(said.json)["file system"][0]) == (1, "wrong")


def test_an_old_sqlite_is_a_warning(shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works, and may damage the files when several processes write."""
    monkeypatch.setattr("router.store.database.SQLITE_VERSION", (3, 40, 1))
    said = shell("doctor", "--json")
    status, detail = checks(said.json)["SQLite"]
    assert (said.code, status) == (0, "warning")
    assert detail.startswith("3.40.1 has the WAL-reset bug, fixed in 3.51.3")
