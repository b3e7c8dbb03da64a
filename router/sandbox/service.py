"""One embedding call at the sandbox, from arrival to answer: key, meaning, limits, bill, vectors, faults."""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from router.sandbox import reply
from router.sandbox.bill import Bill, Received, digest
from router.sandbox.config import SandboxConfig
from router.sandbox.faults import CALL_KINDS, NO_FAULT, REFUSALS, SHAPES, Fault, Faults
from router.sandbox.limits import Limiter
from router.sandbox.models import PROVIDERS, Provider
from router.sandbox.tokens import Counting, TokenCounter, count_cl100k
from router.sandbox.vectors import Vectors, embed
from router.sandbox.wire import WIRES, ParsedCall, Wire, WireError

BEFORE_READING = frozenset({"refuse"})
LEAST_PATIENCE = 0.01


class Service:
    """The state of a running sandbox. Used from the server's loop only, except `faults`."""

    def __init__(self, config: SandboxConfig, counting: Mapping[Provider, Counting]) -> None:
        self.config = config
        self.tokens = {name: TokenCounter(counting.get(name, count_cl100k)) for name in PROVIDERS}
        self.faults = Faults()
        self.released = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Forget the bill, what was received, the faults and the use of the limits; keep the configuration."""
        self.bill = Bill()
        self.received: list[Received] = []
        self.faults.clear()
        self.release()
        self.configure({})

    def configure(self, changes: dict[str, Any]) -> None:
        """Change some of the configuration; the limits start afresh. Raises TypeError, ValueError."""
        self.config = c = replace(self.config, **changes)
        self.limiters = {
            provider: Limiter(
                c.requests_per_minute, c.tokens_per_minute, c.max_in_flight, time.monotonic(), c.burst_seconds
            )
            for provider in PROVIDERS
        }

    def release(self) -> None:
        """Let go of every call that a fault holds back."""
        self.released.set()
        self.released = asyncio.Event()

    def check_key(self, wire: Wire, request: Request) -> None:
        """Raise WireError (401) unless the request carries a key that is accepted."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if wire.provider == "gemini":
            scheme, key = "bearer", request.headers.get("x-goog-api-key", "")
        if scheme.lower() != "bearer" or not key.strip() or self.config.key not in {None, key.strip()}:
            raise wire.unauthorised()

    async def vectors(self, call: ParsedCall) -> Vectors:
        """(n, dimensions) float32 vectors of a call's texts, or of what was cut from them."""
        texts = call.embedded
        digests = call.digests if texts is call.texts else [digest(text) for text in texts]
        args = (call.model, texts, digests, call.role, call.dimensions, self.config.vectors)
        return await asyncio.to_thread(embed, *args) if self.config.vectors == "model" else embed(*args)

    async def measure(self, wire: Wire, call: ParsedCall) -> None:
        """Note a call's digests, tokens, and what is embedded of it. Raises WireError: too long."""
        call.digests = [digest(text) for text in call.texts]
        wire.fit(call, await self.tokens[wire.provider].count(call.texts, call.digests))


class Endpoint(ABC):
    """An ASGI endpoint of one provider, whose arrivals are noted and whose refusals are answered.

    `operation` is method and path below the provider's prefix, where that is not the path below `/v1`.
    """

    def __init__(self, service: Service, provider: Provider, operation: str = "") -> None:
        self._service = service
        self._wire = WIRES[provider]
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider = self._wire.provider
        operation = self._operation or f"{scope['method']} {scope['path'].removeprefix(f'/{provider}/v1')}"
        entry = Received(at=time.monotonic(), provider=provider, operation=operation)
        self._service.received.append(entry)
        self._service.bill.requests += 1
        try:
            await self.answer(entry, scope, receive, send)
        except WireError as error:
            entry.status = error.status
            entry.not_before = None if error.wait is None else time.monotonic() + error.wait
            response = reply.answer(error.payload, error.status, self.headers() | error.headers)
            await response(scope, receive, send)

    @abstractmethod
    async def answer(self, entry: Received, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and note what became of it. Raises WireError."""

    def headers(self) -> dict[str, str]:
        """What goes with every answer."""
        return {}


class EmbedCall(Endpoint):
    """The endpoint for embedding calls."""

    def headers(self) -> dict[str, str]:
        # The others say nothing of their limits.
        return self._service.limiters["openai"].headers() if self._wire.provider == "openai" else {}

    async def answer(self, entry: Received, scope: Scope, receive: Receive, send: Send) -> None:
        service, wire = self._service, self._wire
        bill, limiter = service.bill, service.limiters[wire.provider]  # as they are now: a reset makes new ones
        if service.faults.take(wire.provider, (), BEFORE_READING):
            entry.fault = "refuse"
            return await reply.reset(receive)

        request = Request(scope, receive)
        raw = await request.body()
        service.check_key(wire, request)
        call = wire.parse(parse_object(wire, raw))
        await service.measure(wire, call)
        entry.model, entry.role, entry.texts, entry.tokens = call.model.id, call.role, len(call.texts), call.tokens
        entry.digests = tuple(key.hex() for key in call.digests)

        fault = service.faults.take(wire.provider, call.texts, CALL_KINDS) or NO_FAULT
        entry.fault = "" if fault is NO_FAULT else fault.kind
        if fault.kind in REFUSALS or fault.kind == "refuse":
            if fault.bills:
                entry.nanodollars = bill.charge(call.model, call.tokens, entry.digests)
            if fault.kind == "refuse":
                return await reply.reset(receive)
            raise wire.refusal(fault)

        wait = limiter.admit(call.tokens, time.monotonic(), max(LEAST_PATIENCE, service.config.latency_ms / 1000))
        if wait is not None:
            error = wire.refusal(Fault("rate_limited"))
            error.headers, error.wait = retry_headers(wait), wait
            raise error
        try:
            if fault.kind == "overbill":
                call.tokens *= fault.factor
            if fault.bills:  # at once: work that was accepted is billed, whether or not the client waits for it
                entry.tokens = call.tokens
                entry.nanodollars = bill.charge(call.model, call.tokens, entry.digests)
            body = wire.body(call, await service.vectors(call), fault)
            rest = entry.at + service.config.latency_ms / 1000 - time.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)
            entry.status = 200
            if fault is not NO_FAULT and fault.kind not in SHAPES:
                return await reply.misdeliver(fault, body, scope, receive, send, service.released)
        finally:
            limiter.in_flight -= 1  # before a good answer's bytes: who has the answer may send again at once
        await reply.answer(body, headers=self.headers())(scope, receive, send)


def retry_headers(wait: float) -> dict[str, str]:
    """OpenAI's two headers for a wait in seconds, neither earlier than it."""
    return {"retry-after": str(max(1, math.ceil(wait))), "retry-after-ms": str(max(1, math.ceil(wait * 1000)))}


def parse_object(wire: Wire, raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises WireError."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise wire.error(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(data, dict):
        raise wire.error(400, "The JSON body of the request must be an object.")
    return data
