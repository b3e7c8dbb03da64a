"""Voyage's `/v1/embeddings`.

The SDK's request layer makes and signs the call, over one session of ours and without its retries. What it builds on
top is left out: `AsyncClient.embed` drops each vector's `index`, the model's name and the headers, opens a connection
a call, and prints to the error stream when an answer breaks off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from router.config import Endpoint
from router.providers.base import EmbedCall, Reply, connection_error, key_of, read_list, refusal

if TYPE_CHECKING:
    from aiohttp import ClientSession


class VoyageProvider:
    """One endpoint that speaks Voyage's wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._session: ClientSession | None = None

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        from aiohttp import ClientError
        from voyageai.api_resources.api_requestor import APIRequestor
        from voyageai.error import APIConnectionError, Timeout

        endpoint, model = self._endpoint, call.model
        ask: dict[str, Any] = {
            "input": list(call.texts),
            "model": model.name,
            "input_type": call.role if model.roles else None,
            "truncation": False,
            "encoding_format": "base64",
        }
        if model.sizes:
            ask["output_dimension"] = model.dimensions
        requestor: Any = APIRequestor(  # type: ignore[no-untyped-call]  # the SDK's, which has no types here
            key_of(endpoint), endpoint.base_url.rstrip("/")
        )
        try:
            async with await requestor.arequest_raw(
                "post", "/embeddings", self._connect(), params=ask, request_timeout=endpoint.timeout_s
            ) as response:
                body = await response.read()
        except (APIConnectionError, Timeout, ClientError, TimeoutError) as exc:
            raise connection_error(self.name, exc) from exc
        if response.status != 200:
            raise refusal(endpoint, response.status, body, response.headers)
        return read_list(self.name, body, {name.lower(): value for name, value in response.headers.items()})

    async def aclose(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connect(self) -> ClientSession:
        if self._session is None:
            from aiohttp import ClientSession, TCPConnector

            # As many connections as the lane allows; proxies from the environment, as the other SDKs take them.
            self._session = ClientSession(connector=TCPConnector(limit=0), trust_env=True)
        return self._session
