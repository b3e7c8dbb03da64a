"""What every provider does, and what its answers mean.

A provider is: one call, its reply as it came (vectors with their `index`), its errors translated. Whether a
reply can be trusted is checked here, once for all.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from router.config import Endpoint
from router.domain.errors import (
    Action,
    BadReply,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
)
from router.domain.values import Model, Role, bare_name

Floats = NDArray[np.float32]

_NO_MONEY = re.compile("insufficient_quota|exceeded your current quota")
MOST_TOKENS = 10**12
"""More than any call can hold: a larger figure in a reply is nonsense, and would not fit into the ledger."""
REPLY_BYTES, ROW_BYTES = 1 << 16, 1 << 9
"""What a reply, and a row of it, may have besides numbers and texts."""
NUMBER_BYTES = 32
"""Of a number in JSON: `-1.2345678901234567e-05` is 23, a comma, a line end and an indentation follow."""
CHARACTER_BYTES = 12
"""Of a character in JSON: two escapes, `\\ud83d\\ude42`."""
SHORTEST = 1e-9
"""Vectors shorter than this are zero: float32 cannot square them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """One call: texts of one model and role, answered at the model's full dimensions."""

    model: Model
    texts: tuple[str, ...] = field(repr=False)
    role: Role

    @property
    def sent(self) -> list[str]:
        """The texts as they are sent: behind what the model wants before texts of this role."""
        before = self.model.before(self.role)
        return [before + text for text in self.texts] if before else list(self.texts)

    @property
    def extra(self) -> dict[str, Any]:
        """Fields that the model wants in the body of a call of this role."""
        return dict(self.model.extra.get(self.role, {}))

    @property
    def voyage(self) -> dict[str, Any]:
        """What Voyage is told of a call besides its texts; of a batch, once for all its lines."""
        model = self.model
        told: dict[str, Any] = {**self.extra, "model": model.name, "truncation": False, "encoding_format": "base64"}
        if model.roles:
            told["input_type"] = self.role
        if model.sizes:
            told["output_dimension"] = model.dimensions
        return told


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
    indices: Sequence[Any] | None = None
    tokens: int | None = None
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """Makes vectors. `Router.open(providers={"name": ...})` takes any object with these two methods."""

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once: the router limits, retries, pays and checks.

        Raises:
            ProviderError: with what is known of the money. Any other error is passed on to who asked for the vectors,
                and the call is booked as one that may have been billed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def check(call: EmbedCall, reply: Reply) -> Floats:
    """The vectors of a reply, `(n, dimensions)` float32 of unit length, in the order of the call's texts.

    Raises:
        BadReply: wrong count, `index`, size or model; a number that is not finite; a vector of zeros. Its `action` says
            whether the same call may be answered rightly.
    """

    def bad(what: str, action: Action) -> BadReply:
        return BadReply(
            f"{call.model.provider} answered a call of {len(call.texts)} texts with {what}.",
            "Nothing of the answer was stored.",
            tokens=reply.tokens,
            action=action,
        )

    if reply.model is not None and not _same_model(call.model, reply.model):
        raise bad(f"vectors of another model, '{str(reply.model)[:60]}' for '{call.model.name}'", "stop")
    n = len(call.texts)
    if len(reply.vectors) != n:
        raise bad(f"{len(reply.vectors)} vectors", "resend_once")
    order = range(n) if reply.indices is None else _order(reply.indices, n)
    if order is None:
        raise bad("an `index` that is doubled, out of range or not to be told", "resend_once")
    try:
        vectors = _decode(reply.vectors, call.model.dimensions)
    except _WrongSize as exc:
        raise bad(f"vectors that cannot be read ({exc})", "stop") from exc
    except (ValueError, TypeError, binascii.Error, OverflowError) as exc:
        raise bad(f"vectors that cannot be read ({str(exc)[:80]})", "resend_then_divide") from exc
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(norms).all():
        raise bad("a number that is not finite", "resend_then_divide")
    if norms.min() < SHORTEST:
        raise bad("a vector of zeros", "resend_then_divide")
    if np.abs(norms - 1.0).max() > 1e-3:
        vectors /= norms[:, None]
    if isinstance(order, range):
        return vectors
    out = np.empty_like(vectors)
    out[order] = vectors
    return out


def _same_model(model: Model, answered: object) -> bool:
    """True where the reply names the model of the call, by the name sent or by the one in its id.

    The two differ where a deployment has a name of its own (Azure answers with the model behind it). A provider may
    put an owner before the name, and a date or version behind it. A number alone is not taken for a version: of
    gemini-embedding-2 and voyage-3 it makes other models. Nor is the name of another model of the provider, of
    another space.
    """
    if not isinstance(answered, str) or bare_name(answered) in model.others:
        return False
    return any(_alias(name.casefold(), answered.casefold()) for name in (model.name, model.id.split("/", 1)[1]))


def _alias(sent: str, answered: str) -> bool:
    owner, _, name = sent.removesuffix(":latest").rpartition("/")
    other_owner, _, other = answered.removesuffix(":latest").rpartition("/")
    if owner and other_owner and owner != other_owner:
        return False
    return other.startswith(name) and (other == name or _VERSION.fullmatch(other, len(name)) is not None)


_VERSION = re.compile(
    r"[-_@](20\d\d-?\d\d(-?\d\d)?"  # 2024-01-25, 20240125, 2024-01
    r"|2\d(0[1-9]|1[0-2])"  # 2312
    r"|0\d\d"  # 001
    r"|v\d+(\.\d+)*|latest)"
)


def _order(indices: Sequence[Any], n: int) -> list[int] | range | None:
    """The text of each row: by its index, or by its position where it has none. None where that is not certain.

    Where several rows have none, those that have one must stand in order: nothing else tells whose the others are.
    """
    places = [i if index is None else index for i, index in enumerate(indices)]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(n)):
        return None
    if places == list(range(n)):
        return range(n)
    return places if sum(index is None for index in indices) <= 1 else None


def reply_limit(call: EmbedCall) -> int:
    """The most bytes, unpacked, that the reply to a call may have.

    Numbers as JSON (base64 needs a sixth of it), whatever a row has besides, and the texts, which Cohere repeats.
    """
    texts = len(call.texts) * ROW_BYTES + sum(map(len, call.sent)) * CHARACTER_BYTES
    return REPLY_BYTES + texts + len(call.texts) * call.model.dimensions * NUMBER_BYTES


class _WrongSize(ValueError):
    """Every vector has another number of dimensions than the model: it is another model, or another size of it."""


def _decode(raw: Sequence[Any] | Floats, dimensions: int) -> Floats:
    if not isinstance(raw, np.ndarray) and all(isinstance(v, str) for v in raw):
        data = b"".join(base64.b64decode(v, validate=True) for v in raw)
        if any(len(v) != 4 * -(-dimensions * 4 // 3) for v in raw) or len(data) != len(raw) * dimensions * 4:
            alike = data and len({len(v) for v in raw}) == 1 and len(data) % (4 * len(raw)) == 0
            raise (_WrongSize if alike else ValueError)("not base64 of the model's size")
        return np.frombuffer(data, dtype="<f4").reshape(len(raw), dimensions).copy()
    with np.errstate(over="ignore"):
        vectors = np.array(raw, dtype=np.float32)  # raises on ragged rows and on a null for a row
    if vectors.shape != (len(raw), dimensions):
        what = f"{vectors.shape[1:]} numbers instead of {dimensions}"
        raise _WrongSize(what) if vectors.size else ValueError(what)  # none at all is no size of a model
    return vectors


def read_json(name: str, body: bytes | bytearray) -> Any:
    """The JSON of an answer with status 200.

    Raises:
        BadReply: it is not JSON.
    """
    try:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            return json.loads(body)  # takes NaN and Infinity, so that a bad answer still tells what it billed
    except (ValueError, RecursionError) as exc:
        broke_off = body.lstrip()[:1] == b"{"  # else it is a page, of a proxy or a wrong address, and stays one
        raise unreadable(name, "resend" if broke_off else "resend_once") from exc


def to_reply(name: str, data: Any, headers: Mapping[str, str]) -> Reply:
    """The reply in JSON of the form of OpenAI's, `{"data": [{"index", "embedding"}], "model", "usage"}`.

    Raises:
        BadReply: it has another form.
    """
    try:
        billed = (tokens_billed(dig(data, "usage", field)) for field in ("prompt_tokens", "total_tokens"))
        return Reply(
            vectors=[item["embedding"] for item in data["data"]],
            indices=[item.get("index") for item in data["data"]],
            tokens=max((tokens for tokens in billed if tokens is not None), default=None),
            model=data.get("model") or None,
            headers=headers,
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise unreadable(name, "resend_once") from exc


def dig(data: Any, *path: str) -> Any:
    """What is at a path into JSON, or None."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def unreadable(name: str, action: Action = "resend") -> BadReply:
    """The error for an answer that broke off, or (`resend_once`) that has not the form it should have."""
    what = f"{name} answered with something that is not a list of embeddings."
    return BadReply(what, "Nothing was stored.", action=action)


def tokens_billed(said: object) -> int | None:
    """Tokens that a provider says it billed, rounded up (Cohere's are floats), or None where it makes no sense."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= MOST_TOKENS:
        return None
    return math.ceil(said)


def key_of(endpoint: Endpoint) -> str:
    """The key of an endpoint, fit for a header.

    Raises:
        NotConfigured: there is none.
        KeyRejected: it holds a character that no header can; SDKs would fail in a way that shows the key.
    """
    if endpoint.key is None:
        where = f"Set {endpoint.key_variable} in the environment, or add it on the Connections page."
        raise NotConfigured(f"There is no key for {endpoint.name}.", where)
    key = endpoint.key.reveal()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyRejected(
            f"The key of {endpoint.name} holds a space, or a character that no key has; it was not sent.",
            f"Copy {endpoint.key_variable} again.",
        )
    return key


def refusal(endpoint: Endpoint, status: int, body: bytes | bytearray, headers: Mapping[str, str]) -> ProviderError:
    """One of our errors for an answer with a status other than 200, in any of the forms that are about:
    `{"error": {"message", "code"}}`, `{"error": "..."}`, `{"message": "..."}`, `{"detail": ...}`, or plain text.
    """
    if 300 <= status < 400:
        host = _without_key(endpoint, _host(headers.get("location", "")) or "another address")
        return NotConfigured(
            f"{endpoint.name} answered {status}, a redirect to {host[:100]}; texts are sent to no address but yours.",
            f"Correct {endpoint.url_setting}; nothing was billed.",
        )
    if status == 407:
        return NotConfigured(
            f"The proxy on the way to {endpoint.name} wants a name and a password.",
            "Write them into HTTP_PROXY, like http://name:password@host:3128; nothing was billed.",
        )
    message, code = _said(body)
    return error_for_status(endpoint.name, status, _without_key(endpoint, message), code, headers, time.time())


def _host(location: str) -> str | None:
    try:
        return urlsplit(location).hostname
    except ValueError:
        return None


def _without_key(endpoint: Endpoint, said: str) -> str:
    """What a server said; some repeat the key that they refuse."""
    return said if endpoint.key is None else re.sub(re.escape(endpoint.key.reveal()), "***", said, flags=re.IGNORECASE)


def _said(body: bytes | bytearray) -> tuple[str, str]:
    """(message, code) of an error's body."""
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:1000].decode("utf-8", "replace").strip()
        return ("" if text.startswith("<") else " ".join(text.split())), ""
    if isinstance(data, dict):
        data = data.get("error") or data.get("detail") or data.get("message") or ""
    if not isinstance(data, dict):
        return str(data), ""
    return str(data.get("message") or ""), str(data.get("code") or data.get("type") or "")


def error_for_status(
    provider: str, status: int, message: str, code: str, headers: Mapping[str, str], now: float
) -> ProviderError:
    """One of our errors for an HTTP status. `now` is epoch seconds, for a Retry-After that is a date."""
    said = f"{provider} answered {status}: {message[:300]}" if message else f"{provider} answered {status}."
    if status in (401, 403):
        return KeyRejected(said, f"Check the key of {provider} in the environment or on the Connections page.")
    if status == 402 or (status == 429 and (code == "insufficient_quota" or _NO_MONEY.search(message))):
        return QuotaExhausted(said, f"Add credit to the account at {provider}; nothing was billed.")
    if status == 429:
        return RateLimited(said, "It is sent again later.", retry_after=retry_after(headers, now), headers=headers)
    if status in (408, 499) or status >= 500:
        return Overloaded(said, "It may have been billed.")
    if status == 413 or code == "max_tokens_per_request" or "maximum context length" in message:
        return CallTooLarge(said, "The call is split.")
    if status in (404, 405):
        return NotConfigured(said, f"Check the base URL of {provider} and the model's name; nothing was billed.")
    if 400 <= status < 500:
        return CallRejected(said, "Look at the text that it names.")
    return OutcomeUnknown(said, "It may have been billed.")


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
