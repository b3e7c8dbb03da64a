"""One endpoint over HTTP: the client that its calls share, how much of an answer is read, and what a failure means.

All wires stand on httpx2, by itself or under the OpenAI SDK, so that there is one set of errors to tell apart. Whether
a failure may have been billed is not guessed from its class: the transport has seen the call leave, or has not.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from router.config import Endpoint
from router.domain.errors import BadReply, NotConfigured, OutcomeUnknown, ProviderError, RouterError, Unreachable
from router.providers.base import key_of, refusal, unreadable
from router.providers.network import UNREAD, Proxy, check_address, check_certificates, check_proxy, place_of

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 10.0
"""The longest that a connection may take to come about, and then its TLS; a third of the call's time at most, because
httpcore2 leaves the socket open where a deadline of ours ends the handshake."""
PASSWORD = "the proxy wants a name and a password"
T = TypeVar("T", bound=BaseException)


class Http:
    """The way to one endpoint. Used on one loop; opened by the first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._client: httpx2.AsyncClient | None = None
        self._proxy: Proxy | None = None

    def client(self) -> httpx2.AsyncClient:
        """The client. It does not follow redirects: texts and keys go to the address that was set, and to no other.

        Raises:
            NotConfigured: the address, the proxy or the certificates cannot be used.
        """
        if self._client is None:
            url, certificates = check_address(self.endpoint), check_certificates()
            self._proxy = check_proxy(url)
            import httpx2

            from router.providers.transport import Transport

            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.endpoint.max_in_flight)
            inner = httpx2.AsyncHTTPTransport(
                verify=certificates, limits=limits, proxy=None if self._proxy is None else self._proxy.url
            )
            self._client = httpx2.AsyncClient(
                transport=Transport(inner),
                timeout=httpx2.Timeout(self.endpoint.timeout_s, connect=min(CONNECT_S, self.endpoint.timeout_s / 3)),
                trust_env=False,
            )
        return self._client

    async def post(
        self,
        path: str,
        content: Mapping[str, Any],
        most: int,
        *,
        key_header: str = "",
        refused: Callable[[Endpoint, int, bytearray, Mapping[str, str]], ProviderError] = refusal,
    ) -> tuple[bytearray, Mapping[str, str]]:
        """Send one call of JSON, once; the answer's body and headers.

        The key is a bearer's, unless it has a `key_header` of its own; `refused` reads an answer other than 200.

        Raises:
            ProviderError: with what is known of the money. BadReply where the answer is longer than `most` bytes.
        """
        key = key_of(self.endpoint)
        said = {key_header: key} if key_header else {"authorization": f"Bearer {key}"}
        headers = {**said, "content-type": "application/json"}
        body = bytearray()
        async with self.sending():
            client, url = self.client(), f"{self.endpoint.base_url.strip().rstrip('/')}{path}"
            async with (
                asyncio.timeout(self.endpoint.timeout_s),
                client.stream("POST", url, content=orjson.dumps(content), headers=headers) as response,
            ):
                await receive(self.endpoint.name, response, most, body.extend)
        if response.status_code != 200:
            raise refused(self.endpoint, response.status_code, body, response.headers)
        return body, response.headers

    async def reach(self, limit_s: float) -> str:
        """Ask for the base URL, without a key and without a text, and say who answered.

        Raises:
            ProviderError: there was no answer, for the reason that a call would meet.
        """
        async with self.sending():
            client, url = self.client(), check_address(self.endpoint)
            async with asyncio.timeout(limit_s), client.stream("GET", url) as response:
                by_way = "" if self._proxy is None else f" through the proxy {self._proxy.place}"
                moved = f" with a redirect, which is not followed; see {self.endpoint.url_setting}"
                return f"{place_of(url)} answers{by_way}{moved if response.is_redirect else ''}"

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """One call, from making its client to the end of its answer: whatever goes wrong becomes one of our errors."""
        from router.providers.transport import DEPARTURE, Departure

        departure, earlier = Departure(), sys.exception()
        token = DEPARTURE.set(departure)
        try:
            yield
        except RouterError:
            raise
        except Exception as exc:
            raise self._failure(exc, departure.left, earlier) from exc
        finally:
            DEPARTURE.reset(token)

    async def aclose(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _failure(self, exc: Exception, left: bool, earlier: BaseException | None) -> ProviderError:
        """One of our errors for whatever an SDK or the network raised. `earlier` was being handled before the call."""
        links = list(_chain(exc, earlier))
        if left:
            late, name = _timed_out(links), self.endpoint.name
            what = (
                f"{name} did not answer in time."
                if late
                else f"The connection to {name} broke after the call was sent."
            )
            return OutcomeUnknown(what, "It may have been billed.")
        setting = self.endpoint.url_setting if self._proxy is None else self._proxy.setting
        if (untrusted := _last(links, ssl.SSLCertVerificationError)) is not None:
            return NotConfigured(
                f"{self._failed()}: its certificate is not trusted ({untrusted.verify_message}).",
                "Name the certificates to trust in SSL_CERT_FILE"
                f" ({' and '.join(UNREAD)} are not read); nothing was sent or billed.",
            )
        if (file := _last(links, OSError)) is not None and file.filename:  # such as SSLKEYLOGFILE's, by any package
            return NotConfigured(
                f"{file.filename} cannot be opened: {file.strerror}.",
                "A variable of the environment names it, perhaps SSLKEYLOGFILE; nothing was sent or billed.",
            )
        why = _words(links)
        if why == PASSWORD:
            return NotConfigured(f"{self._failed()}: {why}.", f"Write them into {setting}; nothing was sent or billed.")
        if why:
            return Unreachable(f"{self._failed()}: {why}.", f"Check the network and {setting}; nothing was billed.")
        shown = f"{type(links[-1]).__name__}: {' '.join(str(links[-1]).split())[:200]}"
        if self.endpoint.key is not None:
            shown = shown.replace(self.endpoint.key.reveal(), "***")
        return NotConfigured(  # none that is known: sending it again would not change it
            f"A call to {self.endpoint.name} could not be made: {shown}.",
            f"Check {setting} and the environment; nothing was sent or billed.",
        )

    def _failed(self) -> str:
        place = place_of(check_address(self.endpoint))
        by_way = "" if self._proxy is None else f" through the proxy {self._proxy.place}"
        return f"{self.endpoint.name} cannot be reached at {place}{by_way}"


async def receive(name: str, response: httpx2.Response, most: int, take: Callable[[bytes], object]) -> None:
    """Take the body of an answer part by part, unpacked; its bytes are counted as they come.

    Raises:
        BadReply: it is longer than `most` bytes, or cannot be unpacked.
    """
    import httpx2

    said, size = response.headers.get("content-length", ""), 0
    too_long = BadReply(
        f"{name} answered with more than {most:,} bytes, the most that the call explains; the rest was not read.",
        "Nothing of the answer was stored.",
        action="stop",
    )
    try:
        async with aclosing(response.aiter_bytes()) as parts:
            if said.isdecimal() and int(said) > most:  # unpacked it would be longer still
                raise too_long
            async for part in parts:
                size += len(part)
                if size > most:
                    raise too_long
                take(part)
    except httpx2.DecodingError as exc:
        raise unreadable(name) from exc


def _chain(exc: BaseException | None, earlier: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, which httpcore2 leaves in the context alone (it raises its errors `from None`)."""
    if exc is None or exc is earlier:
        return
    yield exc
    for cause in exc.exceptions if isinstance(exc, BaseExceptionGroup) else (exc.__cause__ or exc.__context__,):
        yield from _chain(cause, earlier)


def _last(links: Sequence[BaseException], *kinds: type[T]) -> T | None:
    """The innermost error of these kinds."""
    return next((link for link in reversed(links) if isinstance(link, kinds)), None)


def _timed_out(links: Sequence[BaseException]) -> bool:
    import httpx2

    return _last(links, TimeoutError, httpx2.TimeoutException) is not None


def _words(links: Sequence[BaseException]) -> str:
    """Why nothing left, in words; "" where none of the errors is known to say so."""
    import httpx2

    if (unknown := _last(links, socket.gaierror)) is not None:
        return f"its name cannot be resolved ({unknown.strerror})"
    if _timed_out(links):
        return "it did not answer in time"
    if (tls := _last(links, ssl.SSLError)) is not None:
        return f"TLS failed ({tls.reason or 'no reason given'}); it may not speak https"
    if (refused := _last(links, httpx2.ProxyError)) is not None:
        return PASSWORD if str(refused).startswith("407") else f"the proxy answered {str(refused)[:100]}"
    if (system := _last(links, OSError)) is not None and system.errno:
        return os.strerror(system.errno)
    return "the connection broke" if _last(links, httpx2.TransportError) else ""
