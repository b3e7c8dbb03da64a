"""How bytes leave: whole, in drops, by halves, or not at all. Raw ASGI, since a fault is not a response."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from types import MappingProxyType
from uuid import uuid4

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.sandbox.faults import Fault

HTML = b"<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"


def answer(data: object, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """A JSON answer; `data` may be its bytes."""
    body = data if isinstance(data, bytes) else orjson.dumps(data)
    return Response(body, status, {"x-request-id": f"req_{uuid4().hex}", **headers}, "application/json")


async def reset(receive: Receive) -> None:
    """Reset the TCP connection (RST). uvicorn only: ASGI has no word for it, so its request cycle is used."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("This fault needs uvicorn: the connection cannot be reached from the application.")
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass  # what is left of the request


async def _idle(receive: Receive, released: asyncio.Event, seconds: float) -> bool:
    """Wait; True if the time passed, False if the client left or the sandbox let go before that."""
    waits = {asyncio.ensure_future(receive()), asyncio.ensure_future(released.wait())}
    done, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return not done


async def misdeliver(
    fault: Fault, body: bytes, scope: Scope, receive: Receive, send: Send, released: asyncio.Event
) -> None:
    """Send a good body in the bad way that a fault of the `TRANSPORTS` asks for."""
    good, middle = answer(body), len(body) // 2
    head = {"type": "http.response.start", "status": 200, "headers": good.raw_headers}
    match fault.kind:
        case "refuse":
            await reset(receive)
        case "reset":
            await send(head)
            await send({"type": "http.response.body", "body": body[:middle], "more_body": True})
            await asyncio.sleep(0.02)  # a reset overtakes bytes that the client has not read yet
            await reset(receive)
        case "drip":  # until the client leaves or the sandbox lets go
            await send(head)
            for at in range(len(body)):
                await send({"type": "http.response.body", "body": body[at : at + 1], "more_body": at + 1 < len(body)})
                if not await _idle(receive, released, fault.seconds):
                    return await reset(receive)
        case "half_json":
            await answer(body[:middle])(scope, receive, send)
        case "html":
            await Response(HTML, media_type="text/html")(scope, receive, send)
        case _:  # hang, sleep
            await _idle(receive, released, fault.seconds)
            await good(scope, receive, send)
