"""The one process on the one port: the pages, the HTTP routes beside them, and the engine's life.

`streamlit run app.py` finds `app` here. The script that draws is pages/main.py and not this file, because Streamlit
would serve a pages/ folder beside its main script without the frame.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pages.components import access
from router.host import close


async def healthz(request: Request) -> Response:
    """200 as soon as the server answers; whether providers can be reached is `python -m router doctor`'s."""
    return JSONResponse({"status": "ok"})


async def overview(request: Request) -> Response:
    """Streamlit knows its default page as `/` only and calls `/overview` a page not found."""
    return RedirectResponse(request.url.replace(path="/"))


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    """What lives as long as the server: router.host's engine, opened by the page that asks it first, closed here."""
    yield
    await asyncio.to_thread(close)


def guard() -> None:
    """End the process where it would listen beyond this machine without sign-in."""
    address = st.get_option("server.address")
    if why := access.why_not_listen(address, sign_in=access.signs_in(), env=os.environ):
        sys.exit(why)


ROUTES = [Route("/healthz", healthz), Route("/overview", overview)]

guard()  # here and not in `lifespan`, whose end would be logged as a traceback
app = st.App("pages/main.py", routes=ROUTES, lifespan=lifespan)
