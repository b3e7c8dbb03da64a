"""What Cohere and Voyage are sent is what their own SDKs send; the sandbox is held against those SDKs too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from router.config import Endpoint, Secret
from router.domain.errors import ProviderError
from router.domain.values import Role
from router.engine import PROVIDERS
from router.providers.base import EmbedCall
from tests.providers.test_border import answering
from tests.providers.test_check import model

TEXTS = ("Lift of a thin wing.", "naïve café 東京 🙂", " spaces \n and lines ")
Send = Callable[[str, EmbedCall], Awaitable[Any]]


async def by_cohere(url: str, call: EmbedCall) -> None:
    """Cohere's SDK."""
    from cohere import AsyncClientV2

    client = AsyncClientV2(api_key="a-key", base_url=url, max_retries=0, log_warning_experimental_features=False)
    size: dict[str, Any] = {"output_dimension": call.model.dimensions} if call.model.sizes else {}
    await client.embed(
        model=call.model.name, texts=list(call.texts), input_type=f"search_{call.role}", embedding_types=["float"],
        truncate="NONE", **size,
    )  # fmt: skip


async def by_voyage(url: str, call: EmbedCall) -> None:
    """Voyage's SDK."""
    from voyageai.client_async import AsyncClient

    client = AsyncClient(api_key="a-key", base_url=url)  # type: ignore[no-untyped-call]
    size = call.model.dimensions if call.model.sizes else None
    await client.embed(list(call.texts), call.model.name, call.role, truncation=False, output_dimension=size)


async def by_us(wire: str, url: str, call: EmbedCall) -> None:
    """Our own provider."""
    provider = PROVIDERS[wire](Endpoint(name=wire, wire=wire, key=Secret("a-key"), base_url=url))
    try:
        await provider.embed(call)
    finally:
        await provider.aclose()


async def received(send: Send, call: EmbedCall) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The request line, the headers that matter and the body of what arrives at a server."""
    seen: list[bytes] = []
    async with answering(400, b"{}", seen) as url:
        with pytest.raises(Exception, match=r".") as raised:
            await send(url, call)
    assert isinstance(raised.value, ProviderError) or type(raised.value).__module__.startswith(("cohere", "voyageai"))
    head, _, body = seen[0].partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    return line, {name: headers[name] for name in ("authorization", "content-type")}, orjson.loads(body)


@pytest.mark.parametrize("sizes", [(2, 1), ()])
@pytest.mark.parametrize("role", ["document", "query"])
@pytest.mark.parametrize(("wire", "sdk"), [("cohere", by_cohere), ("voyage", by_voyage)])
async def test_we_send_what_the_sdk_sends(wire: str, sdk: Send, role: Role, sizes: tuple[int, ...]) -> None:
    """Path, key and every field of the body; what the SDK says besides is only that a field is null."""
    call = EmbedCall(model=model(sizes=sizes, roles=True), texts=TEXTS, role=role)
    ours = await received(lambda url, call: by_us(wire, url, call), call)
    theirs = await received(sdk, call)
    assert ours[:2] == theirs[:2]
    assert ours[2] == {name: value for name, value in theirs[2].items() if value is not None}
