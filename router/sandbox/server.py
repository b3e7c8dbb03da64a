"""The sandbox as a program: its ASGI app, its thread for tests, its blocking run for the shell."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from router.sandbox import vectors
from router.sandbox.batches import Batches
from router.sandbox.bill import Bill, Received
from router.sandbox.config import SandboxConfig
from router.sandbox.faults import Fault
from router.sandbox.models import Provider
from router.sandbox.routes import batch_routes
from router.sandbox.service import EmbedCall, Service
from router.sandbox.tokens import Counting, encoding

T = TypeVar("T")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
START_SECONDS = 60.0
KEEP_ALIVE = 300  # longer than a test pauses: a connection dropped while idle would look like a fault


class _Control:
    """The paths under `/sandbox`: what a test in another process does with a `Sandbox` object in its own."""

    def __init__(self, service: Service, batches: Batches) -> None:
        self._service = service
        self._batches = batches

    def routes(self) -> list[Route]:
        """The control paths."""
        return [
            Route("/healthz", self.healthz),
            Route("/sandbox/bill", self.bill),
            Route("/sandbox/received", self.received),
            Route("/sandbox/reset", self.reset, methods=["POST"]),
            Route("/sandbox/release", self.release, methods=["POST"]),
            Route("/sandbox/faults", self.faults, methods=["GET", "POST", "DELETE"]),
            Route("/sandbox/config", self.config, methods=["GET", "POST"]),
            Route("/sandbox/batches/{id}/advance", self.advance, methods=["POST"]),
        ]

    async def healthz(self, request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def bill(self, request: Request) -> JSONResponse:
        self._batches.tick()
        bill = self._service.log.bill()
        return JSONResponse({name: getattr(bill, name) for name in Bill.__dataclass_fields__})

    async def received(self, request: Request) -> JSONResponse:
        return JSONResponse([asdict(entry) for entry in self._service.log.received.values()])

    async def reset(self, request: Request) -> JSONResponse:
        reset(self._service, self._batches)
        return JSONResponse({"status": "ok"})

    async def release(self, request: Request) -> JSONResponse:
        self._service.release()
        return JSONResponse({"status": "ok"})

    async def faults(self, request: Request) -> JSONResponse:
        """GET lists what is to come, POST adds one fault or a list of them, DELETE clears."""
        queue = self._service.faults
        if request.method == "DELETE":
            queue.clear()
        elif request.method == "POST":
            try:
                given = await request.json()
                found = [Fault(**item) for item in (given if isinstance(given, list) else [given])]
            except (TypeError, ValueError) as error:
                return JSONResponse({"detail": str(error)}, 400)
            queue.add(*found)
        return JSONResponse({"faults": [asdict(fault) for fault in queue.pending()]})

    async def config(self, request: Request) -> JSONResponse:
        if request.method == "POST":
            try:
                self._service.configure(await request.json())
            except (TypeError, ValueError) as error:
                return JSONResponse({"detail": str(error)}, 400)
        return JSONResponse(asdict(self._service.config))

    async def advance(self, request: Request) -> JSONResponse:
        try:
            wanted = await request.json()
            batch = await self._batches.advance(request.path_params["id"], wanted["status"], wanted.get("done"))
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"detail": str(error)}, 400)
        return JSONResponse(batch)


def warm(config: SandboxConfig) -> None:
    """Load what the first call would have to wait for."""
    encoding()
    if config.vectors == "model":
        vectors.warm()


def reset(service: Service, batches: Batches) -> None:
    """Forget everything but the configuration, and let go of the calls that faults hold back."""
    service.release()
    service.reset()
    batches.reset()


def create_app(
    config: SandboxConfig | None = None, counting: Mapping[Provider, Counting] = MappingProxyType({})
) -> Starlette:
    """The sandbox as an ASGI app. Its state is `app.state.service` and `app.state.batches`.

    `counting` is how the tokens of a provider are counted, where not by cl100k_base.
    """
    service = Service(config or SandboxConfig(), counting)
    batches = Batches(service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(warm, service.config)
        yield
        service.release()

    embeds = {
        "/openai/v1/embeddings": EmbedCall(service, "openai", "POST /embeddings"),
        "/voyage/v1/embeddings": EmbedCall(service, "voyage", "POST /embeddings"),
        "/cohere/v2/embed": EmbedCall(service, "cohere", "POST /v2/embed"),
        "/gemini/v1beta/models/{name}:batchEmbedContents": EmbedCall(service, "gemini", "POST :batchEmbedContents"),
    }
    routes = [Route(path, call, methods=["POST"]) for path, call in embeds.items()]
    routes += batch_routes(service, batches) + _Control(service, batches).routes()
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.service, app.state.batches = service, batches
    return app


def _server(app: Starlette, host: str, port: int) -> uvicorn.Server:
    if host not in LOOPBACK:
        raise ValueError(f"The sandbox accepts every key, so it listens on loopback only; '{host}' is not.")
    config = uvicorn.Config(
        app, host=host, port=port, http="h11", ws="none", lifespan="on", loop="asyncio", log_config=None,
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


class FaultControl:
    """`Sandbox.faults`: add faults, list or clear those that are still to come."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def add(self, *faults: Fault) -> None:
        """Put faults at the end of the queue."""
        self._sandbox._do(lambda: self._sandbox._service.faults.add(*faults))

    def clear(self) -> None:
        """Forget the faults that are still to come."""
        self._sandbox._do(self._sandbox._service.faults.clear)

    def pending(self) -> list[Fault]:
        """The faults that are still to come, in order."""
        return self._sandbox._do(self._sandbox._service.faults.pending)


class Sandbox:
    """A sandbox in a thread of this process: `with Sandbox(latency_ms=20) as sandbox: ...`.

    `counting`: see `create_app`.

    Its methods may be called from any thread but the sandbox's own. The bill can still be read after the end.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        *,
        counting: Mapping[Provider, Counting] = MappingProxyType({}),
        **settings: Any,
    ) -> None:
        self._app = create_app((config or SandboxConfig()).changed(settings), counting)
        self._service: Service = self._app.state.service
        self._batches: Batches = self._app.state.batches
        self._server = _server(self._app, "127.0.0.1", 0)
        self.faults = FaultControl(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._port = 0

    def __enter__(self) -> Self:
        self._listener = _listen("127.0.0.1", 0)
        self._port = self._listener.getsockname()[1]
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise TimeoutError("The sandbox did not start.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._service.release)
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        self._loop = None

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await asyncio.to_thread(warm, self._service.config)
            self._started.set()  # the socket already listens: early calls wait in its backlog
            await self._server.serve(sockets=[self._listener])

        asyncio.run(serve())

    def _do(self, work: Callable[[], T]) -> T:
        """Run a short function on the server's loop, which owns all state."""
        if self._loop is None:
            return work()

        async def on_loop() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(START_SECONDS)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """For `base_url` of openai's clients."""
        return f"{self.url}/openai/v1"

    @property
    def cohere_url(self) -> str:
        """For `base_url` of cohere's clients."""
        return f"{self.url}/cohere"

    @property
    def voyage_url(self) -> str:
        """For `base_url` of voyageai's clients, and of openai's for Voyage batches."""
        return f"{self.url}/voyage/v1"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point the SDKs, and the router, at this sandbox."""
        return environment(self.url)

    def bill(self) -> Bill:
        """The bill as it stands."""
        self._do(self._batches.tick)
        return self._do(self._service.log.bill)

    def received(self) -> list[Received]:
        """What was received so far, in order of arrival."""
        return self._do(lambda: list(self._service.log.received.values()))

    def release(self) -> None:
        """Let go of every call that a fault holds back."""
        self._do(self._service.release)

    def configure(self, **changes: Any) -> None:
        """Change latency, limits, key and so on while it runs; the limits start afresh."""
        self._do(lambda: self._service.configure(changes))

    def advance(self, batch: str, status: str, done: int | None = None) -> dict[str, Any]:
        """Move a batch on by hand; see `Batches.advance`."""
        if self._loop is None:
            raise RuntimeError("The sandbox is not running.")
        job = asyncio.run_coroutine_threadsafe(self._batches.advance(batch, status, done), self._loop)
        return job.result(START_SECONDS)

    def reset(self) -> None:
        """Forget bill, arrivals, faults, files and batches; keep the configuration."""
        self._do(lambda: reset(self._service, self._batches))


def environment(url: str) -> dict[str, str]:
    """The environment variables that point the SDKs, and the router, at a sandbox."""
    key = "sandbox"
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
    server = _server(create_app(config), host, port)
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    chosen = (config or SandboxConfig()).key
    variables = {k: chosen if chosen and k.endswith("KEY") else v for k, v in environment(url).items()}
    print(f"sandbox at {url}; set:", *(f"{k}={v}" for k, v in variables.items()), flush=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
