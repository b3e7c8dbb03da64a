"""The ASGI app: the pages, the HTTP routes beside them, and the engine, in one process on one port.

`streamlit run app.py` finds `app` here. The main script is pages/main.py and not this file, because Streamlit would
serve a pages/ folder beside its main script without the frame.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pages.components import access, download
from router.domain.errors import RouterError
from router.host import close, host

RESUME_S = 2.0
"""From the server's start until the engine is opened, so that the first page does not wait for it."""


async def healthz(request: Request) -> Response:
    """200 as soon as the server answers. `python -m router doctor` checks the providers."""
    return JSONResponse({"status": "ok"})


async def overview(request: Request) -> Response:
    """Streamlit serves its default page at `/` only; `/overview` would be a page not found."""
    query = request.url.query
    return RedirectResponse(f"/?{query}" if query else "/")  # a path, so that the Host header is not repeated


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    """Open the engine soon after the start, unless a page has; close it at the end."""
    resumed = asyncio.create_task(resume())
    yield
    resumed.cancel()
    await asyncio.to_thread(close)


async def resume() -> None:
    """Open the engine without a page, so that jobs that a stop or a crash interrupted are resumed."""
    await asyncio.sleep(RESUME_S)
    try:
        await asyncio.to_thread(host)
    except RouterError as error:  # the first page shows it
        logging.getLogger("router").warning("%s", error)


ROUTES = [Route("/healthz", healthz), Route("/overview", overview), Route("/export", download.export)]
MIDDLEWARE = [Middleware(access.Gate)]

# Streamlit adds this folder to sys.path for each run of a page and removes it again. An import in another thread (of
# torch, for the local model) that iterates over sys.path at that moment skips an entry and may not find its module.
PAGES = str(Path(__file__).resolve().parent / "pages")
if PAGES not in sys.path:
    sys.path.append(PAGES)

if why := access.why_not_listen(st.get_option("server.address"), sign_in=access.signs_in(), env=os.environ):
    sys.exit(why)  # not in `lifespan`, where the exit would be logged as a traceback
app = st.App("pages/main.py", routes=ROUTES, middleware=MIDDLEWARE, lifespan=lifespan)
