"""OpenAI, and every endpoint that speaks its `/v1/embeddings`.

The SDK's own retries are off (ours is the only layer), and the body is read raw: the SDK would turn base64 into
Python floats and does not sort by `index`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from router.config import Endpoint
from router.domain.errors import BadReply, NotConfigured
from router.providers.base import EmbedCall, Reply, connection_error, error_for_status

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
                input=list(call.texts), model=call.model.name, encoding_format="base64"
            )
            body = raw.http_response.content
        except openai.APIStatusError as exc:
            message, code = _error_body(exc.body)
            raise error_for_status(
                self.name, exc.status_code, message or exc.message, code, exc.response.headers, time.time()
            ) from exc
        except openai.APIConnectionError as exc:
            raise connection_error(self.name, exc) from exc
        return _read(self.name, body, dict(raw.headers))

    async def aclose(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _connect(self) -> AsyncOpenAI:
        key = self._endpoint.key
        if not key:
            raise NotConfigured(
                f"There is no key for {self.name}.",
                f"Set {self._endpoint.key_variable} in the environment, or add it on the Connections page.",
            )
        if self._client is None or self._client.api_key != key.reveal():
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(
                api_key=key.reveal(),
                base_url=self._endpoint.base_url,
                max_retries=0,
                timeout=self._endpoint.timeout_s,
            )
        return self._client


def _error_body(body: object) -> tuple[str, str]:
    if not isinstance(body, Mapping):
        return "", ""
    inner: Any = body.get("error", body)
    if not isinstance(inner, Mapping):
        return str(inner), ""
    return str(inner.get("message") or ""), str(inner.get("code") or inner.get("type") or "")


def _read(name: str, body: bytes, headers: Mapping[str, str]) -> Reply:
    try:
        data = orjson.loads(body)
        items = data["data"]
        usage = data.get("usage") or {}
        tokens = usage.get("prompt_tokens", usage.get("total_tokens"))
        return Reply(
            vectors=[item["embedding"] for item in items],
            indices=[item.get("index") for item in items],
            tokens=tokens if isinstance(tokens, int) and tokens >= 0 else None,
            model=data.get("model"),
            headers=headers,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise BadReply(
            f"{name} answered with something that is not a list of embeddings.", "Nothing was stored."
        ) from exc
