"""The set-up itself: pins, switches, and the walls that conftest.py puts around the tests."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import pytest_xdist_make_scheduler

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)==(?P<version>[^\s;]+)(\s*;.*)?")


def pins(file: str) -> dict[str, str]:
    """Name to version of a requirements file; fails on a line that pins nothing."""
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    matches = {line: PIN.fullmatch(line) for line in lines if line}
    loose = [line for line, match in matches.items() if match is None]
    assert not loose, f"not pinned exactly: {loose}"
    return {match["name"]: match["version"] for match in matches.values() if match}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_what_is_installed(file: str) -> None:
    """What the tests ran with is what a fresh install gets."""
    pinned = pins(file)
    assert pinned
    installed = {name: version(name).split("+")[0] for name in pinned}
    assert installed == pinned


def test_torch_is_the_pin_that_has_a_cpu_build() -> None:
    """Another version, or a range, fetches gigabytes."""
    assert pins("requirements.txt")["torch"] == "2.13.0"


def test_streamlit_reports_nothing_and_listens_on_loopback_only() -> None:
    """Telemetry, an open address and stack traces on the page are Streamlit's defaults; none of them is ours."""
    config = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())
    assert config["browser"]["gatherUsageStats"] is False
    assert config["server"]["address"] == "127.0.0.1"
    assert config["client"]["showErrorDetails"] == "none"


def luminance(colour: str) -> float:
    """Relative luminance of `#RRGGBB`, 0 to 1 (WCAG 2.2, "relative luminance")."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(theme: str) -> None:
    """4.5:1 for text, for links, and for the white words on a primary button; 3:1 for that button's edge."""
    assert round(contrast("#FFFFFF", "#000000"), 2) == 21
    colours = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())["theme"][theme]
    grounds = [colours["backgroundColor"], colours["secondaryBackgroundColor"], *colours["sidebar"].values()]
    for ground in grounds:
        assert contrast(colours["textColor"], ground) >= 4.5
        assert contrast(colours["linkColor"], ground) >= 4.5
    assert contrast("#FFFFFF", colours["primaryColor"]) >= 4.5
    assert contrast(colours["primaryColor"], colours["backgroundColor"]) >= 3


def test_ci_runs_make_test() -> None:
    """The build machine runs what a developer runs, with skips of browser tests counted as failures."""
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "exec make test"
    assert 'export CI="${CI:-true}"' in lines


@pytest.mark.parametrize("script", [".ci/run", "scripts/venv", "scripts/chromium"])
def test_shell_scripts_parse_and_can_be_run(script: str) -> None:
    """A fresh clone runs them as they are."""
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_connecting_beyond_loopback_is_an_error() -> None:
    """192.0.2.1 is kept for documentation: nobody is there, and the guard must say no before anyone asks."""
    with socket.socket() as sock:
        sock.settimeout(1)
        with pytest.raises(AssertionError, match="loopback only"):
            sock.connect(("192.0.2.1", 80))
        with pytest.raises(AssertionError, match="loopback only"):
            sock.connect_ex(("192.0.2.1", 80))


async def test_connecting_beyond_loopback_is_an_error_in_asyncio_too() -> None:
    """asyncio connects through the same socket methods."""
    with pytest.raises(AssertionError, match="loopback only"):
        await asyncio.open_connection("192.0.2.1", 80)


def test_looking_up_a_name_is_an_error_except_an_invalid_one() -> None:
    """A DNS query leaves the machine as well; `.invalid` fails as an unknown host does, without asking anyone."""
    with pytest.raises(AssertionError, match="loopback only"):
        socket.getaddrinfo("example.com", 443)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("nowhere.invalid", 443)


def test_loopback_stays_open() -> None:
    """The sandbox and the app under test are on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()


def test_no_key_reaches_a_test_and_the_data_folder_is_the_runs_own() -> None:
    """A developer's keys would be spent and a developer's books would be written."""
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    assert not Path(os.environ["ROUTER_DATA"]).resolve().is_relative_to(ROOT)


def test_full_picks_the_full_count(count: Callable[[int, int], int], pytestconfig: pytest.Config) -> None:
    """`make test` runs the small count, `make faults` the full one."""
    assert count(3, 7) == (7 if pytestconfig.getoption("--full") else 3)


def test_the_tests_in_chromium_stay_in_one_process() -> None:
    """They count as one file for the processes that share the work, every other file for itself."""
    config = SimpleNamespace(option=SimpleNamespace(), getvalue={"tx": ["2*popen"], "rsyncdir": []}.__getitem__)
    split = pytest_xdist_make_scheduler(config, None)._split_scope
    assert split("tests/browser/test_a.py::test_b") == split("tests/faults/pages/test_c.py::test_d[e]") == "browser"
    assert split("tests/faults/test_f.py::test_g[h::i]") == "tests/faults/test_f.py"
    assert not config.option.loadscopereorder
