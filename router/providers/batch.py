"""The batch tier of OpenAI, and of Voyage, whose batches the OpenAI SDK drives too: files up, a batch, files down.

A method is one SDK call, sent once, its errors translated as everywhere. The answers are read raw and up to a bound:
what matters of a batch is a dozen fields, and a server that leaves some out should not be a crash inside the SDK.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from router.config import Endpoint
from router.domain.errors import BadReply, StoreFull
from router.domain.values import Model, Role
from router.providers.base import NUMBER_BYTES, REPLY_BYTES, EmbedCall, dig, read_json, tokens_billed
from router.providers.sdk import OpenAISdk

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from router.providers.sdk import Send

EMBEDDINGS: Literal["/v1/embeddings"] = "/v1/embeddings"
KEY = "router_key"
"""The name in a batch's metadata under which our own key of it stands."""
WINDOWS = {"openai": "24h", "voyage": "12h"}
"""The wires that have a batch tier, and how long a batch may take there."""
MOST_LINES = 50_000
MOST_BYTES = 200_000_000
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
TRANSFER_S = 3_600.0
"""The longest that a file may take, up or down, seconds on the clock."""
PAGE = 100
LINE_BYTES = 1 << 12
"""What a line of a batch's results may have besides its numbers."""
MOST_OF_JSON = 16 << 20
"""Bytes of an answer about batches and files; a page of a hundred batches with a thousand flaws each is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Why a batch failed at validation; `line` counts from one, None where the batch as a whole is to blame."""

    code: str
    message: str
    line: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBatch:
    """A batch as its provider tells it.

    Attributes:
        key: ours, from its metadata, or "".
        status: validating, failed, in_progress, finalizing, completed, expired, cancelling or cancelled.
        files: of the results: the output, the errors, or both; empty until it has ended.
        completed, tokens: requests done well, and their tokens in all; None where the provider does not say.
    """

    id: str
    key: str
    status: str
    input_file: str
    files: tuple[str, ...]
    completed: int | None
    tokens: int | None
    flaws: tuple[Flaw, ...] = field(repr=False)
    created: float

    @property
    def ended(self) -> bool:
        """True where nothing more will be done or billed."""
        return self.status in ENDED


def request_line(endpoint: Endpoint, model: Model, custom_id: str, text: str) -> bytes:
    """One request of a batch's input file, with its line end: one text, so that each fails or succeeds alone."""
    call = EmbedCall(model=model, texts=(text,), role="document")
    if endpoint.wire == "voyage":  # the rest is said once for all, in `shared_params`
        return orjson.dumps({"custom_id": custom_id, "body": {"input": call.sent}}) + b"\n"
    body = {**call.extra, "model": model.name, "input": call.sent, "encoding_format": endpoint.encoding}
    line = {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS, "body": body}
    return orjson.dumps(line) + b"\n"


def shared_params(endpoint: Endpoint, model: Model, role: Role) -> dict[str, Any] | None:
    """What Voyage is told once for all lines of a batch; None on OpenAI's wire, where every line says it."""
    return EmbedCall(model=model, texts=(), role=role).voyage if endpoint.wire == "voyage" else None


def results_limit(model: Model, texts: int) -> int:
    """The most bytes that a file of a batch's results may have: a line a text, numbers as JSON."""
    return REPLY_BYTES + texts * (LINE_BYTES + model.dimensions * NUMBER_BYTES)


class BatchClient(OpenAISdk):
    """Files and batches of one endpoint. Every method raises ProviderError; those that read raise BadReply too."""

    async def upload(self, path: Path) -> str:
        """Upload an input file, streamed from the disk; returns its id. Costs nothing."""
        with path.open("rb") as file:
            data = await self._ask(
                lambda client: client.files.with_streaming_response.create(file=(path.name, file), purpose="batch"),
                TRANSFER_S,
            )
        return self._text(data, "id")

    async def create(self, file: str, key: str, params: Mapping[str, Any] | None, url: Any = EMBEDDINGS) -> RemoteBatch:
        """Submit an uploaded file. What it bills is billed as its requests are done."""
        window: Any = WINDOWS[self.endpoint.wire]
        more = None if params is None else {"request_params": dict(params)}
        return self._batch(
            await self._ask(
                lambda client: client.batches.with_streaming_response.create(
                    input_file_id=file, endpoint=url, completion_window=window, metadata={KEY: key}, extra_body=more
                )
            )
        )

    async def retrieve(self, batch: str) -> RemoteBatch:
        """How a batch stands."""
        return self._batch(await self._ask(lambda client: client.batches.with_streaming_response.retrieve(batch)))

    async def find(self, key: str, since: float) -> RemoteBatch | None:
        """The batch that was created with this key, not before `since` (epoch seconds), or None.

        The list is newest first, so it is read no further than to `since`; a call a page.
        """
        more: dict[str, Any] = {}
        while True:
            data = await self._ask(partial(_list, more))
            try:
                page = [self._batch(item) for item in data["data"]]
                rest = bool(data.get("has_more"))
            except (KeyError, TypeError, AttributeError) as exc:
                raise self._strange() from exc
            for batch in page:
                if batch.key == key:
                    return batch
            if not page or not rest or page[-1].created < since:
                return None
            more = {"after": page[-1].id}

    async def cancel(self, batch: str) -> RemoteBatch:
        """Ask a batch to stop. What is done stays done and billed. CallRejected where it has ended already."""
        return self._batch(await self._ask(lambda client: client.batches.with_streaming_response.cancel(batch)))

    async def download(self, file: str, path: Path, most: int) -> None:
        """Stream a file to the disk.

        Raises:
            BadReply: it is longer than `most` bytes.
            StoreFull: it cannot be written.
        """

        def keep(part: bytes) -> None:
            try:
                out.write(part)
            except OSError as exc:
                raise StoreFull(
                    f"A batch's results cannot be written: {exc.strerror}.", "Make room on the disk."
                ) from exc

        with path.open("wb") as out:
            await self.call(lambda client: client.files.with_streaming_response.content(file), most, keep, TRANSFER_S)

    async def delete(self, file: str) -> None:
        """Delete a file of ours at the provider."""
        await self._ask(lambda client: client.files.with_streaming_response.delete(file))

    async def _ask(self, send: Send, limit_s: float | None = None) -> Any:
        """The JSON of an answer."""
        body = bytearray()
        await self.call(send, MOST_OF_JSON, body.extend, limit_s)
        return read_json(self.endpoint.name, body)

    def _strange(self) -> BadReply:
        return BadReply(
            f"{self.endpoint.name} answered with something that is not what was asked for.", "It is asked again."
        )

    def _text(self, data: Any, name: str) -> str:
        value = dig(data, name)
        if not isinstance(value, str) or not value:
            raise self._strange()
        return value

    def _batch(self, data: Any) -> RemoteBatch:
        number, status, created = self._text(data, "id"), self._text(data, "status"), dig(data, "created_at")
        completed = dig(data, "request_counts", "completed")
        return RemoteBatch(
            id=number,
            key=str(dig(data, "metadata", KEY) or ""),
            status=status,
            input_file=str(data.get("input_file_id") or ""),
            files=tuple(str(data[name]) for name in ("output_file_id", "error_file_id") if data.get(name)),
            completed=completed if isinstance(completed, int) else None,
            tokens=tokens_billed(dig(data, "usage", "total_tokens")),
            flaws=tuple(_flaw(item) for item in dig(data, "errors", "data") or () if isinstance(item, dict)),
            created=float(created) if isinstance(created, int | float) else math.inf,
        )


def _list(more: Mapping[str, Any], client: AsyncOpenAI) -> Any:
    return client.batches.with_streaming_response.list(limit=PAGE, **more)


def _flaw(item: Mapping[str, Any]) -> Flaw:
    line = item.get("line")
    return Flaw(
        code=str(item.get("code") or ""),
        message=" ".join(str(item.get("message") or "no reason given").split())[:300],
        line=line if isinstance(line, int) else None,
    )
