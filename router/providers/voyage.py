"""Voyage's `/v1/embeddings`, spoken directly: its SDK drops each vector's `index`, the model's name and the headers."""

from __future__ import annotations

from typing import Any

from router.config import Endpoint
from router.providers.base import EmbedCall, Reply, read_list, reply_limit
from router.providers.http import Http


class VoyageProvider:
    """One endpoint that speaks Voyage's wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._http = Http(endpoint)

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        model = call.model
        ask: dict[str, Any] = {
            **call.extra,
            "input": call.sent,
            "model": model.name,
            "input_type": call.role if model.roles else None,
            "truncation": False,
            "encoding_format": "base64",
        }
        if model.sizes:
            ask["output_dimension"] = model.dimensions
        return read_list(self.name, *await self._http.post("/embeddings", ask, reply_limit(call)))

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()
