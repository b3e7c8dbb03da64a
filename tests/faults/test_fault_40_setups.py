"""Fault 40: set-ups that keep every call from leaving. Figures: nanodollars unconfirmed, requests arrived (0)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from router.domain.errors import NotConfigured, ProviderError, Unreachable
from router.engine import Router
from router.providers.batch import BatchClient
from router.sandbox import Sandbox
from tests.faults.ledger_oracle import audit
from tests.faults.paid_helpers import PAID, assert_books, limits, open_router, quick_retries, some_texts
from tests.libraries import assert_right, jsonl, opened, texts

URLS = {"openai": "OPENAI_BASE_URL", "cohere": "CO_API_URL", "voyage": "VOYAGE_BASE_URL"}
MISSING = "/nonexistent/ca.pem"
TIMEOUT_S = 0.2


@dataclass(frozen=True, slots=True)
class Setup:
    """What is wrong, and what is said of it. `{port}` is the port of the server `at`; URL stands for its variable."""

    error: type[ProviderError]
    says: str
    _: KW_ONLY
    env: tuple[str, str] | None = None
    url: str = ""
    at: Literal["", "silent", "plain", "tls", "refusing", "closed", "password"] = ""


HTTPS, ELSEWHERE = "https://127.0.0.1:{port}/v1", "https://127.0.0.1:9/v1"
PROXY = "http://127.0.0.1:{port}"
SETUPS = {
    "certificate file missing": Setup(
        NotConfigured, f"SSL_CERT_FILE names {MISSING}, .*no such file", env=("SSL_CERT_FILE", MISSING)
    ),
    "no certificate in the file": Setup(
        NotConfigured, "SSL_CERT_FILE names .*no certificate that", env=("SSL_CERT_FILE", __file__)
    ),
    "certificate folder missing": Setup(
        NotConfigured, "SSL_CERT_DIR names /nonexistent, .*no such folder", env=("SSL_CERT_DIR", "/nonexistent")
    ),
    "certificate not trusted": Setup(
        NotConfigured, "certificate is not trusted.*SSL_CERT_FILE.*REQUESTS_CA_BUNDLE", url=HTTPS, at="tls"
    ),
    "SOCKS without its package": Setup(
        NotConfigured, "HTTP_PROXY names a SOCKS.*pip install socksio", env=("HTTP_PROXY", "socks5://127.0.0.1:9")
    ),
    "proxy without a host": Setup(NotConfigured, "HTTP_PROXY is not the .*no host", env=("HTTP_PROXY", "http://")),
    "proxy with a bad port": Setup(
        NotConfigured, "ALL_PROXY is not the address.*port", env=("ALL_PROXY", "http://127.0.0.1:70000")
    ),
    "proxy that cannot be read": Setup(
        NotConfigured, "http_proxy is not the address.*cannot be read", env=("http_proxy", "http://127.0.0.1:port")
    ),
    "proxy of another protocol": Setup(
        NotConfigured, "HTTP_PROXY is not the address.*begins with none of", env=("HTTP_PROXY", "ftp://127.0.0.1")
    ),
    "proxy that is not there": Setup(
        Unreachable,
        "the proxy 127.0.0.1:{port}: Connection refused.*HTTP_PROXY",
        env=("HTTP_PROXY", PROXY),
        at="closed",
    ),
    "proxy whose name is unknown": Setup(
        Unreachable,
        "nobody.invalid:3128: its name cannot.*HTTP_PROXY",
        env=("HTTP_PROXY", "http://nobody.invalid:3128"),
    ),
    "proxy that cannot pass it on": Setup(
        Unreachable, "proxy answered 502.*HTTPS_PROXY", env=("HTTPS_PROXY", PROXY), url=ELSEWHERE, at="refusing"
    ),
    "proxy that wants a password": Setup(
        NotConfigured, "a name and a password.*HTTPS_PROXY", env=("HTTPS_PROXY", PROXY), url=ELSEWHERE, at="password"
    ),
    "proxy that says nothing": Setup(
        Unreachable, "did not answer in time.*HTTPS_PROXY", env=("HTTPS_PROXY", PROXY), url=ELSEWHERE, at="silent"
    ),
    "base URL without a scheme": Setup(NotConfigured, "URL is not an address.*http://", url="api.example.org/v1"),
    "base URL of a host and a port": Setup(NotConfigured, "URL is not an address.*begins with", url="localhost:9/v1"),
    "base URL with a bad port": Setup(NotConfigured, "URL is not an address.*port", url="http://127.0.0.1:99999/v1"),
    "base URL of another protocol": Setup(NotConfigured, "URL is not an .*begins with", url="ftp://127.0.0.1/v1"),
    "base URL without a host": Setup(NotConfigured, "URL is not an address.*no host", url="http:///v1"),
    "base URL that cannot be read": Setup(NotConfigured, "URL is not an address", url="http://[::1/v1"),
    "name not found": Setup(Unreachable, "nobody.invalid:80: its name cannot.*URL", url="http://nobody.invalid/v1"),
    "nobody listens": Setup(Unreachable, "Connection refused.*URL", url="http://127.0.0.1:{port}/v1", at="closed"),
    "TLS to a plain port": Setup(Unreachable, "TLS failed.*https", url=HTTPS, at="plain"),
    "TLS that never comes about": Setup(Unreachable, "did not answer in time", url=HTTPS, at="silent"),
}
EVERY = pytest.mark.parametrize("what", SETUPS)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody knows."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody's")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start.replace(year=2120))
    made = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def serving(kind: str, folder: Path) -> AsyncIterator[int]:
    """A server of that kind; its port."""
    answers = {"refusing": b"502 Bad Gateway", "password": b"407 Proxy Authentication Required", "plain": b"400 Bad"}

    silent: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if kind in answers:
            await reader.read(1)
            writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % answers[kind])
            writer.close()
            await writer.wait_closed()
        else:
            silent.append(writer)

    if kind == "closed":
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            yield listener.getsockname()[1]
    else:
        context = self_signed(folder) if kind == "tls" else None
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            yield server.sockets[0].getsockname()[1]
            for writer in silent:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_retries(monkeypatch)
    monkeypatch.setattr("router.dispatch.limiter.BREAK_AFTER", 10**6)
    for name in ("NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def refused(router: Router, name: str, error: type[ProviderError], says: str, many: list[str]) -> None:
    """A request, a file and a batch all meet the error, and the whole of it is what it should be."""
    with pytest.raises(error) as request:
        await router.embed(many, model=PAID[name], policy="quality")
    found = [request.value]
    result = await router.embed(many, model=PAID[name], policy="quality", partial=True)
    assert len(result.problems) == len(many)
    found += [problem for problem in result.problems.values() if isinstance(problem, ProviderError)]
    client = BatchClient(router.settings.endpoints[name])
    if name != "cohere":
        with pytest.raises(error) as batch:
            await client.retrieve("batch_1")
        found.append(batch.value)
    await client.aclose()
    for each in found:
        assert type(each) is error
        assert re.search(says, f"{each.message} {each.hint}"), str(each)
        assert each.billed == "no"


@EVERY
async def test_what_never_left_is_released_and_named(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[int, str], None], what: str
) -> None:
    """By each wire: nothing is charged or unconfirmed, nothing arrives, and the variable or the file is named."""
    setup = SETUPS[what]
    async with serving(setup.at, tmp_path) as port:
        if setup.env is not None:
            monkeypatch.setenv(setup.env[0], setup.env[1].format(port=port))
        urls = dict.fromkeys(URLS.values(), setup.url.format(port=port)) if setup.url else {}
        async with open_router(tmp_path / "data", sandbox, **urls) as router:
            for name in PAID:
                if setup.at == "silent":
                    router.settings.endpoints[name].timeout_s = TIMEOUT_S
                says = re.sub(r"\bURL\b", URLS[name], setup.says.format(port=port))
                await refused(router, name, setup.error, says, some_texts(5))
            books = assert_books(router, sandbox)
            assert (books.settled, books.unconfirmed) == (0, 0)
        assert sandbox.received() == []
    figure(40, f"{what}: {books.unconfirmed} nanodollars unconfirmed, {len(sandbox.received())} requests arrived")


async def test_no_route(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that cannot be reached is told in the system's words."""

    def connect(self: socket.socket, address: object) -> None:
        raise OSError(errno.ENETUNREACH, "Connect call failed")

    async with open_router(tmp_path, sandbox) as router:
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", connect)
            for name in PAID:
                await refused(router, name, Unreachable, "Network is unreachable", some_texts(2))
        assert assert_books(router, sandbox).shown == 0


@pytest.mark.parametrize("where", ["AsyncHTTPTransport.__init__", "AsyncClient.send", "AsyncClient.build_request"])
async def test_what_nobody_foresaw_is_an_error_of_ours(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whatever a library raises before the call left: no traceback, nothing unconfirmed, not tried again."""

    def surprise(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(f"httpx2.{where}", surprise)
    async with open_router(tmp_path, sandbox) as router:
        for name in PAID:
            await refused(router, name, NotConfigured, "could not be made: RuntimeError: surprise", some_texts(2))
        assert assert_books(router, sandbox).shown == 0


async def test_two_tries_of_many_texts(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 texts, twice, a call each: nothing is left to be struck by hand; mended, the same router goes on."""
    async with open_router(tmp_path, sandbox, limits(max_texts_per_call=50)) as router:
        with monkeypatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", MISSING)
            for _ in range(2):
                with pytest.raises(NotConfigured, match=MISSING):
                    await router.embed(some_texts(600), model=PAID["openai"], policy="quality")
        assert router.ledger.totals() == (0, 0, 0)
        await router.embed(some_texts(600), model=PAID["openai"], policy="quality")
        assert assert_books(router, sandbox).unconfirmed == 0


@pytest.mark.parametrize("route", ["api", "batch"])
async def test_a_job_pauses_with_the_reason(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: Literal["api", "batch"]
) -> None:
    """Nothing is unconfirmed; mended and resumed, it is embedded and each text billed once."""
    sandbox.configure(batch_seconds=0.05)
    async with opened(tmp_path / "data", sandbox) as here:
        await here.fill("letters", jsonl(tmp_path / "letters.jsonl", texts(120)))
        with monkeypatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", MISSING)
            job = await here.library.confirm("letters", route=route)
            await here.worker.run_all()
            now = here.library.job(job.id)
            assert now.state == "paused"
            assert f"SSL_CERT_FILE names {MISSING}" in now.reason
            books = audit(here.router.database.reader())
            assert (books.shown, books.held, books.pending) == (0, 0, 0)
        await here.library.resume(job.id)
        await here.worker.run_all()
        assert here.library.job(job.id).state == "done"
        assert_right(here.router, texts(120))
        assert (sandbox.bill().texts, sandbox.bill().most_often) == (120, 1)
