"""Voyage's `/v1/embeddings`, spoken directly: its SDK drops each vector's `index`, the model's name and the headers."""

from __future__ import annotations

from router.providers.base import EmbedCall, Reply, read_json, reply_limit, to_reply
from router.providers.http import Http


class VoyageProvider(Http):
    """One endpoint that speaks Voyage's wire."""

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        content = {"input_type": None, **call.voyage, "input": call.sent}
        body, headers = await self.post("/embeddings", content, reply_limit(call))
        return to_reply(self.endpoint.name, read_json(self.endpoint.name, body), headers)
