"""`demo`: the app beside a stand-in for the paid providers, on data of its own. The money is play money."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import typer

from router.cli.output import say
from router.cli.pages import Port, streamlit

DEMO_DATA = "demo-data"


def demo(port: Port = 8501) -> None:
    """Start the app and the sandbox together; every page is marked as a demo. No key and no money is used."""
    from router.demo import write
    from router.sandbox import Sandbox

    data = data_folder(os.environ)
    if not (data / "router.db").exists():
        say("Writing ninety days of made-up requests, once ...")
        write(data, now=time.time())
    say("Starting the stand-in for the paid providers ...")
    with Sandbox(vectors="model") as sandbox:
        # A group of its own: a Ctrl-C reaches it once, through us.
        child = subprocess.Popen(streamlit(port), env=environment(os.environ, sandbox.environment), process_group=0)
        stopped = False

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True
            child.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
    raise typer.Exit(0 if stopped else code)


def environment(ours: Mapping[str, str], sandbox: Mapping[str, str]) -> dict[str, str]:
    """The app's environment: every provider is the sandbox, whatever keys there were."""
    return {**ours, **sandbox, "ROUTER_DATA": str(data_folder(ours)), "ROUTER_DEMO": "1"}


def data_folder(ours: Mapping[str, str]) -> Path:
    """The folder that the demo has to itself."""
    return Path(ours.get("ROUTER_DATA") or DEMO_DATA).absolute()
