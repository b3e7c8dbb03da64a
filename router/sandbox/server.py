"""The sandbox as a program: its ASGI app, its thread for tests, its blocking run for the shell."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Self, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from router.sandbox import vectors
from router.sandbox.batches import Batches
from router.sandbox.bill import Bill, Received
from router.sandbox.config import SandboxConfig
from router.sandbox.faults import Fault
from router.sandbox.models import Provider
from router.sandbox.reply import answer
from router.sandbox.routes import batch_routes
from router.sandbox.service import EmbedCall, Service
from router.sandbox.tokens import Counting, encoding

T = TypeVar("T")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
START_SECONDS = 60.0
KEEP_ALIVE = 300  # longer than a test pauses: a connection dropped while idle would look like a fault


class _Control:
    """The paths under `/sandbox`: what a test in another process does with a `Sandbox` object in its own."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._service = batches.service

    def app(self) -> Starlette:
        """The control paths; what cannot be done is told with status 400."""
        routes = [
            Route("/bill", self.bill),
            Route("/received", self.received),
            Route("/reset", self.reset, methods=["POST"]),
            Route("/release", self.release, methods=["POST"]),
            Route("/faults", self.faults, methods=["GET", "POST", "DELETE"]),
            Route("/config", self.config, methods=["GET", "POST"]),
            Route("/batches/{id}/advance", self.advance, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers=dict.fromkeys((KeyError, TypeError, ValueError), _refuse))

    async def bill(self, request: Request) -> Response:
        self._batches.tick()
        return answer(self._service.bill)

    async def received(self, request: Request) -> Response:
        return answer(self._service.received)

    async def reset(self, request: Request) -> Response:
        self._batches.reset()
        return answer({"status": "ok"})

    async def release(self, request: Request) -> Response:
        self._service.release()
        return answer({"status": "ok"})

    async def faults(self, request: Request) -> Response:
        """GET lists what is to come, POST adds one fault or a list of them, DELETE clears."""
        queue = self._service.faults
        if request.method == "DELETE":
            queue.clear()
        elif request.method == "POST":
            given = await request.json()
            queue.add(*[Fault(**item) for item in (given if isinstance(given, list) else [given])])
        return answer({"faults": queue.pending()})

    async def config(self, request: Request) -> Response:
        if request.method == "POST":
            self._service.configure(await request.json())
        return answer(self._service.config)

    async def advance(self, request: Request) -> Response:
        wanted = await request.json()
        return answer(self._batches.advance(request.path_params["id"], wanted["status"], wanted.get("done")))


async def _refuse(request: Request, error: Exception) -> Response:
    return answer({"detail": str(error)}, 400)


async def _healthz(request: Request) -> Response:
    return answer({"status": "ok"})


def warm(config: SandboxConfig) -> None:
    """Load what the first call would have to wait for."""
    encoding()
    if config.vectors == "model":
        vectors.warm()


def _app(batches: Batches) -> Starlette:
    """The sandbox as an ASGI app."""
    service = batches.service

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(warm, service.config)
        yield
        service.release()

    embeds = {
        "/openai/v1/embeddings": EmbedCall(service, "openai"),
        "/voyage/v1/embeddings": EmbedCall(service, "voyage"),
        "/cohere/v2/embed": EmbedCall(service, "cohere", "POST /v2/embed"),
        "/gemini/v1beta/models/{name}:batchEmbedContents": EmbedCall(service, "gemini", "POST :batchEmbedContents"),
    }
    routes: list[BaseRoute] = [Route(path, call, methods=["POST"]) for path, call in embeds.items()]
    routes += [*batch_routes(batches), Route("/healthz", _healthz), Mount("/sandbox", _Control(batches).app())]
    return Starlette(routes=routes, lifespan=lifespan)


def _server(batches: Batches, host: str, port: int) -> uvicorn.Server:
    if host not in LOOPBACK:
        raise ValueError(f"The sandbox accepts every key, so it listens on loopback only; '{host}' is not.")
    config = uvicorn.Config(
        _app(batches), host=host, port=port, http="h11", ws="none", lifespan="on", loop="asyncio", log_config=None,
        log_level="critical", access_log=False, timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Its protocol is named, since asyncio sets TCP_NODELAY only then (else: 40 ms a call)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


class Sandbox:
    """A sandbox in a thread of this process: `with Sandbox(latency_ms=20) as sandbox: ...`.

    Its methods may be called from any thread but the sandbox's own. The bill can still be read after the end.

    Args:
        counting: how the tokens of a provider are counted, where not by cl100k_base.
        settings: the fields of `SandboxConfig`.
    """

    def __init__(
        self, *, counting: Mapping[Provider, Counting] = MappingProxyType({}), **settings: Any
    ) -> None:  # fmt: skip
        self._service = Service(SandboxConfig(**settings), counting)
        self._batches = Batches(self._service)
        self._server = _server(self._batches, "127.0.0.1", 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="sandbox", daemon=True)
        self.faults = self._service.faults

    def __enter__(self) -> Self:
        self._listener = _listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise TimeoutError("The sandbox did not start.")
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._service.release)
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        self._loop = None

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(warm, self._service.config)
        self._started.set()  # the socket already listens: early calls wait in its backlog
        await self._server.serve(sockets=[self._listener])

    def _do(self, work: Callable[[], T]) -> T:
        """Run a short function on the server's loop, which owns all state."""
        if self._loop is None:
            return work()

        async def on_loop() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(START_SECONDS)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point the SDKs, and the router, at this sandbox."""
        return environment(self.url)

    def bill(self) -> Bill:
        """The bill as it stands."""
        self._do(self._batches.tick)
        return self._do(self._service.bill.copy)

    def received(self) -> list[Received]:
        """What was received so far, in order of arrival."""
        return self._do(lambda: [replace(entry) for entry in self._service.received])

    def release(self) -> None:
        """Let go of every call that a fault holds back."""
        self._do(self._service.release)

    def configure(self, **changes: Any) -> None:
        """Change latency, limits, key and so on while it runs; the limits start afresh."""
        self._do(lambda: self._service.configure(changes))

    def advance(self, batch: str, status: str, done: int | None = None) -> dict[str, Any]:
        """Move a batch on by hand; see `Batches.advance`."""
        return self._do(lambda: self._batches.advance(batch, status, done))

    def reset(self) -> None:
        """Forget bill, arrivals, faults, files and batches; keep the configuration."""
        self._do(self._batches.reset)


def environment(url: str, key: str = "sandbox") -> dict[str, str]:
    """The environment variables that point the SDKs, and the router, at a sandbox."""
    return {
        "OPENAI_API_KEY": key,
        "OPENAI_BASE_URL": f"{url}/openai/v1",
        "CO_API_KEY": key,
        "CO_API_URL": f"{url}/cohere",
        "VOYAGE_API_KEY": key,
        "VOYAGE_BASE_URL": f"{url}/voyage/v1",
        "GEMINI_API_KEY": key,
        "GOOGLE_GEMINI_BASE_URL": f"{url}/gemini",
    }


def run(host: str = "127.0.0.1", port: int = 0, config: SandboxConfig | None = None) -> None:
    """Serve until interrupted. Port 0 picks a free one; one line says where it is and what to set.

    Raises:
        ValueError: the host is not loopback.
        OSError: the port is taken.
    """
    config = config or SandboxConfig()
    server = _server(Batches(Service(config, {})), host, port)
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    variables = environment(url, config.key or "sandbox")
    print(f"sandbox at {url}; set:", *(f"{k}={v}" for k, v in variables.items()), flush=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
