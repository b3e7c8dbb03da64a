"""Voyage's `/v1/embeddings`, spoken directly: its SDK drops each vector's `index`, the model's name and the headers."""

from __future__ import annotations

from typing import Any

from router.providers.base import EmbedCall, Reply, read_list, reply_limit
from router.providers.http import Http


class VoyageProvider(Http):
    """One endpoint that speaks Voyage's wire."""

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        model = call.model
        body: dict[str, Any] = {
            **call.extra,
            "input": call.sent,
            "model": model.name,
            "input_type": call.role if model.roles else None,
            "truncation": False,
            "encoding_format": "base64",
        }
        if model.sizes:
            body["output_dimension"] = model.dimensions
        return read_list(self.endpoint.name, *await self.post("/embeddings", body, reply_limit(call)))
