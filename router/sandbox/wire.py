"""The vendors' embedding calls as they travel: what is accepted, what is refused and how, what is answered."""

from __future__ import annotations

import json
import math
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal, cast
from uuid import uuid4

import numpy as np
import orjson

from router.sandbox.faults import NO_FAULT, Fault
from router.sandbox.models import PROVIDERS, Provider, Sold, find
from router.sandbox.tokens import encoding
from router.sandbox.vectors import Vectors

TYPES = {
    "insufficient_quota": "insufficient_quota", "max_tokens_per_request": "max_tokens_per_request",
    "rate_limit_exceeded": "requests",
}  # fmt: skip
"""OpenAI's `type` of an error by its `code`, where it is not `invalid_request_error` or `server_error`."""
COHERE_ROLES = {"search_document": "document", "search_query": "query"}
GOOGLE_STATUS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


@dataclass(eq=False)
class WireError(Exception):
    """A refusal in the vendor's own form.

    Attributes:
        payload: the JSON body. headers: beside it. wait: seconds that the headers ask the caller to wait, if they do.
    """

    status: int
    payload: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    wait: float | None = None


@dataclass(slots=True, kw_only=True)
class ParsedCall:
    """One embedding call, understood; `Service.measure` fills in what comes after `cut`.

    Attributes:
        cut: over-long texts are cut to what the model takes, not refused.
        digests: of the texts. embedded: the texts, cut where they are. tokens: billed.
    """

    model: Sold
    texts: list[str] = field(repr=False)
    role: str | None
    dimensions: int
    encoding: Literal["float", "base64"]
    cut: bool
    digests: list[bytes] = field(default_factory=list, repr=False)
    embedded: list[str] = field(default_factory=list, repr=False)
    tokens: int = 0


class Wire:
    """`POST /v1/embeddings` of OpenAI; the others' wires override what differs."""

    provider: Provider = "openai"
    fields = ("input", "dimensions")
    """What the texts and the size are called in a call."""
    usage: tuple[str, ...] = ("prompt_tokens", "total_tokens")
    refusals: Mapping[str, tuple[int, str, str]] = {
        "poison": (400, "The input was rejected because of its content.", "content_rejected"),
        "quota": (
            429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"
        ),
        "rate_limited": (429, "Rate limit reached.", "rate_limit_exceeded"),
    }  # fmt: skip
    """Status, message and code by the kind of the fault."""

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        """The body of an error."""
        code = details.get("code")
        kind = TYPES.get(code or "", "server_error" if status >= 500 else "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": details.get("param"), "code": code}}

    def error(self, status: int, message: str, **details: Any) -> WireError:
        """An error to raise; `details` are `code`, `param` or Google's `details`."""
        return WireError(status, self.payload(status, message, **details))

    def unauthorised(self) -> WireError:
        """401 for a missing, wrong or revoked key."""
        return self.error(401, "The API key is missing or not valid.", code="invalid_api_key")

    def refusal(self, fault: Fault) -> WireError:
        """The answer that a fault of the `REFUSALS` gives."""
        if fault.kind == "key_revoked":
            error = self.unauthorised()
        else:
            status, message, code = self.refusals.get(fault.kind, (fault.status, "The server had an error.", None))
            error = self.error(status, message, code=code)
        error.headers, error.wait = retry_after(fault.retry_after)
        return error

    def too_long(self, tokens: int, limit: int) -> WireError:
        """400 for a text that the model cannot take."""
        return self.error(
            400,
            f"This model's maximum context length is {limit} tokens, however you requested {tokens} tokens. "
            "Please reduce your prompt.",
        )

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        """The call in a JSON body. Raises WireError."""
        name = data.get("model")
        if not isinstance(name, str):
            raise self.error(400, "you must provide a model parameter", param="model")
        model = find("openai", name)
        if model is None:
            raise self.error(404, f"The model `{name}` does not exist.", code="model_not_found")
        return self.call(
            model, self._texts(data.get("input")), data.get("dimensions"), data.get("encoding_format") or "float"
        )

    def _texts(self, given: object) -> list[str]:
        texts = _strings(given)
        if texts is not None:
            return texts
        arrays = [given] if isinstance(given, list) and all(type(token) is int for token in given) else given
        if isinstance(arrays, list) and all(
            isinstance(array, list) and array and all(type(token) is int for token in array) for array in arrays
        ):
            try:
                return [encoding().decode(array) for array in arrays]
            except (KeyError, OverflowError):
                pass  # not a token of the vocabulary: the same refusal as below
        message = "Invalid 'input': a text, a list of texts, a list of tokens or a list of lists of tokens."
        raise self.error(400, message, param="input")

    def call(
        self, model: Sold, texts: list[str] | None, size: Any, form: Any = "float", *,
        role: str | None = None, cut: bool = False,
    ) -> ParsedCall:  # fmt: skip
        """A call whose texts, size (None: the model's own) and encoding the model takes. Raises WireError."""
        named, sized = self.fields
        if not texts:
            raise self.error(400, f"Invalid '{named}': it must hold at least one text.", param=named)
        if len(texts) > model.texts_per_call:
            message = f"Invalid '{named}': at most {model.texts_per_call} texts a call, and these are {len(texts)}."
            raise self.error(400, message, param=named, code="array_above_max_length")
        if "" in texts:
            raise self.error(400, f"Invalid '{named}': a text cannot be an empty string.", param=named)
        if size is not None and (type(size) is not int or not model.serves(size)):
            message = f"Invalid '{sized}': {model.name} has {model.dimensions} dimensions and does not serve {size}."
            raise self.error(400, message, param=sized)
        if form not in ("float", "base64"):
            raise self.error(400, "Vectors are answered as 'float' or 'base64', one of them.", param="encoding_format")
        return ParsedCall(
            model=model, texts=texts, role=role, dimensions=size or model.default,
            encoding=cast(Literal["float", "base64"], form), cut=cut,
        )  # fmt: skip

    def fit(self, call: ParsedCall, counts: list[int]) -> None:
        """Note the texts that are embedded and the tokens that are billed: as asked, or cut. Raises WireError."""
        limit, most = call.model.tokens_per_text, call.model.tokens_per_call
        call.embedded = call.texts
        if max(counts) > limit:
            if not call.cut:
                raise self.too_long(max(counts), limit)
            pairs = zip(call.texts, counts, strict=True)
            call.embedded = [_cut(text, limit) if count > limit else text for text, count in pairs]
        call.tokens = sum(min(count, limit) for count in counts)
        if most is not None and call.tokens > most:
            message = f"Requested {call.tokens} tokens, max {most} tokens per request"
            raise self.error(400, message, code="max_tokens_per_request")

    def answer(self, call: ParsedCall, rows: list[Any], fault: str) -> dict[str, Any]:
        """The JSON body of a good answer; `rows` are encoded vectors."""
        items = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        if fault == "shuffled_index":
            items.reverse()
        elif fault == "doubled_index":
            items[-1]["index"] = 0 if len(items) > 1 else 1
        elif fault == "missing_index":
            for item in items:
                del item["index"]
        return {
            "object": "list",
            "data": items,
            "model": "some-other-model" if fault == "wrong_model" else call.model.name,
            "usage": dict.fromkeys(self.usage, call.tokens),
        }

    def body(self, call: ParsedCall, vectors: Vectors, fault: Fault = NO_FAULT) -> bytes:
        """The bytes of a good answer, or of the wrong one that a fault of the `SHAPES` asks for."""
        rows = _rows(call, vectors, fault)
        if fault.kind == "one_short":
            rows.pop()
        elif fault.kind == "one_too_many":
            rows.append(rows[-1])
        answer = self.answer(call, rows, fault.kind)
        if fault.kind in {"nan", "infinity"} and call.encoding == "float":  # orjson would write null
            return json.dumps(answer, default=np.ndarray.tolist).encode()
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


class VoyageWire(Wire):
    """`POST /v1/embeddings` of Voyage."""

    provider: Provider = "voyage"
    fields = ("input", "output_dimension")
    usage = ("total_tokens",)

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        return {"detail": message}

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        model = find("voyage", data.get("model"))
        if model is None:
            raise self.error(400, f"Model {data.get('model')} is not supported.")
        role = data.get("input_type")
        if role not in (None, "document", "query"):
            raise self.error(400, "The argument 'input_type' must be null, 'document' or 'query'.")
        if data.get("output_dtype") not in (None, "float"):
            raise self.error(400, "The sandbox answers 'output_dtype' float only.")
        return self.call(
            model, _strings(data.get("input")), data.get("output_dimension"), data.get("encoding_format") or "float",
            role=role, cut=data.get("truncation") is not False,
        )  # fmt: skip


class CohereWire(Wire):
    """`POST /v2/embed` of Cohere, for texts."""

    provider: Provider = "cohere"
    fields = ("texts", "output_dimension")

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        return {"id": str(uuid4()), "message": message}

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        model = find("cohere", data.get("model"))
        if model is None:
            raise self.error(404, f"model '{data.get('model')}' not found")
        role = COHERE_ROLES.get(str(data.get("input_type")))
        if role is None:
            raise self.error(400, "invalid request: input_type must be search_document or search_query")
        forms = data.get("embedding_types") or ["float"]
        return self.call(
            model, _strings(data.get("texts")), data.get("output_dimension"),
            forms[0] if isinstance(forms, list) and len(forms) == 1 else forms,
            role=role, cut=data.get("truncate") != "NONE",
        )  # fmt: skip

    def answer(self, call: ParsedCall, rows: list[Any], fault: str) -> dict[str, Any]:
        return {
            "id": str(uuid4()),
            "response_type": "embeddings_by_type",
            "embeddings": {call.encoding: rows},
            "texts": call.texts,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": float(call.tokens)}},
        }


class GeminiWire(Wire):
    """`POST /v1beta/models/NAME:batchEmbedContents` of Gemini, for texts: no roles, no usage."""

    provider: Provider = "gemini"
    fields = ("requests", "outputDimensionality")
    refusals: Mapping[str, tuple[int, str, str]] = {
        **Wire.refusals,
        "quota": (429, "Your prepayment credits are depleted. Please manage your project and billing.", ""),
        "rate_limited": (429, "You exceeded your current quota, please check your plan and billing details.", ""),
    }

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        return {
            "error": {
                "code": status, "message": message, "status": GOOGLE_STATUS.get(status, "INTERNAL"),
                "details": details.get("details") or [],
            }
        }  # fmt: skip

    def unauthorised(self) -> WireError:
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        return self.error(400, "API key not valid. Please pass a valid API key.", details=[reason])

    def too_long(self, tokens: int, limit: int) -> WireError:
        return self.error(400, f"The input token count ({tokens}) exceeds the maximum number of tokens ({limit}).")

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        requests = data.get("requests")
        if not isinstance(requests, list) or not requests:
            raise self.error(400, "* BatchEmbedContentsRequest.requests: must not be empty")
        names, texts = set(), []
        for one in requests:
            parts = ((one.get("content") or {}).get("parts") or []) if isinstance(one, dict) else []
            given: list[Any] = [part.get("text") for part in parts if isinstance(part, dict)]
            if not given or not all(isinstance(text, str) and text for text in given):
                raise self.error(400, "* EmbedContentRequest.content: contents is not specified")
            names.add(str(one.get("model")))
            texts.append("".join(given))  # the parts of one content are one vector
        model = find("gemini", names.pop().removeprefix("models/")) if len(names) == 1 else None
        if model is None:
            raise self.error(404, "The model is not found for API version v1beta, or the requests name several.")
        return self.call(model, texts, requests[0].get("outputDimensionality"))

    def answer(self, call: ParsedCall, rows: list[Any], fault: str) -> dict[str, Any]:
        return {"embeddings": [{"values": row} for row in rows]}


def _strings(value: object) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    return None


def _cut(text: str, limit: int) -> str:
    return encoding().decode(encoding().encode_ordinary(text)[:limit])


def _rows(call: ParsedCall, vectors: Vectors, fault: Fault) -> list[Any]:
    """The vectors as the wire carries them, with one row spoilt where a fault asks for it."""
    kind, bad = fault.kind, len(vectors) // 2
    if fault.match is not None:
        bad = next((i for i, text in enumerate(call.texts) if fault.match in text), bad)
    if kind in {"nan", "infinity", "zeros"}:
        vectors = vectors.copy()
        if kind == "zeros":
            vectors[bad] = 0
        else:
            vectors[bad, 0] = np.nan if kind == "nan" else np.inf
    plain: list[Any] = list(vectors)
    if kind == "wrong_size":
        plain[bad] = plain[bad][:-1]
    rows = [b64encode(row).decode("ascii") for row in plain] if call.encoding == "base64" else plain
    if kind == "null":
        rows[bad] = None
    elif kind == "broken_base64":
        rows[bad] = "%%% not base64 %%%"
    return rows


def retry_after(spec: float | str | None) -> tuple[dict[str, str], float | None]:
    """Headers for `Fault.retry_after`, and the seconds that they ask for (None: no time that can be meant)."""
    if spec is None:
        return {}, None
    form, _, value = str(spec).rpartition(":")
    if form == "ms":
        return {"retry-after-ms": value}, float(value) / 1000
    if form == "date":
        moment = math.ceil(time.time() + float(value))  # dates have whole seconds
        return {"retry-after": formatdate(moment, usegmt=True)}, moment - time.time()
    try:
        seconds = float(spec)
    except ValueError:
        seconds = math.nan
    return {"retry-after": str(spec)}, seconds if math.isfinite(seconds) else None


WIRES: dict[Provider, Wire] = {
    "openai": Wire(), "cohere": CohereWire(), "voyage": VoyageWire(), "gemini": GeminiWire(),
}  # fmt: skip
assert set(WIRES) == set(PROVIDERS)
