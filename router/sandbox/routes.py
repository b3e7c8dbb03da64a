"""The vendors' other paths over HTTP: files, batches, models, chat. Faults work here too."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router.sandbox import reply
from router.sandbox.batches import MOST_BYTES, WINDOWS, Batch, Batches, File
from router.sandbox.bill import Received
from router.sandbox.chat import complete
from router.sandbox.faults import BATCH_CALL_KINDS, REFUSALS
from router.sandbox.models import MODELS, Provider
from router.sandbox.service import Service, parse_object
from router.sandbox.wire import WIRES, WireError

Handler = Callable[[Request], Awaitable[Response]]
MOST_LISTED = 100
LISTED = 20


class BatchCall:
    """An ASGI endpoint around a handler: key, record, faults."""

    def __init__(self, service: Service, provider: Provider, handler: Handler) -> None:
        self._service = service
        self._provider = provider
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, wire = self._service, WIRES[self._provider]
        path = scope["path"].removeprefix(f"/{self._provider}/v1")
        operation = f"{scope['method']} {path}"
        log = service.log
        number = log.note(Received(at=time.monotonic(), provider=self._provider, operation=operation))
        try:
            service.check_key(wire, scope)
            fault = service.faults.take(self._provider, (), BATCH_CALL_KINDS, operation)
            if fault is not None:
                log.amend(number, fault=fault.kind)
                if fault.kind == "refuse":
                    return await reply.reset(receive)
                if fault.kind in REFUSALS:
                    raise reply.refused(wire, fault)
            response = await self._handler(Request(scope, receive))
            log.amend(number, status=response.status_code)
            if fault is None:
                return await response(scope, receive, send)
            await reply.misdeliver(fault, await _bytes(response), receive, send, service.released)
        except WireError as error:
            await service.refuse(number, error, send, {})


async def _bytes(response: Response) -> bytes:
    if isinstance(response, StreamingResponse):
        return b"".join([bytes(part) async for part in response.body_iterator])  # type: ignore[arg-type]  # ours: bytes
    return bytes(response.body)


def _json(data: dict[str, Any]) -> Response:
    return Response(orjson.dumps(data), media_type="application/json")


class BatchRoutes:
    """The handlers of one provider: its files and batches, and what stands beside them."""

    def __init__(self, service: Service, batches: Batches, provider: Provider) -> None:
        self._service = service
        self._batches = batches
        self._provider = provider
        self._wire = WIRES[provider]

    def routes(self) -> list[Route]:
        """The provider's paths but those for embeddings."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/models", self.models),
            ("POST", "/files", self.upload),
            ("GET", "/files/{id}", self.file),
            ("DELETE", "/files/{id}", self.delete),
            ("GET", "/files/{id}/content", self.content),
            ("POST", "/batches", self.create),
            ("GET", "/batches", self.listing),
            ("GET", "/batches/{id}", self.batch),
            ("POST", "/batches/{id}/cancel", self.cancel),
        ]
        if self._provider == "openai":
            table.append(("POST", "/chat/completions", self.chat))
        return [
            Route(f"/{self._provider}/v1{path}", BatchCall(self._service, self._provider, handler), methods=[method])
            for method, path, handler in table
        ]

    def _file(self, request: Request) -> File:
        file = self._batches.files.get(request.path_params["id"])
        if file is None or file.provider != self._provider:
            raise self._wire.error(404, f"No such File object: {request.path_params['id']}", param="id")
        return file

    def _batch(self, request: Request) -> Batch:
        self._batches.tick()
        batch = self._batches.batches.get(request.path_params["id"])
        if batch is None or batch.provider != self._provider:
            raise self._wire.error(404, f"No batch found with id '{request.path_params['id']}'.", param="id")
        return batch

    async def models(self, request: Request) -> Response:
        names = [model.name for model in MODELS.values() if model.provider == self._provider]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": self._provider} for name in names]
        return _json({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        data = parse_object(self._wire, await request.body())
        return _json(await complete(self._service.tokens["openai"], data))

    async def upload(self, request: Request) -> Response:
        async with request.form() as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile) or purpose != "batch":
                raise self._wire.error(400, "A file and the purpose 'batch' are needed.", param="file")
            data = await file.read()
            name = file.filename or "file"
        if len(data) > MOST_BYTES:
            raise self._wire.error(400, f"A file of a batch takes {MOST_BYTES} bytes.", param="file")
        return _json(self._batches.keep(self._provider, name, "batch", data).json())

    async def file(self, request: Request) -> Response:
        return _json(self._file(request).json())

    async def delete(self, request: Request) -> Response:
        file = self._batches.files.pop(self._file(request).id)
        return _json({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        return StreamingResponse(self._batches.content(self._file(request)), media_type="application/jsonl")

    async def create(self, request: Request) -> Response:
        data = parse_object(self._wire, await request.body())
        return _json((await self._batches.create(self._provider, data)).json())

    async def batch(self, request: Request) -> Response:
        return _json(self._batch(request).json())

    async def listing(self, request: Request) -> Response:
        self._batches.tick()
        query = request.query_params
        try:
            limit = min(MOST_LISTED, max(1, int(query.get("limit", LISTED))))
        except ValueError:
            raise self._wire.error(400, "Invalid 'limit': a number.", param="limit") from None
        found = [batch for batch in reversed(self._batches.batches.values()) if batch.provider == self._provider]
        ids = [batch.id for batch in found]
        after = query.get("after")
        if after is not None:
            if after not in ids:
                raise self._wire.error(400, f"Invalid 'after': no batch {after}.", param="after")
            found = found[ids.index(after) + 1 :]
        page = [batch.json() for batch in found[:limit]]
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        more = len(found) > limit
        return _json({"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more})

    async def cancel(self, request: Request) -> Response:
        batch = self._batch(request)
        if batch.status not in {"validating", "in_progress", "finalizing"}:
            message = f"Cannot cancel a batch with status '{batch.status}'."
            raise self._wire.error(409, message, param="id")
        self._batches.cancel(batch)
        return _json(batch.json())


def batch_routes(service: Service, batches: Batches) -> list[Route]:
    """The paths of every provider that has batches."""
    return [route for provider in WINDOWS for route in BatchRoutes(service, batches, provider).routes()]
