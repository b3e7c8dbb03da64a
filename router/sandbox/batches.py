"""Files and batches as OpenAI keeps them, Voyage too: moved on by the clock or by hand, billed request by request.

A batch is not computed ahead: vectors are made while its output file is downloaded, so a large batch costs the
sandbox no memory. The bill does not wait for that: a request is billed when it is done.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

import orjson

from router.sandbox.chat import ENDPOINT as CHAT
from router.sandbox.chat import complete
from router.sandbox.faults import LINE_KINDS, NO_FAULT, SHAPES, TAMPERING, Fault
from router.sandbox.models import Provider
from router.sandbox.service import Service
from router.sandbox.wire import WIRES, ParsedCall, Wire, WireError

EMBEDDINGS = "/v1/embeddings"
WINDOWS: dict[Provider, tuple[str, int]] = {"openai": ("24h", 86_400), "voyage": ("12h", 43_200)}
MOST_REQUESTS = MOST_INPUTS = 50_000
MOST_BYTES = 200_000_000
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
STAMPS = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
# Shares of `batch_seconds` at which a batch enters a state; what comes between the first two is work.
STARTS, FINALIZES, ENDS = 0.1, 0.9, 1.0
CANCELS = 0.1


@dataclass(slots=True, kw_only=True)
class File:
    """A file: bytes that were uploaded, or the results of a batch, written when they are read."""

    provider: Provider
    name: str
    purpose: str
    data: bytes = field(default=b"", repr=False)
    batch: Batch | None = None
    id: str = field(default_factory=lambda: f"file-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def json(self) -> dict[str, Any]:
        """OpenAI's file object; `bytes` is 0 for results, which are not written yet."""
        return {
            "id": self.id, "object": "file", "bytes": len(self.data), "created_at": self.created,
            "expires_at": None, "filename": self.name, "purpose": self.purpose, "status": "processed",
        }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Line:
    """One request of a batch. `refusal` is what it will be refused with, known from the start."""

    custom_id: str
    data: dict[str, Any] = field(repr=False)
    call: ParsedCall | None = None
    refusal: WireError | None = None
    fault: Fault = NO_FAULT
    id: str = field(default_factory=lambda: uuid4().hex)

    def result(
        self, response: object, *, status: int = 200, error: dict[str, str] | None = None, custom_id: str | None = ""
    ) -> bytes:
        """A line of an output or error file; `custom_id` where it is another than the request's, None for none."""
        answer = {"status_code": status, "request_id": f"req_{self.id}", "body": response} if response else None
        named = {} if custom_id is None else {"custom_id": custom_id or self.custom_id}
        return orjson.dumps({"id": f"batch_req_{self.id}", **named, "response": answer, "error": error}) + b"\n"


@dataclass(slots=True, kw_only=True)
class Batch:
    """A batch. The first `done` of `order` are done; `by_hand` stops the clock for it."""

    provider: Provider
    endpoint: str
    window: str
    metadata: dict[str, str] | None
    input_file: str
    stamps: dict[str, int]
    id: str = field(default_factory=lambda: f"batch_{uuid4().hex}")
    since: float = field(default_factory=time.monotonic)
    status: str = "validating"
    errors: list[dict[str, Any]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list, repr=False)
    order: list[int] = field(default_factory=list, repr=False)
    done: int = 0
    by_hand: bool = False
    cancelling_since: float = 0.0
    tampering: list[str] = field(default_factory=list)
    output_file: str | None = None
    error_file: str | None = None

    def finished(self, *, good: bool) -> list[Line]:
        """The requests that are done, in the order in which they were."""
        done = [self.lines[i] for i in self.order[: self.done]]
        return [line for line in done if (line.refusal is None) == good]

    def unreached(self) -> list[Line]:
        """The requests that an expired batch did not get to."""
        return [self.lines[i] for i in self.order[self.done :]] if self.status == "expired" else []

    def texts(self) -> list[str]:
        """The texts of all requests."""
        return [text for line in self.lines if line.call for text in line.call.texts]

    def json(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        good, bad = self.finished(good=True), self.finished(good=False)
        tokens = sum(line.call.tokens for line in good if line.call)
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": self.errors} if self.status == "failed" else None,
            "input_file_id": self.input_file,
            "completion_window": self.window,
            "status": self.status,
            "output_file_id": self.output_file,
            "error_file_id": self.error_file,
            "created_at": self.stamps["created"],
            **{f"{name}_at": self.stamps.get(name) for name in STAMPS},
            "request_counts": {
                "total": len(self.lines), "completed": len(good), "failed": len(bad) + len(self.unreached())
            },
            "metadata": self.metadata,
            "usage": {
                "input_tokens": tokens, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens,
            },
        }  # fmt: skip


class Batches:
    """All files and batches of a sandbox. Used from the server's loop only."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.files: dict[str, File] = {}
        self.batches: dict[str, Batch] = {}

    def reset(self) -> None:
        """Forget everything but the configuration, and let go of the calls that faults hold back."""
        self.service.reset()
        self.files.clear()
        self.batches.clear()

    def keep(self, file: File) -> File:
        """Keep a file."""
        self.files[file.id] = file
        return file

    async def content(self, file: File) -> AsyncIterator[bytes]:
        """What is in a file; results line by line."""
        batch = file.batch
        if batch is None:
            yield file.data
        elif file.id == batch.error_file:
            for line in batch.finished(good=False):
                assert line.refusal is not None
                yield line.result(line.refusal.payload, status=line.refusal.status)
            error = {"code": "batch_expired", "message": "The request was not reached before the batch expired."}
            for line in batch.unreached():
                yield line.result(None, error=error)
        else:
            for n, line in enumerate(batch.finished(good=True)):
                body = orjson.Fragment(await self._answer(batch, line))
                kinds = batch.tampering if n == 0 else []
                if "batch_missing" in kinds:
                    continue
                yield line.result(body, custom_id=None if "batch_no_custom_id" in kinds else "")
                if "batch_doubled" in kinds:
                    yield line.result(body)
                if "batch_unknown" in kinds:
                    yield line.result(body, custom_id=f"unknown-{uuid4().hex}")

    async def _answer(self, batch: Batch, line: Line) -> bytes:
        if line.call is None:
            return orjson.dumps(await complete(self.service.tokens["openai"], line.data))
        return WIRES[batch.provider].body(line.call, await self.service.vectors(line.call), line.fault)

    # ---- creation ------------------------------------------------------------------------------

    async def create(self, provider: Provider, data: dict[str, Any]) -> Batch:
        """A new batch over an uploaded file. Raises WireError."""
        wire, (window, seconds) = WIRES[provider], WINDOWS[provider]
        endpoints = {EMBEDDINGS, CHAT} if provider == "openai" else {EMBEDDINGS}
        if data.get("endpoint") not in endpoints:
            raise wire.error(400, f"Invalid 'endpoint': one of {', '.join(sorted(endpoints))}.", param="endpoint")
        if data.get("completion_window") != window:
            raise wire.error(400, f"Invalid 'completion_window': {window}.", param="completion_window")
        file = self.files.get(str(data.get("input_file_id")))
        if file is None or file.provider != provider or file.purpose != "batch":
            raise wire.error(400, "Invalid 'input_file_id': no such file with purpose batch.", param="input_file_id")
        metadata = data.get("metadata")
        if metadata is not None and not (
            isinstance(metadata, dict)
            and len(metadata) <= 16
            and all(isinstance(value, str) and len(value) <= 512 for value in metadata.values())
        ):
            raise wire.error(400, "Invalid 'metadata': at most 16 strings of at most 512 characters.", param="metadata")
        now = int(time.time())
        batch = Batch(
            provider=provider, endpoint=data["endpoint"], window=window, metadata=metadata, input_file=file.id,
            stamps={"created": now, "expires": now + seconds},
        )  # fmt: skip
        self.batches[batch.id] = batch
        await self._read(batch, file.data, wire, data.get("request_params") or {})
        return batch

    async def _read(self, batch: Batch, raw: bytes, wire: Wire, shared: dict[str, Any]) -> None:
        """Fill in the requests of a batch, and every reason why it will fail at validation."""
        seen: set[str] = set()
        models: set[str] = set()
        inputs = 0
        for number, text in enumerate(raw.splitlines(), 1):
            if number % 64 == 0:
                await asyncio.sleep(0)
            if number > MOST_REQUESTS:
                batch.errors.append(_flaw("too_many_requests", f"A batch takes {MOST_REQUESTS} requests."))
                break
            try:
                line = _line(text, batch, seen, shared)
            except ValueError as error:
                code, message = error.args
                batch.errors.append(_flaw(code, message, number))
                continue
            batch.lines.append(line)
            models.add(str(line.data.get("model")))
            try:
                if batch.endpoint == CHAT:
                    await complete(self.service.tokens["openai"], line.data)
                    continue
                line.call = wire.parse(line.data)
                await self.service.measure(wire, line.call)
                inputs += len(line.call.texts)
            except WireError as error:
                line.refusal = error
                if error.status == 404:
                    batch.errors.append(_flaw("model_not_found", "The model does not exist.", number))
        if inputs > MOST_INPUTS:
            batch.errors.append(_flaw("too_many_inputs", f"A batch takes {MOST_INPUTS} embedding inputs."))
        if len(models) > 1:
            batch.errors.append(_flaw("mismatched_model", "All requests of a batch must ask for one model."))
        if not batch.lines and not batch.errors:
            batch.errors.append(_flaw("empty_file", "The input file is empty."))
        if self.service.faults.take(batch.provider, batch.texts(), frozenset({"batch_failed"})):
            batch.errors.append(_flaw("invalid_request", "The batch failed at validation."))
        batch.order = list(range(len(batch.lines)))
        random.Random(f"{self.service.config.seed}/{len(self.batches)}").shuffle(batch.order)

    # ---- movement ------------------------------------------------------------------------------

    def tick(self) -> None:
        """Bring every batch to where the clock says that it is."""
        now, seconds = time.monotonic(), self.service.config.batch_seconds
        for batch in self.batches.values():
            if batch.by_hand or batch.status in ENDED:
                continue
            if batch.status == "cancelling":
                if now - batch.cancelling_since >= CANCELS * seconds:
                    self._end(batch, "cancelled")
                continue
            share = (now - batch.since) / seconds if seconds else ENDS
            if share >= ENDS:
                self._move(batch, "completed")
            elif share >= FINALIZES:
                self._move(batch, "finalizing")
            elif share >= STARTS:
                self._move(batch, "in_progress", int(len(batch.lines) * (share - STARTS) / (FINALIZES - STARTS)))

    def advance(self, name: str, status: str, done: int | None = None) -> dict[str, Any]:
        """Move a batch to a status by hand; from then on the clock does not move it.

        Args:
            done: how many requests are done when it gets there; else all of them for `finalizing` and `completed`,
                and no more than there are for the others.

        Raises:
            KeyError: no such batch. ValueError: no such status, or the batch has ended.
        """
        batch = self.batches[name]
        if batch.status in ENDED:
            raise ValueError(f"{name} is {batch.status} already")
        batch.by_hand = True
        self._move(batch, status, done)
        return batch.json()

    def cancel(self, batch: Batch) -> None:
        """Call a batch to stop; what is done stays done and billed."""
        batch.cancelling_since = time.monotonic()
        _stamp(batch, "cancelling")

    def _move(self, batch: Batch, status: str, done: int | None = None) -> None:
        if status == "validating":
            return
        if status == "failed" and not batch.errors:
            batch.errors.append(_flaw("invalid_request", "The batch failed at validation."))
        if batch.errors:
            return _stamp(batch, "failed")
        if batch.status == "validating":
            _stamp(batch, "in_progress")
        if status in {"finalizing", "completed"} and done is None:
            done = len(batch.lines)
        self._work(batch, done or 0)
        if status in {"finalizing", "completed"} and batch.status != "finalizing":
            _stamp(batch, "finalizing")
        if status == "cancelling":
            self.cancel(batch)
        elif status in ENDED:
            self._end(batch, status)
        elif status not in {"in_progress", "finalizing"}:
            raise ValueError(f"'{status}' is not a status of a batch")

    def _work(self, batch: Batch, done: int) -> None:
        """Do requests until `done` are done, and bill each of them, once."""
        while batch.done < min(done, len(batch.lines)):
            line = batch.lines[batch.order[batch.done]]
            call = line.call
            batch.done += 1
            if call is None or line.refusal is not None:
                continue
            fault = self.service.faults.take(batch.provider, call.texts, LINE_KINDS) or NO_FAULT
            if fault is NO_FAULT or fault.kind in SHAPES:
                line.fault = fault
            else:
                line.refusal = WIRES[batch.provider].refusal(fault)
            if fault.kind == "overbill":
                call.tokens *= fault.factor
            if fault.bills:
                digests = [key.hex() for key in call.digests]
                self.service.bill.charge(call.model, call.tokens, digests, call.model.batch or Decimal(1))

    def _end(self, batch: Batch, status: str) -> None:
        while fault := self.service.faults.take(batch.provider, batch.texts(), TAMPERING):
            batch.tampering.append(fault.kind)
            if fault.times is None:
                break
        _stamp(batch, status)
        results: dict[str, Any] = {"provider": batch.provider, "purpose": "batch_output", "batch": batch}
        if batch.finished(good=True):
            batch.output_file = self.keep(File(name=f"{batch.id}_output.jsonl", **results)).id
        if batch.finished(good=False) or batch.unreached():
            batch.error_file = self.keep(File(name=f"{batch.id}_error.jsonl", **results)).id


def _stamp(batch: Batch, status: str) -> None:
    batch.status = status
    batch.stamps[status] = int(time.time())


def _flaw(code: str, message: str, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _line(text: bytes, batch: Batch, seen: set[str], shared: dict[str, Any]) -> Line:
    """One request. Raises ValueError(code, message)."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("invalid_json_line", "This line is not JSON.") from None
    if not isinstance(data, dict) or not isinstance(data.get("custom_id"), str):
        raise ValueError("missing_required_parameter", "A line needs a custom_id.")
    if not isinstance(data.get("body"), dict):
        raise ValueError("missing_required_parameter", "A line needs a body.")
    if batch.provider == "openai" and (data.get("method") != "POST" or data.get("url") != batch.endpoint):
        raise ValueError("invalid_url", f"A line of this batch needs method POST and url {batch.endpoint}.")
    if data["custom_id"] in seen:
        raise ValueError("duplicate_custom_id", "The custom_id was used on an earlier line.")
    seen.add(data["custom_id"])
    return Line(custom_id=data["custom_id"], data=shared | data["body"])
