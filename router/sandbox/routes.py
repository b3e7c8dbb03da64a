"""The vendors' other paths over HTTP: files, batches, models, chat. Faults work here too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router.sandbox.batches import MOST_BYTES, WINDOWS, Batch, Batches, File
from router.sandbox.bill import Received
from router.sandbox.chat import complete
from router.sandbox.faults import BATCH_CALL_KINDS, REFUSALS
from router.sandbox.models import MODELS, Provider
from router.sandbox.reply import answer, misdeliver, reset
from router.sandbox.service import Endpoint, Service, parse_object
from router.sandbox.wire import WIRES

Handler = Callable[[Request], Awaitable[Response]]
MOST_LISTED = 100
LISTED = 20


class BatchCall(Endpoint):
    """An endpoint around a handler."""

    def __init__(self, service: Service, provider: Provider, handler: Handler) -> None:
        super().__init__(service, provider)
        self._handler = handler

    async def answer(self, entry: Received, scope: Scope, receive: Receive, send: Send) -> None:
        service, request = self._service, Request(scope, receive)
        service.check_key(self._wire, request)
        fault = service.faults.take(self._wire.provider, (), BATCH_CALL_KINDS, entry.operation)
        if fault is not None:
            entry.fault = fault.kind
            if fault.kind == "refuse":
                return await reset(receive)
            if fault.kind in REFUSALS:
                raise self._wire.refusal(fault)
        response = await self._handler(request)
        entry.status = response.status_code
        if fault is None:
            return await response(scope, receive, send)
        await misdeliver(fault, await _bytes(response), scope, receive, send, service.released)


async def _bytes(response: Response) -> bytes:
    if isinstance(response, StreamingResponse):
        return b"".join([bytes(part) async for part in response.body_iterator])  # type: ignore[arg-type]  # ours: bytes
    return bytes(response.body)


class BatchRoutes:
    """The handlers of one provider: its files and batches, and what stands beside them."""

    def __init__(self, batches: Batches, provider: Provider) -> None:
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
        service, provider = self._batches.service, self._provider
        return [
            Route(f"/{provider}/v1{path}", BatchCall(service, provider, handler), methods=[method])
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
        return answer({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        data = parse_object(self._wire, await request.body())
        return answer(await complete(self._batches.service.tokens["openai"], data))

    async def upload(self, request: Request) -> Response:
        async with request.form() as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile) or purpose != "batch":
                raise self._wire.error(400, "A file and the purpose 'batch' are needed.", param="file")
            data = await file.read()
            name = file.filename or "file"
        if len(data) > MOST_BYTES:
            raise self._wire.error(400, f"A file of a batch takes {MOST_BYTES} bytes.", param="file")
        kept = self._batches.keep(File(provider=self._provider, name=name, purpose=purpose, data=data))
        return answer(kept.json())

    async def file(self, request: Request) -> Response:
        return answer(self._file(request).json())

    async def delete(self, request: Request) -> Response:
        file = self._batches.files.pop(self._file(request).id)
        return answer({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        return StreamingResponse(self._batches.content(self._file(request)), media_type="application/jsonl")

    async def create(self, request: Request) -> Response:
        data = parse_object(self._wire, await request.body())
        return answer((await self._batches.create(self._provider, data)).json())

    async def batch(self, request: Request) -> Response:
        return answer(self._batch(request).json())

    async def listing(self, request: Request) -> Response:
        self._batches.tick()
        query = request.query_params
        try:
            limit = min(MOST_LISTED, max(1, int(query.get("limit", LISTED))))
        except ValueError:
            raise self._wire.error(400, "Invalid 'limit': a number.", param="limit") from None
        found = [batch for batch in reversed(self._batches.batches.values()) if batch.provider == self._provider]
        if after := query.get("after"):
            ids = [batch.id for batch in found]
            if after not in ids:
                raise self._wire.error(400, f"Invalid 'after': no batch {after}.", param="after")
            found = found[ids.index(after) + 1 :]
        page = [batch.json() for batch in found[:limit]]
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        more = len(found) > limit
        return answer({"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more})

    async def cancel(self, request: Request) -> Response:
        batch = self._batch(request)
        if batch.status not in {"validating", "in_progress", "finalizing"}:
            message = f"Cannot cancel a batch with status '{batch.status}'."
            raise self._wire.error(409, message, param="id")
        self._batches.cancel(batch)
        return answer(batch.json())


def batch_routes(batches: Batches) -> list[Route]:
    """The paths of every provider that has batches."""
    return [route for provider in WINDOWS for route in BatchRoutes(batches, provider).routes()]
