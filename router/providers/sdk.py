"""The OpenAI SDK on our HTTP client: it makes and signs calls and encodes files; what comes back is read here.

OpenAI's embeddings and both batch tiers go through it. Its retries are off: ours is the only layer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from router.config import Endpoint
from router.providers.base import key_of, refusal
from router.providers.http import Http, receive

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncAPIResponse, AsyncOpenAI

    Send = Callable[[AsyncOpenAI], AbstractAsyncContextManager[AsyncAPIResponse[Any]]]


class OpenAISdk(Http):
    """The way to one endpoint through the SDK."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._sdk: AsyncOpenAI | None = None

    async def call(
        self, send: Send, most: int, take: Callable[[bytes], object], limit_s: float | None = None
    ) -> Mapping[str, str]:
        """Send one call, once, and take its answer part by part; its headers. `limit_s` is the endpoint's, else given.

        Raises:
            ProviderError: with what is known of the money. BadReply where the answer is longer than `most` bytes.
        """
        key = key_of(self.endpoint)
        refused: httpx2.Response | None = None
        async with self.sending():
            import openai

            client = self._connect(key)
            try:
                async with asyncio.timeout(limit_s or self.endpoint.timeout_s), send(client) as answer:
                    response = answer.http_response
                    await receive(self.endpoint.name, response, most, take)
            except openai.APIStatusError as exc:
                refused = exc.response
        if refused is not None:  # raised without the SDK's error, which repeats what the server said
            raise refusal(self.endpoint, refused.status_code, refused.content, refused.headers)
        if response.status_code != 200:
            raise refusal(self.endpoint, response.status_code, b"", response.headers)
        return response.headers

    async def aclose(self) -> None:
        """Close connections."""
        self._sdk = None
        await super().aclose()

    def _connect(self, key: str) -> AsyncOpenAI:
        if self._sdk is None:
            from openai import AsyncOpenAI

            self._sdk = AsyncOpenAI(
                api_key=key, base_url=self.endpoint.base_url.strip(), max_retries=0, http_client=self.client()
            )
        self._sdk.api_key = key  # it may have been typed in since
        return self._sdk
