"""The one process on the one port: the pages, the HTTP routes beside them, and the engine's life.

`streamlit run app.py` finds `app` here. The script that draws is pages/main.py and not this file, because Streamlit
would serve a pages/ folder beside its main script without the frame.
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
"""After the server's start, so that the first page is not kept waiting."""


async def healthz(request: Request) -> Response:
    """200 as soon as the server answers; whether providers can be reached is `python -m router doctor`'s."""
    return JSONResponse({"status": "ok"})


async def overview(request: Request) -> Response:
    """Streamlit knows its default page as `/` only and calls `/overview` a page not found."""
    query = request.url.query
    return RedirectResponse(f"/?{query}" if query else "/")  # by path: whatever Host was sent is not repeated


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    """What lives as long as the server: the engine, opened by the first page or a moment later, and closed here."""
    resumed = asyncio.create_task(resume())
    yield
    resumed.cancel()
    await asyncio.to_thread(close)


async def resume() -> None:
    """Open the engine though nobody looks: jobs that a stop or a crash cut off go on by themselves."""
    await asyncio.sleep(RESUME_S)
    try:
        await asyncio.to_thread(host)
    except RouterError as error:  # the first page says so on the screen
        logging.getLogger("router").warning("%s", error)


def guard() -> None:
    """End the process where it would listen beyond this machine without sign-in."""
    address = st.get_option("server.address")
    if why := access.why_not_listen(address, sign_in=access.signs_in(), env=os.environ):
        sys.exit(why)


ROUTES = [Route("/healthz", healthz), Route("/overview", overview), Route("/export", download.export)]
MIDDLEWARE = [Middleware(access.Gate)]

# Streamlit puts this folder on sys.path for each run of a page and takes it away again. An import that another thread
# is at (torch's, for the local model) walks along sys.path meanwhile, skips an entry, and finds no such module.
PAGES = str(Path(__file__).resolve().parent / "pages")
if PAGES not in sys.path:
    sys.path.append(PAGES)

guard()  # here and not in `lifespan`, whose end would be logged as a traceback
app = st.App("pages/main.py", routes=ROUTES, middleware=MIDDLEWARE, lifespan=lifespan)
