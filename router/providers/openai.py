"""OpenAI, and every endpoint that speaks its `/v1/embeddings`.

The SDK makes and signs the call; its own retries are off (ours is the only layer), and the body is read raw, up to its
bound: the SDK would turn base64 into Python floats and does not sort by `index`.
"""

from __future__ import annotations

from router.providers.base import EmbedCall, Reply, read_json, reply_limit, to_reply
from router.providers.sdk import OpenAISdk


class OpenAIProvider(OpenAISdk):
    """One endpoint that speaks OpenAI's wire."""

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        body = bytearray()
        headers = await self.call(
            lambda client: client.embeddings.with_streaming_response.create(
                input=call.sent,
                model=call.model.name,
                encoding_format=self.endpoint.encoding,
                extra_body=call.extra,
            ),
            reply_limit(call),
            body.extend,
        )
        return to_reply(self.endpoint.name, read_json(self.endpoint.name, body), headers)
