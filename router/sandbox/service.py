"""One embedding call at the sandbox, from arrival to answer: key, meaning, limits, bill, vectors, faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from router.sandbox import reply
from router.sandbox.bill import Received, RequestLog, digest
from router.sandbox.config import SandboxConfig
from router.sandbox.faults import CALL_KINDS, REFUSALS, SHAPES, Fault, Faults
from router.sandbox.limits import Limiter
from router.sandbox.models import PROVIDERS, Provider
from router.sandbox.tokens import Counting, TokenCounter, count_cl100k
from router.sandbox.vectors import Vectors, embed
from router.sandbox.wire import WIRES, ParsedCall, Wire, WireError

NO_FAULT = Fault("sleep", seconds=0)
BEFORE_READING = frozenset({"refuse"})
LEAST_PATIENCE = 0.01


class Service:
    """The state of a running sandbox, and its embedding calls. Used from the server's loop only."""

    def __init__(self, config: SandboxConfig, counting: Mapping[Provider, Counting]) -> None:
        self.config = config
        self.tokens = {name: TokenCounter(counting.get(name, count_cl100k)) for name in PROVIDERS}
        self.reset()

    def reset(self) -> None:
        """Forget the bill, what was received, the faults and the use of the limits; keep the configuration."""
        self.log = RequestLog()
        self.faults = Faults()
        self.released = asyncio.Event()
        self._make_limiters()

    def configure(self, changes: dict[str, Any]) -> None:
        """Change some of the configuration; the limits start afresh. Raises TypeError, ValueError."""
        self.config = self.config.changed(changes)
        self._make_limiters()

    def release(self) -> None:
        """Let go of every call that a fault holds back."""
        self.released.set()
        self.released = asyncio.Event()

    def _make_limiters(self) -> None:
        c, now = self.config, time.monotonic()
        self.limiters: dict[Provider, Limiter] = {
            provider: Limiter(c.requests_per_minute, c.tokens_per_minute, c.max_in_flight, now, c.burst_seconds)
            for provider in PROVIDERS
        }

    async def refuse(self, number: int, error: WireError, send: Send, headers: Mapping[str, str]) -> None:
        """Answer a request with a refusal, and note it."""
        not_before = None if error.wait is None else time.monotonic() + error.wait
        self.log.amend(number, status=error.status, not_before=not_before)
        body = orjson.dumps(error.payload)
        await reply.whole(send, body, status=error.status, headers={**headers, **error.headers})

    def check_key(self, wire: Wire, scope: Scope) -> None:
        """Raise WireError (401) unless the request carries a key that is accepted."""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if wire.provider == "gemini":
            given = b"Bearer " + next((value for name, value in scope["headers"] if name == b"x-goog-api-key"), b"")
        scheme, _, key = given.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not key.strip() or self.config.key not in {None, key.strip()}:
            raise wire.unauthorised()

    async def vectors(self, call: ParsedCall, texts: list[str], digests: list[bytes]) -> Vectors:
        """(n, dimensions) float32 vectors of a call's texts, or of what was cut from them."""
        if texts is not call.texts:
            digests = [digest(text) for text in texts]
        args = (call.model, texts, digests, call.role, call.dimensions, self.config.vectors)
        return await asyncio.to_thread(embed, *args) if self.config.vectors == "model" else embed(*args)

    async def measure(self, wire: Wire, call: ParsedCall) -> tuple[list[str], list[bytes], int]:
        """What is embedded of a call (its texts, cut where it says so), its digests, its tokens."""
        digests = [digest(text) for text in call.texts]
        texts, counts = wire.fit(call, await self.tokens[wire.provider].count(call.texts, digests))
        return texts, digests, sum(counts)


class EmbedCall:
    """The ASGI endpoint for the embedding calls of one provider."""

    def __init__(self, service: Service, provider: Provider, operation: str) -> None:
        self._service = service
        self._wire = WIRES[provider]
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, wire, at = self._service, self._wire, time.monotonic()
        number = service.log.note(Received(at=at, provider=wire.provider, operation=self._operation))
        try:
            await self._answer(number, at, scope, receive, send)
        except WireError as error:
            await service.refuse(number, error, send, _headers(wire, service.limiters[wire.provider]))

    async def _answer(self, number: int, at: float, scope: Scope, receive: Receive, send: Send) -> None:
        service, wire = self._service, self._wire
        log, limiter = service.log, service.limiters[wire.provider]
        if service.faults.take(wire.provider, (), BEFORE_READING):
            log.amend(number, fault="refuse")
            return await reply.reset(receive)

        raw = await reply.read(receive)
        service.check_key(wire, scope)
        call = wire.parse(parse_object(wire, raw))
        texts, digests, tokens = await service.measure(wire, call)
        log.amend(
            number, model=call.model.id, texts=len(call.texts), tokens=tokens, role=call.role,
            digests=tuple(key.hex() for key in digests),
        )  # fmt: skip

        fault = service.faults.take(wire.provider, call.texts, CALL_KINDS) or NO_FAULT
        if fault is not NO_FAULT:
            log.amend(number, fault=fault.kind)
        if fault.kind in REFUSALS or fault.kind == "refuse":
            if fault.bills:
                log.amend(number, nanodollars=log.charge(call.model, tokens, digests))
            if fault.kind == "refuse":
                return await reply.reset(receive)
            raise reply.refused(wire, fault)

        wait = limiter.admit(tokens, time.monotonic(), max(LEAST_PATIENCE, service.config.latency_ms / 1000))
        if wait is not None:
            error = wire.refusal(Fault("rate_limited"))
            error.headers, error.wait = reply.retry_headers(wait), wait
            raise error
        leave = limiter.enter()
        try:
            if fault.kind == "overbill":
                tokens *= fault.factor
            if fault.bills:  # at once: work that was accepted is billed, whether or not the client waits for it
                log.amend(number, nanodollars=log.charge(call.model, tokens, digests), tokens=tokens)
            vectors = await service.vectors(call, texts, digests)
            body = wire.body(call, vectors, tokens, fault if fault.kind in SHAPES else None)
            rest = at + service.config.latency_ms / 1000 - time.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)
            log.amend(number, status=200)
            if fault is not NO_FAULT and fault.kind not in SHAPES:
                return await reply.misdeliver(fault, body, receive, send, service.released)
            leave()  # before the bytes: who has the answer may send again at once
            await reply.whole(send, body, headers=_headers(wire, limiter))
        finally:
            leave()


def _headers(wire: Wire, limiter: Limiter) -> dict[str, str]:
    return limiter.headers() if wire.provider == "openai" else {}  # the others say nothing of their limits


def parse_object(wire: Wire, raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises WireError."""
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise wire.error(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(data, dict):
        raise wire.error(400, "The JSON body of the request must be an object.")
    return data
