"""What every provider does, and the one place where foreign errors become ours.

A provider is: one SDK call, its reply as it came (vectors with their `index`), its errors translated. Whether a
reply can be trusted is checked here, once for all.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import (
    BadReply,
    BilledUsage,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    Unreachable,
)
from router.domain.values import Model, Role

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """One call: texts of one model and role, answered at the model's full dimensions."""

    model: Model
    texts: tuple[str, ...] = field(repr=False)
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A provider's answer, not yet trusted.

    Attributes:
        vectors: one a text, in the order of the reply: base64 of float32 little-endian, lists of numbers, or an array.
        indices: the `index` of each, where the wire has one.
        tokens: what the provider says it billed, or None.
        model: the model that the reply names, or None.
        headers: for rate limits.
    """

    vectors: Sequence[Any] | Floats
    indices: Sequence[Any] | None
    tokens: int | None
    model: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """Somebody who makes vectors."""

    name: str

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once.

        Raises:
            ProviderError: with what is known of the money.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def check(call: EmbedCall, reply: Reply) -> Floats:
    """The vectors of a reply, `(n, dimensions)` float32 of unit length, in the order of the call's texts.

    Raises:
        BadReply: wrong count, `index`, size or model; a number that is not finite; a vector of zeros.
    """
    usage = None if reply.tokens is None else BilledUsage(tokens=reply.tokens)

    def bad(what: str) -> BadReply:
        return BadReply(
            f"{call.model.provider} answered a call of {len(call.texts)} texts with {what}.",
            "Nothing of the answer was stored.",
            usage=usage,
        )

    if reply.model is not None and not _same_model(call.model.name, reply.model):
        raise bad(f"vectors of another model, '{reply.model[:60]}' for '{call.model.name}'")
    n = len(call.texts)
    if len(reply.vectors) != n:
        raise bad(f"{len(reply.vectors)} vectors")
    order = range(n) if reply.indices is None else _order(reply.indices, n)
    if order is None:
        raise bad("an `index` that is missing, doubled or out of range")
    try:
        vectors = _decode(reply.vectors, call.model.dimensions)
    except (ValueError, TypeError, binascii.Error, OverflowError) as exc:
        raise bad(f"vectors that cannot be read ({str(exc)[:80]})") from exc
    norms = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(norms).all():
        raise bad("a number that is not finite")
    if not norms.all():
        raise bad("a vector of zeros")
    if np.abs(norms - 1.0).max() > 1e-3:
        vectors /= norms[:, None]
    if isinstance(order, range):
        return vectors
    out = np.empty_like(vectors)
    out[order] = vectors
    return out


def _same_model(asked: str, answered: str) -> bool:
    # A provider may answer with a dated name of the same model, `text-embedding-3-small-2024-01-25`.
    return answered == asked or answered.rsplit("/", 1)[-1] == asked or answered.startswith(f"{asked}-20")


def _order(indices: Sequence[Any], n: int) -> list[int] | range | None:
    if all(type(i) is int for i in indices) and sorted(indices) == list(range(n)):
        places = list(indices)
        return range(n) if places == list(range(n)) else places
    return None


def _decode(raw: Sequence[Any] | Floats, dimensions: int) -> Floats:
    if not isinstance(raw, np.ndarray) and all(isinstance(v, str) for v in raw):
        data = b"".join(base64.b64decode(v, validate=True) for v in raw)
        if any(len(v) != 4 * -(-dimensions * 4 // 3) for v in raw) or len(data) != len(raw) * dimensions * 4:
            raise ValueError("not base64 of the model's size")
        return np.frombuffer(data, dtype="<f4").reshape(len(raw), dimensions).copy()
    vectors = np.array(raw, dtype=np.float32)  # raises on ragged rows and on null
    if vectors.shape != (len(raw), dimensions):
        raise ValueError(f"{vectors.shape[1:]} numbers instead of {dimensions}")
    return vectors


def error_for_status(
    provider: str, status: int, message: str, code: str, headers: Mapping[str, str], now: float
) -> ProviderError:
    """One of our errors for an HTTP status. `now` is epoch seconds, for a Retry-After that is a date."""
    said = f"{provider} answered {status}: {message[:300]}"
    if status in (401, 403):
        return KeyRejected(said, f"Check the key of {provider} in the environment or on the Connections page.")
    if status == 429 and (code == "insufficient_quota" or "insufficient_quota" in message):
        return QuotaExhausted(said, f"Add credit to the account at {provider}; nothing was billed.")
    if status == 429:
        return RateLimited(said, "It is sent again later.", retry_after=retry_after(headers, now))
    if status == 408 or status >= 500:
        return Overloaded(said, "It may have been billed.")
    if status == 413 or code == "max_tokens_per_request" or "maximum context length" in message:
        return CallTooLarge(said, "The call is split.")
    if 400 <= status < 500:
        return CallRejected(said, "Look at the text that it names.")
    return OutcomeUnknown(said, "It may have been billed.")


def connection_error(provider: str, exc: BaseException) -> ProviderError:
    """One of our errors for a connection that failed, told apart by whether the call can have left.

    Looks for the names of httpx's errors along the chain of causes, because openai uses `httpx2`, cohere `httpx`
    and voyageai `aiohttp`, whose classes are strangers to each other.
    """
    names = set()
    link: BaseException | None = exc
    while link is not None:
        names.add(type(link).__name__)
        link = link.__cause__ or link.__context__
    if names & {"ConnectError", "ConnectTimeout", "PoolTimeout", "ClientConnectorError", "ClientConnectorDNSError"}:
        return Unreachable(f"{provider} cannot be reached.", "Check the network and the base URL; nothing was billed.")
    return OutcomeUnknown(
        f"The connection to {provider} broke or timed out after the call was sent.", "It may have been billed."
    )


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a provider asks us to wait, from `retry-after-ms` or `Retry-After` (seconds or a date).

    None where it does not say, or says nothing that can be used (not a number, not finite, in the past).
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
            except (TypeError, ValueError):
                continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None
