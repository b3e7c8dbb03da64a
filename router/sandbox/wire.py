"""The three vendors' embedding calls as they travel: what is accepted, what is refused and how, what is answered."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import orjson

from router.sandbox.faults import Fault
from router.sandbox.models import PROVIDERS, Provider, Sold, find
from router.sandbox.tokens import encoding
from router.sandbox.vectors import Vectors

ERROR_TYPES = {401: "invalid_request_error", 429: "requests"}
ROLES = {"search_document": "document", "search_query": "query", "document": "document", "query": "query"}


class WireError(Exception):
    """A refusal in the vendor's own words.

    Attributes:
        payload: the JSON body. headers: beside it. wait: seconds that the headers ask the caller to wait, if they do.
    """

    def __init__(
        self, status: int, payload: dict[str, Any], headers: dict[str, str] | None = None, wait: float | None = None
    ) -> None:
        super().__init__(f"{status}: {payload}")
        self.status = status
        self.payload = payload
        self.headers = headers or {}
        self.wait = wait


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCall:
    """One embedding call, understood. `cut`: over-long texts are cut to what the model takes, not refused."""

    model: Sold
    texts: list[str] = field(repr=False)
    role: str | None
    dimensions: int
    encoding: Literal["float", "base64"]
    cut: bool


class Wire(ABC):
    """What the vendors' wires have in common."""

    provider: Provider

    @abstractmethod
    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        """The body of an error."""

    @abstractmethod
    def parse(self, data: dict[str, Any]) -> ParsedCall:
        """The call in a JSON body. Raises WireError."""

    @abstractmethod
    def answer(self, call: ParsedCall, rows: list[Any], tokens: int, fault: str) -> dict[str, Any]:
        """The JSON body of a good answer; `rows` are encoded vectors."""

    def error(self, status: int, message: str, **details: Any) -> WireError:
        """An error to raise."""
        return WireError(status, self.payload(status, message, **details))

    def unauthorised(self) -> WireError:
        """401 for a missing, wrong or revoked key."""
        return self.error(401, "The API key is missing or not valid.", code="invalid_api_key")

    def refusal(self, fault: Fault) -> WireError:
        """The answer that a fault of the `REFUSALS` gives."""
        if fault.kind == "key_revoked":
            return self.unauthorised()
        if fault.kind == "poison":
            return self.error(400, "The input was rejected because of its content.", code="content_rejected")
        if fault.kind == "quota":
            return self.error(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                type="insufficient_quota",
                code="insufficient_quota",
            )
        if fault.kind == "rate_limited":
            return self.error(429, "Rate limit reached.", code="rate_limit_exceeded")
        return self.error(fault.status, "The server had an error.", type="server_error")

    def fit(self, call: ParsedCall, counts: list[int]) -> tuple[list[str], list[int]]:
        """The texts and token counts that are embedded and billed: as asked, or cut. Raises WireError."""
        limit = call.model.tokens_per_text
        texts = call.texts
        if max(counts) > limit:
            if not call.cut:
                raise self.too_long(max(counts), limit)
            long = {i for i, count in enumerate(counts) if count > limit}
            texts = [_cut(text, limit) if i in long else text for i, text in enumerate(texts)]
            counts = [min(count, limit) for count in counts]
        most = call.model.tokens_per_call
        if most is not None and sum(counts) > most:
            raise self.error(
                400,
                f"Requested {sum(counts)} tokens, max {most} tokens per request",
                type="max_tokens_per_request",
                code="max_tokens_per_request",
            )
        return texts, counts

    def too_long(self, tokens: int, limit: int) -> WireError:
        """400 for a text that the model cannot take."""
        return self.error(
            400,
            f"This model's maximum context length is {limit} tokens, however you requested {tokens} tokens. "
            "Please reduce your prompt.",
        )

    def body(self, call: ParsedCall, vectors: Vectors, tokens: int, fault: Fault | None = None) -> bytes:
        """The bytes of a good answer, or of the wrong one that a fault of the `SHAPES` asks for."""
        kind = fault.kind if fault else ""
        rows = _rows(call, vectors, fault)
        if kind == "one_short":
            rows.pop()
        elif kind == "one_too_many":
            rows.append(rows[-1])
        answer = self.answer(call, rows, tokens, kind)
        if kind in {"nan", "infinity"} and call.encoding == "float":  # orjson would write null
            return json.dumps(answer, default=np.ndarray.tolist).encode()
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _cut(text: str, limit: int) -> str:
    return encoding().decode(encoding().encode_ordinary(text)[:limit])


def _rows(call: ParsedCall, vectors: Vectors, fault: Fault | None) -> list[Any]:
    """The vectors as the wire carries them, with one row spoilt where a fault asks for it."""
    kind = fault.kind if fault else ""
    n = len(vectors)
    bad = n // 2
    if fault is not None and fault.match is not None:
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


def _items(rows: list[Any], fault: str) -> list[dict[str, Any]]:
    """OpenAI's and Voyage's list of vectors, each with its index."""
    items: list[dict[str, Any]] = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    if fault == "shuffled_index":
        items.reverse()
    elif fault == "doubled_index":
        items[-1]["index"] = 0 if len(items) > 1 else 1
    elif fault == "missing_index":
        for item in items:
            del item["index"]
    return items


def _strings(value: object) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    return None


class OpenAIWire(Wire):
    """`POST /v1/embeddings` of OpenAI."""

    provider: Provider = "openai"

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        kind = details.get("type") or ERROR_TYPES.get(status, "invalid_request_error")
        return {
            "error": {
                "message": message, "type": kind, "param": details.get("param"), "code": details.get("code")
            }
        }  # fmt: skip

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        name = data.get("model")
        if not isinstance(name, str):
            raise self.error(400, "you must provide a model parameter", param="model")
        model = find("openai", name)
        if model is None:
            raise self.error(404, f"The model `{name}` does not exist.", code="model_not_found")
        texts = self._texts(data.get("input"))
        if not texts:
            raise self.error(400, "Invalid 'input': it must hold at least one text.", param="input")
        if len(texts) > model.texts_per_call:
            message = f"Invalid 'input': at most {model.texts_per_call} texts a call, and these are {len(texts)}."
            raise self.error(400, message, param="input", code="array_above_max_length")
        if "" in texts:
            raise self.error(400, "Invalid 'input': input cannot be an empty string.", param="input")
        dimensions = data.get("dimensions")
        if dimensions is not None and model.sizes != "any":
            raise self.error(400, "This model does not support specifying dimensions.", param="dimensions")
        if dimensions is not None and (type(dimensions) is not int or not model.serves(dimensions)):
            raise self.error(400, f"Invalid value for 'dimensions': 1 to {model.dimensions}.", param="dimensions")
        form: Any = data.get("encoding_format") or "float"
        if form not in {"float", "base64"}:
            raise self.error(400, "Invalid 'encoding_format': float or base64.", param="encoding_format")
        return ParsedCall(
            model=model, texts=texts, role=None, dimensions=dimensions or model.default, encoding=form, cut=False
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

    def answer(self, call: ParsedCall, rows: list[Any], tokens: int, fault: str) -> dict[str, Any]:
        return {
            "object": "list",
            "data": _items(rows, fault),
            "model": "some-other-model" if fault == "wrong_model" else call.model.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


class VoyageWire(Wire):
    """`POST /v1/embeddings` of Voyage."""

    provider: Provider = "voyage"

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        return {"detail": message}

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        name = data.get("model")
        model = find("voyage", name)
        if model is None:
            raise self.error(400, f"Model {name} is not supported.")
        texts = _strings(data.get("input"))
        if not texts:
            raise self.error(400, "The argument 'input' must be a text or a list of texts, and not empty.")
        if len(texts) > model.texts_per_call:
            raise self.error(400, f"The batch size limit is {model.texts_per_call}; yours is {len(texts)}.")
        if "" in texts:
            raise self.error(400, "Input cannot contain empty strings.")
        role = data.get("input_type")
        if role not in {None, "document", "query"}:
            raise self.error(400, "The argument 'input_type' must be null, 'document' or 'query'.")
        dimensions = data.get("output_dimension")
        if dimensions is not None and (type(dimensions) is not int or not model.serves(dimensions)):
            raise self.error(400, f"Output dimension {dimensions} is not supported by {model.name}.")
        form: Any = data.get("encoding_format") or "float"
        if form not in {"float", "base64"} or data.get("output_dtype") not in {None, "float"}:
            raise self.error(400, "The sandbox answers 'output_dtype' float, as numbers or base64.")
        return ParsedCall(
            model=model, texts=texts, role=role, dimensions=dimensions or model.default, encoding=form,
            cut=data.get("truncation") is not False,
        )  # fmt: skip

    def answer(self, call: ParsedCall, rows: list[Any], tokens: int, fault: str) -> dict[str, Any]:
        return {
            "object": "list",
            "data": _items(rows, fault),
            "model": "some-other-model" if fault == "wrong_model" else call.model.name,
            "usage": {"total_tokens": tokens},
        }


class CohereWire(Wire):
    """`POST /v2/embed` of Cohere, for texts."""

    provider: Provider = "cohere"

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        return {"id": str(uuid4()), "message": message}

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        name = data.get("model")
        model = find("cohere", name)
        if model is None:
            raise self.error(404, f"model '{name}' not found")
        role = ROLES.get(str(data.get("input_type")))
        if role is None or not str(data["input_type"]).startswith("search_"):
            raise self.error(400, "invalid request: input_type must be search_document or search_query")
        texts = _strings(data.get("texts"))
        if not texts:
            raise self.error(400, "invalid request: texts must hold at least one text")
        if len(texts) > model.texts_per_call:
            raise self.error(400, f"invalid request: at most {model.texts_per_call} texts a call")
        if "" in texts:
            raise self.error(400, "invalid request: a text is empty")
        types = data.get("embedding_types") or ["float"]
        if types not in (["float"], ["base64"]):
            raise self.error(400, "invalid request: the sandbox answers embedding_types float or base64, one of them")
        dimensions = data.get("output_dimension")
        if dimensions is not None and (type(dimensions) is not int or not model.serves(dimensions)):
            raise self.error(400, f"invalid request: output_dimension {dimensions} is not supported by {model.name}")
        return ParsedCall(
            model=model, texts=texts, role=role, dimensions=dimensions or model.default, encoding=types[0],
            cut=data.get("truncate") != "NONE",
        )  # fmt: skip

    def answer(self, call: ParsedCall, rows: list[Any], tokens: int, fault: str) -> dict[str, Any]:
        return {
            "id": str(uuid4()),
            "response_type": "embeddings_by_type",
            "embeddings": {call.encoding: rows},
            "texts": call.texts,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": float(tokens)}},
        }


class GeminiWire(Wire):
    """`POST /v1beta/models/NAME:batchEmbedContents` of Gemini, for texts: no roles, no usage."""

    provider: Provider = "gemini"

    def payload(self, status: int, message: str, **details: Any) -> dict[str, Any]:
        known = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        return {
            "error": {
                "code": status, "message": message, "status": known.get(status, "INTERNAL"),
                "details": details.get("details") or [],
            }
        }  # fmt: skip

    def unauthorised(self) -> WireError:
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        return self.error(400, "API key not valid. Please pass a valid API key.", details=[reason])

    def refusal(self, fault: Fault) -> WireError:
        if fault.kind == "quota":
            return self.error(429, "Your prepayment credits are depleted. Please manage your project and billing.")
        if fault.kind == "rate_limited":
            return self.error(429, "You exceeded your current quota, please check your plan and billing details.")
        return super().refusal(fault)

    def too_long(self, tokens: int, limit: int) -> WireError:
        return self.error(400, f"The input token count ({tokens}) exceeds the maximum number of tokens ({limit}).")

    def parse(self, data: dict[str, Any]) -> ParsedCall:
        requests = data.get("requests")
        if not isinstance(requests, list) or not requests:
            raise self.error(400, "* BatchEmbedContentsRequest.requests: must not be empty")
        if len(requests) > 100:
            raise self.error(400, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch")
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
        size = requests[0].get("outputDimensionality") or model.default
        if type(size) is not int or not model.serves(size):
            raise self.error(400, f"* EmbedContentRequest.output_dimensionality: {size} is not served")
        return ParsedCall(model=model, texts=texts, role=None, dimensions=size, encoding="float", cut=False)

    def answer(self, call: ParsedCall, rows: list[Any], tokens: int, fault: str) -> dict[str, Any]:
        return {"embeddings": [{"values": row} for row in rows]}


WIRES: dict[Provider, Wire] = {
    "openai": OpenAIWire(), "cohere": CohereWire(), "voyage": VoyageWire(), "gemini": GeminiWire(),
}  # fmt: skip
assert set(WIRES) == set(PROVIDERS)
