"""A server on loopback whose answers do not end when they should, made as they are sent; and a program that asks it.

The first part of the path is what it does: `plain` (with a length), `chunked`, `gzip` and `deflate` with status 200,
`twice` (packed twice over), `error` with status 500, `moved` to the address in its second part.
`python -m tests.faults.endless FOLDER URL KIND:TEXTS...` prints how far its memory grew, and what each call came to.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

BLOCK = b'{"object": "list", "data": [' + b" " * (1 << 20)
GZIP = {"gzip": 31, "deflate": 15}


@dataclass(slots=True)
class Endless:
    """The server: its address, the bytes of an answer before it was packed, and the requests that it had, by path."""

    url: str
    size: int
    asked: Counter[str] = field(default_factory=Counter)


def blocks(size: int) -> Iterator[bytes]:
    """So many bytes, a block at a time."""
    for start in range(0, size, len(BLOCK)):
        yield BLOCK[: size - start]


def packed(parts: Iterator[bytes], kind: str) -> Iterator[bytes]:
    """The same, packed."""
    packer = zlib.compressobj(level=1, wbits=GZIP[kind])
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


@contextmanager
def endless(size: int) -> Iterator[Endless]:
    """Run the server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            here.asked[self.path] += 1
            kind, _, rest = self.path.lstrip("/").partition("/")
            self.close_connection = True
            if kind == "moved":
                self.head(307, location=unquote(rest.partition("/")[0]), content_length="0")
                return
            parts = blocks(size)
            if kind in GZIP:
                self.head(200, content_encoding=kind)
                parts = packed(parts, kind)
            elif kind == "twice":
                self.head(200, content_encoding="gzip, gzip")
                parts = packed(packed(parts, "gzip"), "gzip")
            elif kind == "chunked":
                self.head(200, transfer_encoding="chunked")
                parts = (b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
            else:
                self.head(500 if kind == "error" else 200, content_length=str(size))
            try:
                for part in parts:
                    self.wfile.write(part)
            except OSError:  # the other side has had enough
                return

        def head(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"content_type": "application/json", "connection": "close", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here = Endless(url=f"http://127.0.0.1:{server.server_port}", size=size)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def ask(folder: Path, url: str, cases: list[tuple[str, int]]) -> dict[str, Any]:
    """Ask for vectors by each wire, and for a batch's results; how far memory grew, and what each call came to."""
    from router.domain.errors import RouterError
    from router.engine import Router
    from router.providers.batch import BatchClient

    models = {"openai": "text-embedding-3-small", "cohere": "embed-v4.0", "voyage": "voyage-3.5"}
    variables = {"openai": "OPENAI_BASE_URL", "cohere": "CO_API_URL", "voyage": "VOYAGE_BASE_URL"}
    keys = {"OPENAI_API_KEY": "k", "CO_API_KEY": "k", "VOYAGE_API_KEY": "k"}
    said: dict[str, Any] = {}
    start = 0
    for kind, texts in [("warm", 3), *cases]:
        env = {variable: f"{url}/{kind}/{name}" for name, variable in variables.items()} | keys
        if kind == "warm":  # imports and a connection that is refused
            env |= dict.fromkeys(variables.values(), "http://127.0.0.1:9")
        data = folder / f"{kind}-{texts}"
        data.mkdir(parents=True)
        async with Router.open(data, env=env) as router:
            await router.policies.set_account_budgets(())
            for name, model in models.items():
                try:
                    await router.embed([f"text {i}" for i in range(texts)], model=f"{name}/{model}", policy="quality")
                except RouterError as error:
                    said[f"{kind}:{texts}/{name}"] = [type(error).__name__, error.message]
            client = BatchClient(router.settings.endpoints["openai"])
            for what, call in (
                ("download", client.download("file", folder / "results", 1 << 20)),
                ("retrieve", client.retrieve("batch")),
            ):
                try:
                    await call
                except RouterError as error:
                    said[f"{kind}:{texts}/{what}"] = [type(error).__name__, error.message]
            await client.aclose()
            said[f"{kind}:{texts}/totals"] = router.ledger.totals()
        if kind == "warm":
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    return {"grown_mib": grown / 1024, "results": (folder / "results").stat().st_size, "said": said}


if __name__ == "__main__":
    asked = [(kind, int(texts)) for kind, texts in (case.split(":") for case in sys.argv[3:])]
    found = asyncio.run(ask(Path(sys.argv[1]), sys.argv[2], asked))
    sys.stdout.write(orjson.dumps(found).decode() + "\n")
