"""Starting the app and Chromium: shared by the browser tests and benchmarks/first_paint.py."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""How long a thing may take to show on a busy machine; nothing waits longer than it has to."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing but the server under test can be reached, so a page that fetches from elsewhere fails here.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def find_chromium() -> str | None:
    """The path of $CHROMIUM, else of the first Chromium on the path; as scripts/chromium does."""
    names = (os.environ.get("CHROMIUM", ""), *NAMES)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def launch(playwright: Playwright) -> Browser:
    """A headless Chromium. Raises LookupError where there is none."""
    path = find_chromium()
    if path is None:
        raise LookupError("no Chromium on this machine; install one, or set CHROMIUM to its path")
    return playwright.chromium.launch(executable_path=path, args=list(ARGS))


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(script: Path, log: Path, env: Mapping[str, str], *, health: str = "/healthz") -> Iterator[str]:
    """`streamlit run` a script on a free port of loopback until it answers; its URL. Ended on leaving."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=script.parent, env={**os.environ, **env}, stdout=out, stderr=out)
        try:
            wait_until_healthy(process, url + health, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 2 * PATIENCE_S) -> None:
    """Return once `url` answers; RuntimeError with the end of the log where the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)  # there is no event to wait for before another process opens its port
    raise RuntimeError(f"the server did not answer at {url}:\n{log.read_text(errors='replace')[-4000:]}")


def settled(page: Page) -> None:
    """Return once the page is connected and its script is not running. It may not have begun yet: after a step, wait
    for what the step brings about first (steps.py does)."""
    page.wait_for_selector(
        '[data-testid="stApp"][data-test-connection-state="CONNECTED"][data-test-script-state="notRunning"]',
        timeout=1_000 * PATIENCE_S,
    )
