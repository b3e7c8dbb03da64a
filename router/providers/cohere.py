"""Cohere's `/v2/embed`, spoken directly.

Its SDK holds the loop for a quarter of a second to parse one answer of 96 vectors of 1,536 numbers, and reads an answer
whole, however long it is.
"""

from __future__ import annotations

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
        answer, headers = await self.post("/v2/embed", body, reply_limit(call))
        data = read_json(self.endpoint.name, answer)
        vectors = dig(data, "embeddings", "float")  # in the order of the texts, without an `index` and the model's name
        if not isinstance(vectors, list):
            raise unreadable(self.endpoint.name, "resend_once")
        billed = tokens_billed(dig(data, "meta", "billed_units", "input_tokens"))
        return Reply(vectors=vectors, tokens=billed, headers=headers)
