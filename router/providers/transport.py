"""The part of an HTTP client that sees a call leave and its answer come. Imports httpx2: only for the first call."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import httpx2

MOST_OF_AN_ERROR = 1 << 16
"""Bytes, unpacked, that are read of an answer that is not a success."""


class Departure:
    """Whether a call that is billed has left. Known to the call, whatever an SDK does between it and the network."""

    def __init__(self) -> None:
        self.left = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore2's trace: the body of a POST is about to be written; the texts are in it."""
        if event.endswith(".send_request_body.started") and info["request"].method == b"POST":
            self.left = True


DEPARTURE: ContextVar[Departure] = ContextVar("departure")
"""Of the call that is under way in this task."""


class Transport(httpx2.AsyncBaseTransport):
    """Notes when a call leaves, and reads no more of an error than anybody needs. Redirects are not its business."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. A success is still to be read; of anything else the beginning has been read."""
        departure = DEPARTURE.get(None)
        if departure is not None:
            request.extensions = {**request.extensions, "trace": departure.note}
        response = await self._inner.handle_async_request(request)
        if response.is_success:
            return response
        body = await _beginning(response)
        headers = [(k, v) for k, v in response.headers.multi_items() if k.lower() not in _OF_THE_WHOLE]
        return httpx2.Response(response.status_code, headers=headers, content=body, extensions=response.extensions)

    async def aclose(self) -> None:
        """Close connections."""
        await self._inner.aclose()


_OF_THE_WHOLE = frozenset({"content-encoding", "content-length", "transfer-encoding"})


async def _beginning(response: httpx2.Response) -> bytes:
    """The first bytes of an error's body; the status counts, whatever becomes of the rest."""
    body = bytearray()
    with contextlib.suppress(httpx2.HTTPError):
        async with contextlib.aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                body += part
                if len(body) >= MOST_OF_AN_ERROR:
                    break
    await response.aclose()
    return bytes(body[:MOST_OF_AN_ERROR])
