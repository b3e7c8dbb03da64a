"""Fault 29: canary keys through every error path. Figure: places where a key was found (0)."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from router.domain.errors import RouterError
from router.domain.values import Policy
from router.engine import Router
from router.sandbox import Fault, Sandbox
from router.search.export import open_writer
from tests.faults.paid_helpers import PAID, assert_books, open_router, quick_retries, some_texts

KEYS = {
    "OPENAI_API_KEY": "sk-canary-0penai-9f31c2", "CO_API_KEY": "co-canary-c0here-77ab10",
    "VOYAGE_API_KEY": "pa-canary-v0yage-e5d014",
}  # fmt: skip
TYPED = "sk-canary-typed-1n-4d2b"
SPOILT = "sk-canary-spo1lt\nwith-a-newline"
CANARIES = [*KEYS.values(), TYPED, *SPOILT.split("\n")]
VISIBLE = "a policy that must be found"
"""What the search must find in the database and its WAL: it shows that the search would find a key there."""

FAULTS = [
    Fault("quota"), Fault("key_revoked"), Fault("poison"), Fault("status", status=500), Fault("status", status=404),
    Fault("status", status=403), Fault("rate_limited", retry_after=864_000), Fault("reset"), Fault("half_json"),
    Fault("html"), Fault("refuse"), Fault("hang", seconds=30), Fault("drip", seconds=0.2), Fault("one_short"),
    Fault("missing_index"), Fault("nan"), Fault("null"), Fault("wrong_size"), Fault("broken_base64"),
    Fault("wrong_model"), Fault("sleep", seconds=0),
]  # fmt: skip


class Search:
    """All that a run leaves behind or shows, searched for the keys."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.looked_at = 0

    def look(self, where: str, what: str | bytes) -> None:
        """Note each key that is in a text or in the bytes of a file."""
        data = what.encode("utf-8", "replace") if isinstance(what, str) else what
        self.looked_at += len(data)
        self.hits += [f"{key[:9]}... in {where}" for key in CANARIES if key.encode() in data]

    def error(self, where: str, error: BaseException) -> None:
        """An error as anybody may print it, with all that led to it."""
        link: BaseException | None = error
        while link is not None:
            for said in (str(link), repr(link), repr(link.args), repr(vars(link))):
                self.look(f"{where}: {type(link).__name__}", said)
            link = link.__cause__ or link.__context__
        self.look(f"{where}: traceback", "".join(traceback.format_exception(error)))
        if isinstance(error, RouterError):
            self.look(f"{where}: message and hint", f"{error.message} {error.hint}")

    def folder(self, folder: Path) -> list[bytes]:
        """Every file in a folder as it is on disk now, WAL included."""
        contents = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                contents.append(path.read_bytes())
                self.look(path.name, contents[-1])
        return contents


@pytest.fixture
def _logging(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Everything is logged that any library has to say."""
    names = ("openai", "httpx2", "httpcore2", "asyncio", "router")
    with caplog.at_level(logging.DEBUG):
        for name in names:
            caplog.set_level(logging.DEBUG, logger=name)
        yield


async def fail(router: Router, search: Search, where: str, model: str, texts: list[str]) -> None:
    """Ask, as a request and as a file, and look at whatever comes."""
    for partial in (False, True):
        try:
            result = await router.embed(texts, model=model, policy=VISIBLE, partial=partial)
        except RouterError as error:
            search.error(where, error)
        else:
            search.look(f"{where}: result", f"{result!r} {result.decision} {result.plan!r}")
            for problem in result.problems.values():
                search.error(where, problem)


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """A server that answers with whatever it was sent, its headers first: 200 or 400 or 401 in turn; its URL."""
    statuses = iter(["401 Unauthorized", "400 Bad Request", "500 Error", "200 OK", "429 Too Many", "307 Moved"] * 100)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next((h.split()[-1].decode() for h in head.split(b"\r\n") if h.lower().startswith(b"authorization")), "")
        body = orjson.dumps({"error": {"message": f"Incorrect API key provided: {key}.", "code": "x"}, "message": key})
        writer.write(
            f"HTTP/1.1 {next(statuses)}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("_logging")
async def test_no_key_is_ever_shown_logged_or_stored(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], figure: Callable[[int, str], None],
) -> None:  # fmt: skip
    """Errors with their causes, representations, logs at their loudest, output, databases, WAL and exports."""
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.dispatch.limiter.BREAK_AFTER", 10**6)
    monkeypatch.setattr("router.dispatch.limiter.HOPELESS_S", 10**9)
    monkeypatch.setattr("router.dispatch.steps.MOST_SENDS", 1)
    search, data, paths = Search(), tmp_path / "data", 0
    async with open_router(data, sandbox, **KEYS) as router:
        await router.policies.save(Policy(name=VISIBLE, goal="quality"), list(PAID.values()))
        search.look("settings", f"{router.settings!r} {router.settings.endpoints!r} {vars(router)!r}")
        for name, model in PAID.items():
            for fault in FAULTS:
                if not (name == "cohere" and fault.kind in ("missing_index", "wrong_model")):
                    sandbox.faults.clear()
                    sandbox.faults.add(replace(fault, times=2))
                    silent = fault.kind in ("hang", "drip")
                    router.settings.endpoints[name].timeout_s = 0.1 if silent else 60.0
                    await fail(router, search, f"{name} {fault.kind} {fault.status}", model, [f"{fault.kind} {name}"])
                    router.limiters[name]._not_before = 0.0
                    paths += 1
            search.look(f"{name} health", repr(router.health()))
            search.look(f"{name} client", f"{vars(router.providers[name])!r}")
        sandbox.release()
        sandbox.faults.clear()
        router.set_key("openai", TYPED)
        sandbox.configure(key="only this one")
        await fail(router, search, "wrong key", PAID["openai"], ["typed"])
        router.set_key("openai", SPOILT)
        await fail(router, search, "spoilt key", PAID["openai"], ["spoilt"])
        sandbox.configure(key=None)
        router.set_key("openai", TYPED)

        good = await router.embed(some_texts(3), model=PAID["openai"], policy=VISIBLE)
        for ending in ("parquet", "npz", "jsonl"):
            with open_writer(
                tmp_path / f"out.{ending}", space=good.space, model=good.model, dimensions=good.dimensions,
                with_text=True,
            ) as writer:  # fmt: skip
                writer.write(["a", "b", "c"], some_texts(3), good.vectors)
        search.look("usage", repr(router.database.reader().execute("SELECT * FROM requests").fetchall()))
        while_open = search.folder(tmp_path)
        assert any(VISIBLE.encode() in content for content in while_open), "the search finds nothing"
        wal = (data / "router.db-wal").read_bytes()
        assert VISIBLE.encode() in wal
        assert_books(router, sandbox)

    for where in ("closed port", "no such host", "echo"):
        async with echo() as echoing:
            elsewhere = {"closed port": closed_port(), "no such host": "http://nobody.invalid"}
            url = elsewhere.get(where, echoing)
            urls = {"OPENAI_BASE_URL": f"{url}/v1", "CO_API_URL": url, "VOYAGE_BASE_URL": f"{url}/v1"}
            async with open_router(data, sandbox, **KEYS, **urls) as router:
                for name, model in PAID.items():
                    for turn in range(3 if where == "echo" else 1):
                        await fail(router, search, f"{name} {where}", model, [f"{where} {turn}"])
                        paths += 1
    search.folder(tmp_path)
    search.look("log", caplog.text)
    for record in caplog.records:
        search.look(f"log of {record.name}", f"{record.getMessage()} {record.args!r}")
    out, err = capfd.readouterr()
    search.look("output", out + err)
    assert search.hits == []
    assert any(record.name.startswith("openai") for record in caplog.records), "nothing was logged"
    figure(29, f"{len(CANARIES)} keys, {paths} error paths, {search.looked_at:,} bytes: {len(search.hits)} hits")
