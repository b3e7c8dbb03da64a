"""The HTTP route that exports a collection, written on request and streamed from disk.

`st.download_button` would keep the file in memory while the page is open, and copy it twice more when it is sent. So an
export is a link; it is signed, since Streamlit's sign-in does not cover the route.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from router.domain.errors import RouterError
from router.host import host
from router.library import UPLOADS

LIFE_H = 12
_BLOCK = 1 << 18
_KEY = secrets.token_bytes(32)  # links are valid for the life of the process


def link(collection: str, ending: str) -> str:
    """A URL for the vectors of a collection, valid for some hours; `ending` as in `EXPORTS`."""
    until = str(int(time.time() // 3600) + LIFE_H)
    signature = _sign(collection, ending, until)
    return f"/export?{urlencode({'collection': collection, 'ending': ending, 'until': until, 'signature': signature})}"


async def export(request: Request) -> Response:
    """A whole collection as a file; 403 where the link was not made by this process, or has expired."""
    collection, ending, until, signature = (
        request.query_params.get(name, "") for name in ("collection", "ending", "until", "signature")
    )
    right = _sign(collection, ending, until)
    if not hmac.compare_digest(right.encode(), signature.encode()) or int(until) < time.time() // 3600:
        return PlainTextResponse("This link has expired. Open the page again for a new one.\n", 403)
    try:
        engine = await asyncio.to_thread(host)
        folder = engine.router.settings.data / UPLOADS  # files that a crash leaves here are deleted later
        folder.mkdir(exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}{ending}"
        try:
            await engine.arun(engine.library.export(collection, path))
            file = path.open("rb")
        finally:
            path.unlink(missing_ok=True)  # the open file stays readable until it is sent
    except RouterError as error:
        return PlainTextResponse(f"{error.message} {error.hint}\n", 409)
    headers = {
        "content-length": str(os.fstat(file.fileno()).st_size),
        "content-disposition": f"attachment; filename*=utf-8''{quote(collection + ending, safe='')}",
        "content-encoding": "identity",  # vectors do not compress
    }
    return StreamingResponse(_blocks(file), media_type="application/octet-stream", headers=headers)


def _sign(*parts: str) -> str:
    return hmac.digest(_KEY, "\0".join(parts).encode(), "sha256").hex()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(_BLOCK):
            yield block
