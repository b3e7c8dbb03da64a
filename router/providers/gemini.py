"""Gemini's `batchEmbedContents`, spoken directly.

`embedContent` folds a list of texts into one vector; here every text is a request of its own within one call. The reply
does not say what was billed. How it refuses is Google's: a key that is wrong is a 400, and "you exceeded your current
quota" may be the limit of a minute or that of the account.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import orjson

from router.config import Endpoint
from router.domain.errors import CallTooLarge, KeyRejected, NotConfigured, ProviderError, QuotaExhausted, RateLimited
from router.providers.base import (
    EmbedCall,
    Reply,
    dig,
    read_json,
    refusal,
    reply_limit,
    retry_after,
    tokens_billed,
    unreadable,
)
from router.providers.http import Http

_NO_CREDIT = re.compile("credits are depleted|PerDay|spend(ing)? cap", re.IGNORECASE)
_TOO_LONG = re.compile("token count.*exceeds|payload size exceeds", re.IGNORECASE)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")


class GeminiProvider(Http):
    """One endpoint that speaks Gemini's wire."""

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        name = f"models/{call.model.name}"
        requests = [{**call.extra, "model": name, "content": {"parts": [{"text": text}]}} for text in call.sent]
        body, headers = await self.post(
            f"/v1beta/{name}:batchEmbedContents",
            {"requests": requests},
            reply_limit(call),
            key_header="x-goog-api-key",
            refused=_refused,
        )
        data = read_json(self.endpoint.name, body)
        rows = dig(data, "embeddings")
        if not isinstance(rows, list):
            raise unreadable(self.endpoint.name)
        billed = tokens_billed(dig(data, "usageMetadata", "promptTokenCount"))  # of no reply that is documented
        return Reply(vectors=[dig(row, "values") for row in rows], tokens=billed, headers=headers)


def _refused(endpoint: Endpoint, status: int, body: bytes | bytearray, headers: Mapping[str, str]) -> ProviderError:
    """One of our errors for Google's `{"error": {"code", "message", "status", "details"}}`."""
    error = refusal(endpoint, status, body, headers)
    try:
        said: Any = dig(orjson.loads(body), "error")
    except orjson.JSONDecodeError:
        return error
    kind, message, whole = dig(said, "status"), str(dig(said, "message") or ""), body.decode("utf-8", "replace")
    if status == 400 and ("API_KEY_INVALID" in whole or "API key" in message):
        return KeyRejected(error.message, f"Check the key of {endpoint.name} in {endpoint.key_variable}.")
    if status == 400 and kind == "FAILED_PRECONDITION":  # a country that is not served, or an account without billing
        return NotConfigured(error.message, f"See to the account at {endpoint.name}; nothing was billed.")
    if status == 400 and _TOO_LONG.search(message):
        return CallTooLarge(error.message, "The call is split.")
    if status == 429 and _NO_CREDIT.search(whole):
        return QuotaExhausted(error.message, f"Add credit to the account at {endpoint.name}; nothing was billed.")
    if status == 429:
        delays = [dig(detail, "retryDelay") for detail in dig(said, "details") or []]
        waits = [float(found[1]) for delay in delays if (found := _DELAY.fullmatch(str(delay)))]
        wait = max(waits, default=retry_after(headers, time.time()))
        return RateLimited(error.message, "It is sent again later.", retry_after=wait, headers=headers)
    return error
