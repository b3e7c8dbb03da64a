"""One endpoint over HTTP: the client that its calls share, how much of an answer is read, and what a failure means.

All wires stand on httpx2, by itself or under the OpenAI SDK, so that there is one set of errors to tell apart. Whether
a failure may have been billed is not guessed from its class: the transport has seen the call leave, or has not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from router.config import Endpoint
from router.domain.errors import BadReply, NotConfigured, OutcomeUnknown, ProviderError, RouterError, Unreachable
from router.providers.base import key_of, refusal, unreadable
from router.providers.network import UNREAD, Proxy, check_address, check_certificates, check_proxy, place_of

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 10.0
"""The longest that a connection, and its TLS, may take to come about."""


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
                timeout=httpx2.Timeout(self.endpoint.timeout_s, connect=min(CONNECT_S, self.endpoint.timeout_s)),
                trust_env=False,
            )
        return self._client

    async def post(self, path: str, ask: Mapping[str, Any], most: int) -> tuple[bytearray, Mapping[str, str]]:
        """Send one call of JSON, once; the answer's body and headers.

        Raises:
            ProviderError: with what is known of the money. BadReply where the answer is longer than `most` bytes.
        """
        key = key_of(self.endpoint)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        body = bytearray()
        async with self.sending():
            client, url = self.client(), f"{self.endpoint.base_url.strip().rstrip('/')}{path}"
            async with (
                asyncio.timeout(self.endpoint.timeout_s),
                client.stream("POST", url, content=orjson.dumps(ask), headers=headers) as response,
            ):
                await receive(self.endpoint.name, response, most, body.extend)
        if response.status_code != 200:
            raise refusal(self.endpoint, response.status_code, body, response.headers)
        return body, response.headers

    async def reach(self, limit_s: float) -> str:
        """Ask for the base URL, without a key and without a text, and say who answered.

        Raises:
            ProviderError: nobody did, for the reason that a call would meet.
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

        departure = Departure()
        token = DEPARTURE.set(departure)
        try:
            yield
        except RouterError:
            raise
        except Exception as exc:
            raise self._failure(exc, departure.left) from exc
        finally:
            DEPARTURE.reset(token)

    async def aclose(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _failure(self, exc: Exception, left: bool) -> ProviderError:
        """One of our errors for whatever an SDK or the network raised."""
        name = self.endpoint.name
        if left:
            late = isinstance(exc, TimeoutError)
            what = (
                f"{name} did not answer in time."
                if late
                else f"The connection to {name} broke after the call was sent."
            )
            return OutcomeUnknown(what, "It may have been billed.")
        import httpx2

        links = list(_chain(exc))
        known = next((link for link in links if isinstance(link, ssl.SSLCertVerificationError)), None)
        if known is not None:
            return NotConfigured(
                f"{self._whom()}: its certificate is not trusted ({known.verify_message}).",
                "Name the certificates to trust in SSL_CERT_FILE"
                f" ({' and '.join(UNREAD)} are not read); nothing was sent or billed.",
            )
        refused = next((link for link in links if isinstance(link, httpx2.ProxyError)), None)
        if refused is not None and str(refused).startswith("407"):
            return NotConfigured(
                f"{self._whom()}: the proxy wants a name and a password.",
                f"Write them into {self._proxy.setting if self._proxy else 'its address'}; nothing was sent or billed.",
            )
        why = next((words for link in reversed(links) if (words := _words(link))), "")
        if not why:  # none that is known: sending it again would not change it
            return NotConfigured(
                f"A call to {name} could not be made: {self._shown(links[-1])}.",
                f"Check {self.endpoint.url_setting} and the environment; nothing was sent or billed.",
            )
        where = self.endpoint.url_setting if self._proxy is None else self._proxy.setting
        return Unreachable(f"{self._whom()}: {why}.", f"Check the network and {where}; nothing was billed.")

    def _whom(self) -> str:
        place = place_of(check_address(self.endpoint))
        by_way = "" if self._proxy is None else f" through the proxy {self._proxy.place}"
        return f"{self.endpoint.name} cannot be reached at {place}{by_way}"

    def _shown(self, exc: BaseException) -> str:
        words = f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}"
        return words if self.endpoint.key is None else words.replace(self.endpoint.key.reveal(), "***")


async def receive(name: str, response: httpx2.Response, most: int, take: Callable[[bytes], object]) -> None:
    """Take the body of an answer part by part, unpacked; its bytes are counted as they come.

    Raises:
        BadReply: it is longer than `most` bytes, or cannot be unpacked.
    """
    import httpx2

    said, size = response.headers.get("content-length", ""), 0
    try:
        async with contextlib.aclosing(response.aiter_bytes()) as parts:
            if said.isdecimal() and int(said) > most:  # unpacked it would be longer still
                raise _too_long(name, most)
            async for part in parts:
                size += len(part)
                if size > most:
                    raise _too_long(name, most)
                take(part)
    except httpx2.DecodingError as exc:
        raise unreadable(name) from exc


def _too_long(name: str, most: int) -> BadReply:
    return BadReply(
        f"{name} answered with more than {most:,} bytes, the most that the call explains; the rest was not read.",
        "Nothing of the answer was stored.",
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An error and all that caused it."""
    yield exc
    for cause in (*(exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()), exc.__cause__):
        if cause is not None:
            yield from _chain(cause)


def _words(exc: BaseException) -> str:
    """Why nothing left, of an error that says it; else ""."""
    import httpx2

    if isinstance(exc, socket.gaierror):
        return f"its name cannot be resolved ({exc.strerror})"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed ({exc.reason or 'no reason given'}); it may not speak https"
    if isinstance(exc, TimeoutError | httpx2.TimeoutException):
        return "no connection came about in time"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)
    if isinstance(exc, httpx2.ProxyError):
        return f"the proxy answered {str(exc)[:100]}"
    return "the connection broke" if isinstance(exc, httpx2.TransportError) else ""
