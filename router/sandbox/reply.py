"""How bytes leave: whole, in drops, by halves, or not at all. Raw ASGI, since a fault is not a response."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from email.utils import formatdate
from uuid import uuid4

from starlette.types import Receive, Send

from router.sandbox.faults import Fault
from router.sandbox.wire import Wire, WireError

JSON = "application/json"
HTML = b"<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
ABSURD = "864000"


async def read(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def start(send: Send, status: int, length: int, headers: dict[str, str] | None = None, kind: str = JSON) -> None:
    """Send the head of an answer of `length` bytes."""
    lines = {"content-type": kind, "content-length": str(length), "x-request-id": f"req_{uuid4().hex}"}
    raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in (lines | (headers or {})).items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def whole(
    send: Send, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None, kind: str = JSON
) -> None:
    """Send an answer as it should be sent."""
    await start(send, status, len(body), headers, kind)
    await send({"type": "http.response.body", "body": body})


async def idle(receive: Receive, released: asyncio.Event, seconds: float) -> bool:
    """Wait; True if the time passed, False if the client left or the sandbox let go before that."""
    waits = {asyncio.ensure_future(receive()), asyncio.ensure_future(released.wait())}
    done, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return not done


async def drip(receive: Receive, send: Send, body: bytes, released: asyncio.Event, seconds: float) -> None:
    """Send a byte every `seconds`, until the client leaves or the sandbox lets go (the connection is cut then)."""
    await start(send, 200, len(body))
    for at in range(len(body)):
        await send({"type": "http.response.body", "body": body[at : at + 1], "more_body": at + 1 < len(body)})
        if not await idle(receive, released, seconds):
            await reset(receive)
            return


async def half(receive: Receive, send: Send, body: bytes) -> None:
    """Send the head and half of the body, then reset the connection."""
    await start(send, 200, len(body))
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await asyncio.sleep(0.02)  # a reset overtakes bytes that the client has not read yet
    await reset(receive)


async def reset(receive: Receive) -> None:
    """Reset the TCP connection (RST). uvicorn only: ASGI has no word for it, so its request cycle is used."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("This fault needs uvicorn: the connection cannot be reached from the application.")
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass  # what is left of the request


async def misdeliver(fault: Fault, body: bytes, receive: Receive, send: Send, released: asyncio.Event) -> None:
    """Send a good body in the bad way that a fault of the `TRANSPORTS` asks for."""
    if fault.kind == "refuse":
        await reset(receive)
    elif fault.kind == "reset":
        await half(receive, send, body)
    elif fault.kind == "drip":
        await drip(receive, send, body, released, fault.seconds)
    elif fault.kind == "half_json":
        await whole(send, body[: len(body) // 2])
    elif fault.kind == "html":
        await whole(send, HTML, kind="text/html; charset=utf-8")
    else:  # hang, sleep
        await idle(receive, released, fault.seconds)
        await whole(send, body)


def retry_headers(wait: float) -> dict[str, str]:
    """OpenAI's two headers for a wait in seconds, neither earlier than it."""
    return {"retry-after": str(max(1, math.ceil(wait))), "retry-after-ms": str(max(1, math.ceil(wait * 1000)))}


def retry_after(spec: float | str | None) -> tuple[dict[str, str], float | None]:
    """Headers for `Fault.retry_after`, and the seconds that they ask for (None: no time that can be meant)."""
    if spec is None:
        return {}, None
    if isinstance(spec, str) and spec.startswith("ms:"):
        return {"retry-after-ms": spec[3:]}, float(spec[3:]) / 1000
    if isinstance(spec, str) and spec.startswith("date:"):
        moment = math.ceil(time.time() + float(spec[5:]))  # dates have whole seconds
        return {"retry-after": formatdate(moment, usegmt=True)}, moment - time.time()
    value = ABSURD if spec == "absurd" else str(spec)
    try:
        seconds = float(value)
    except ValueError:
        return {"retry-after": value}, None
    return {"retry-after": value}, seconds if math.isfinite(seconds) else None


def refused(wire: Wire, fault: Fault) -> WireError:
    """The error that a fault of the `REFUSALS` raises, with its headers."""
    error = wire.refusal(fault)
    error.headers, error.wait = retry_after(fault.retry_after)
    return error
