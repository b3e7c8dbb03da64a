"""Cohere's `/v2/embed`, spoken directly.

Its SDK holds the loop for a quarter of a second to parse one answer of 96 vectors of 1,536 numbers, and reads an answer
whole, however long it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.domain.values import Role
from router.providers.base import EmbedCall, Reply, dig, read_json, reply_limit, tokens_billed, unreadable
from router.providers.http import Http

INPUT_TYPES: dict[Role, str] = {"document": "search_document", "query": "search_query"}


class CohereProvider(Http):
    """One endpoint that speaks Cohere's wire."""

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        model = call.model
        body: dict[str, Any] = {
            **call.extra,
            "model": model.name,
            "texts": call.sent,
            "input_type": INPUT_TYPES[call.role if model.roles else "document"],
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        if model.sizes:
            body["output_dimension"] = model.dimensions
        return _read(self.endpoint.name, *await self.post("/v2/embed", body, reply_limit(call)))


def _read(name: str, body: bytes | bytearray, headers: Mapping[str, str]) -> Reply:
    """Cohere's vectors come in the order of the texts, without an `index` and without the model's name."""
    data = read_json(name, body)
    vectors = dig(data, "embeddings", "float")
    if not isinstance(vectors, list):
        raise unreadable(name, "resend_once")
    billed = tokens_billed(dig(data, "meta", "billed_units", "input_tokens"))
    return Reply(vectors=vectors, indices=None, tokens=billed, model=None, headers=headers)
