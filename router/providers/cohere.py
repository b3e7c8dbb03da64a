"""Cohere's `/v2/embed`.

The SDK makes and signs the call; its retries are off, and its answer is taken before it parses it: turning 96 vectors
of 1,536 numbers into its own objects took 256 ms of the loop's time, reading the bytes 9 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from router.config import Endpoint
from router.domain.values import Role
from router.providers.base import (
    EmbedCall,
    Reply,
    connection_error,
    key_of,
    read_json,
    refusal,
    tokens_billed,
    unreadable,
)

if TYPE_CHECKING:
    import httpx
    from cohere import AsyncClientV2

INPUT_TYPES: dict[Role, str] = {"document": "search_document", "query": "search_query"}


class _Arrived(Exception):
    """Carries an answer past the SDK's parser."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__("arrived")
        self.response = response


class CohereProvider:
    """One endpoint that speaks Cohere's wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._client: AsyncClientV2 | None = None
        self._http: httpx.AsyncClient | None = None

    async def embed(self, call: EmbedCall) -> Reply:
        """Send one call, once. See `Provider.embed`."""
        import httpx

        model = call.model
        client = self._connect()
        size: dict[str, Any] = {"output_dimension": model.dimensions} if model.sizes else {}
        try:
            await client.embed(
                model=model.name,
                texts=list(call.texts),
                input_type=INPUT_TYPES[call.role if model.roles else "document"],
                embedding_types=["float"],
                truncate="NONE",
                **size,
            )
        except _Arrived as arrived:
            response = arrived.response
        except httpx.HTTPError as exc:
            raise connection_error(self.name, exc) from exc
        else:  # only an SDK that ignores its client's hooks would come here
            raise unreadable(self.name)
        if response.status_code != 200:
            raise refusal(self._endpoint, response.status_code, response.content, response.headers)
        return _read(self.name, response)

    async def aclose(self) -> None:
        """Close connections."""
        if self._http is not None:
            await self._http.aclose()
            self._client = self._http = None

    def _connect(self) -> AsyncClientV2:
        key_of(self._endpoint)
        if self._client is None:
            import httpx
            from cohere import AsyncClientV2

            async def stop(response: httpx.Response) -> None:
                await response.aread()
                raise _Arrived(response)

            self._http = httpx.AsyncClient(
                timeout=self._endpoint.timeout_s,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=self._endpoint.max_in_flight),
                event_hooks={"response": [stop]},
            )
            self._client = AsyncClientV2(
                api_key=lambda: key_of(self._endpoint),  # it may be typed in anew while the process runs
                base_url=self._endpoint.base_url,
                timeout=self._endpoint.timeout_s,
                max_retries=0,
                httpx_client=self._http,
                log_warning_experimental_features=False,
            )
        return self._client


def _read(name: str, response: httpx.Response) -> Reply:
    """Cohere's vectors come in the order of the texts, without an `index` and without the model's name."""
    data = read_json(name, response.content)
    try:
        billed = ((data.get("meta") or {}).get("billed_units") or {}).get("input_tokens")
        vectors = data["embeddings"]["float"]
        if not isinstance(vectors, list):
            raise TypeError("embeddings.float is not a list")
    except (KeyError, TypeError, AttributeError) as exc:
        raise unreadable(name) from exc
    return Reply(
        vectors=vectors, indices=None, tokens=tokens_billed(billed), model=None, headers=dict(response.headers)
    )
