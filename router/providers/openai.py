"""OpenAI, and every endpoint that speaks its `/v1/embeddings`.

The SDK's own retries are off (ours is the only layer), and the body is read raw: the SDK would turn base64 into
Python floats and does not sort by `index`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.config import Endpoint
from router.providers.base import EmbedCall, Reply, connection_error, key_of, read_list, refusal

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAIProvider:
    """One endpoint that speaks OpenAI's wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._client: AsyncOpenAI | None = None

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        import openai

        client = self._connect()
        try:
            raw = await client.embeddings.with_raw_response.create(
                input=list(call.texts), model=call.model.name, encoding_format=self._endpoint.encoding
            )
            response = raw.http_response
        except openai.APIStatusError as exc:
            response = exc.response  # raised below, without the SDK's error: it repeats what the server said
        except openai.APIConnectionError as exc:
            raise connection_error(self.name, exc) from exc
        if response.status_code != 200:
            raise refusal(self._endpoint, response.status_code, response.content, response.headers)
        return read_list(self.name, response.content, dict(response.headers))

    async def aclose(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _connect(self) -> AsyncOpenAI:
        key = key_of(self._endpoint)
        if self._client is None:
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(
                api_key=key, base_url=self._endpoint.base_url, max_retries=0, timeout=self._endpoint.timeout_s
            )
        self._client.api_key = key  # it may have been typed in since
        return self._client
