"""`app`: the pages in the browser, from a checkout or from an installed wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

PACKAGE = Path(__file__).resolve().parents[1]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Of the app.")]


def app(port: Port = 8501) -> None:
    """Start the pages on http://127.0.0.1:PORT, on the data folder that ROUTER_DATA names."""
    command = streamlit(port)
    os.execv(command[0], command)


def streamlit(port: int) -> list[str]:
    """The command that serves the pages. A wheel holds them in `router/_app`; in a checkout they stand beside `router`.

    -P: a `pages` or an `app` of the folder that it is started in is not taken for ours.
    """
    folder = PACKAGE / "_app" if (PACKAGE / "_app").is_dir() else PACKAGE.parent
    return [sys.executable, "-P", "-m", "streamlit", "run", str(folder / "app.py"), "--server.port", str(port)]
