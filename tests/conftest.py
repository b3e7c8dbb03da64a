"""What every test stands on: no network, no keys, no data folder but its own, and the `--full` counts."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from router.sandbox import Sandbox

# Before anything reads them: a developer's keys, addresses and proxies must not reach a test.
for _name in (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "CO_API_KEY", "CO_API_URL", "VOYAGE_API_KEY", "VOYAGE_BASE_URL"),
    *("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ROUTER_DATA"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
):
    os.environ.pop(_name, None)
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
    # A thread for each of our two processes: more of them spin, waiting for one another, on cores that are busy.
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
)

# The machine that runs the tests is shared: a slow example is not a failure. CI has Hypothesis's own profile, under
# which the examples are the same in every run as well.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    settings.load_profile("local")


class NetworkUsed(AssertionError):
    """A test reached for something beyond loopback."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the fault tests with their full counts (make faults)")


BROWSER = ("tests/browser/", "tests/faults/pages/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in Chromium are marked, to be chosen or left out."""
    for item in items:
        if item.nodeid.startswith(BROWSER):
            item.add_marker("browser")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one process, with what they share; all those in Chromium count as one file, and go first.

    It is here because xdist 3.8 loses its own `xdist_group` under pytest 9.2, without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if nodeid.startswith(BROWSER) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # in the order of the folders, and not the longest lists first
    return Files(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, a skipped browser test is a failed one: nobody would read the skip."""
    report = yield
    if report.skipped and os.environ.get("CI") and item.nodeid.startswith(BROWSER) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def count(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """`count(small, full)` is `small`, or `full` under `--full`."""
    full_counts = pytestconfig.getoption("--full")

    def pick(small: int, full: int) -> int:
        return full if full_counts else small

    return pick


@pytest.fixture(scope="session")
def running() -> Iterator[Sandbox]:
    """The provider on loopback that the tests of this process share."""
    from router.sandbox import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """The provider with an empty bill, no faults and its usual settings."""
    from router.sandbox import SandboxConfig

    running.release()
    running.reset()
    usual = SandboxConfig()
    running.configure(**{field.name: getattr(usual, field.name) for field in fields(usual)})
    return running


def _check_address(family: int, address: Any) -> None:
    if family == socket.AF_UNIX:
        return
    host = address[0]
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise NetworkUsed(f"a test tried to connect to {address}; tests may reach loopback only")


@pytest.fixture(scope="session", autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Loopback only, and a data folder of the run's own. Names under `.invalid` fail as unknown hosts do."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _check_address(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _check_address(self.family, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name is not None:
            _check_address(socket.AF_INET, (name,))
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        patch.setenv("ROUTER_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _certificates_are_read_once() -> Iterator[None]:
    """Each client reads the system's certificates: 20 ms, of which a thousand tests have one and more."""
    import httpx2

    read = httpx2.create_ssl_context
    usual = cache(read)

    def create_ssl_context(*args: Any, **options: Any) -> Any:
        own = any(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"))
        return read(*args, **options) if own or args or options else usual()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx2, "create_ssl_context", create_ssl_context)
        yield


@pytest.fixture
def provider(sandbox: Sandbox) -> Sandbox:
    """The provider, whose batches are done in a moment."""
    sandbox.configure(batch_seconds=0.05)
    return sandbox
