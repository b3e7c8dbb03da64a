"""The border to foreign words: bodies, usage, keys and errors in every form that servers are known to send."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import Endpoint, Secret
from router.domain.errors import (
    BadReply,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    OutcomeUnknown,
    Overloaded,
    QuotaExhausted,
)
from router.engine import PROVIDERS
from router.providers.base import error_for_status, read_json, refusal, retry_after, to_reply, tokens_billed
from router.providers.local import LocalProvider, weights_of
from tests.providers.test_check import call_of

KEY = "canary-echoed-9c1d"
ENDPOINT = Endpoint(name="acme", wire="openai", key_variable="ACME_KEY", key=Secret(KEY))


@asynccontextmanager
async def answering(status: int, body: bytes, seen: list[bytes]) -> AsyncIterator[str]:
    """A server that gives every request the same answer; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line.lower())
        seen.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("wire", list(PROVIDERS))
@pytest.mark.parametrize("form", ['{"error": {"message": "bad key %s"}}', '{"detail": "bad key %s"}', "bad key %s"])
async def test_a_server_that_repeats_the_key_is_not_quoted(wire: str, form: str) -> None:
    """The key is blotted out of the message, and the SDK's own error is not in the chain."""
    seen: list[bytes] = []
    async with answering(401, (form % KEY).encode(), seen) as url:
        provider = PROVIDERS[wire](Endpoint(name="acme", wire=wire, key=Secret(KEY), base_url=url))
        with pytest.raises(KeyRejected, match=r"bad key \*\*\*") as caught:
            await provider.embed(call_of(2))
        await provider.aclose()
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert len(seen) == 1
    assert KEY.encode() in seen[0]


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_vectors_are_asked_for_in_the_endpoints_encoding(encoding: Any) -> None:
    """`encoding` is what the server is asked for; numbers are read whatever was asked for."""
    body = orjson.dumps({"data": [{"index": 0, "embedding": [1.0, 0, 0, 0]}], "model": "one:latest"})
    seen: list[bytes] = []
    async with answering(200, body, seen) as url:
        endpoint = Endpoint(name="acme", wire="openai", key=Secret("k"), base_url=url, encoding=encoding)
        provider = PROVIDERS["openai"](endpoint)
        reply = await provider.embed(call_of(1))
        await provider.aclose()
    assert f'"encoding_format":"{encoding}"'.encode() in seen[0].replace(b": ", b":")
    assert b"dimensions" not in seen[0]
    assert reply.tokens is None
    assert reply.vectors == [[1.0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("roles", "cohere", "voyage"), [(True, "search_query", '"query"'), (False, "search_document", "null")]
)
async def test_roles_are_sent_only_for_models_that_have_them(roles: bool, cohere: str, voyage: str) -> None:
    """A model without roles gets the same call for both, since its vectors are cached for both."""
    call = call_of(1, roles=roles)
    call = type(call)(model=call.model, texts=call.texts, role="query")
    for wire, wanted in (("cohere", f'"input_type":"{cohere}"'), ("voyage", f'"input_type":{voyage}')):
        seen: list[bytes] = []
        async with answering(500, b"", seen) as url:
            provider = PROVIDERS[wire](Endpoint(name="acme", wire=wire, key=Secret("k"), base_url=url))
            with pytest.raises(Overloaded):
                await provider.embed(call)
            await provider.aclose()
        assert wanted.encode() in seen[0].replace(b": ", b":")


@pytest.mark.parametrize("wire", ["cohere", "voyage"])
@pytest.mark.parametrize("sizes", [(2, 1), ()])
async def test_the_full_size_is_asked_for_where_there_are_several(wire: str, sizes: tuple[int, ...]) -> None:
    """The cache holds full vectors, whatever the vendor's default; models of one size take no such argument."""
    seen: list[bytes] = []
    async with answering(500, b"", seen) as url:
        provider = PROVIDERS[wire](Endpoint(name="acme", wire=wire, key=Secret("k"), base_url=url))
        with pytest.raises(Overloaded):
            await provider.embed(call_of(1, sizes=sizes))
        await provider.aclose()
    assert (b'"output_dimension":4' in seen[0].replace(b": ", b":")) == bool(sizes)
    assert (b"output_dimension" in seen[0]) == bool(sizes)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no", "code": null, "type": "x"}}', "no"),
        (b'{"error": "model \'m\' not found"}', "model 'm' not found"),
        (b'{"object": "error", "message": "too much", "code": 400}', "too much"),
        (b'{"detail": "batch size"}', "batch size"),
        (b"plain  words\n here", "plain words here"),
        (b"<html><script>x</script></html>", ""),
        (b"", ""),
        (b"\xff\xfe", "��"),
        (b"[1, 2]", "[1, 2]"),
        (b'{"error": null}', ""),
    ],
)
def test_every_form_of_error_is_understood(body: bytes, message: str) -> None:
    """OpenAI's, Cohere's, Voyage's and the self-hosted servers' bodies give their message; a web page gives none."""
    error = refusal(ENDPOINT, 400, body, {})
    assert error.message == (f"acme answered 400: {message}" if message else "acme answered 400.")


def test_a_redirect_and_a_proxys_refusal_are_set_ups() -> None:
    """Neither is billed nor sent again; the other host is named, unless the server wrote the key there."""
    for location, host in (
        ("https://other.example:8443/v1", "other.example"),
        (f"https://{KEY.upper()}.example/", "***.example"),
        ("/v2", "another address"),
        ("http://[", "another address"),
        ("", "another address"),
    ):
        error = refusal(ENDPOINT, 308, b"{}", {"location": location})
        assert type(error) is NotConfigured
        assert f"a redirect to {host};" in error.message
        assert "base_url of [endpoints.acme] in router.toml" in error.hint
    assert type(refusal(ENDPOINT, 407, b"", {})) is NotConfigured


def test_what_tells_a_call_apart_that_is_too_large_or_unpaid() -> None:
    """Codes and words decide where the status does not."""
    for status, message, code, kind in (
        (400, "x", "max_tokens_per_request", CallTooLarge),
        (400, "This model's maximum context length is 8192 tokens", "", CallTooLarge),
        (429, "x", "insufficient_quota", QuotaExhausted),
        (202, "", "", OutcomeUnknown),
    ):
        assert type(error_for_status("acme", status, message, code, {}, 0.0)) is kind


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["data", "usage", "index", "embedding", "model", "prompt_tokens"]), inner, max_size=4
        ),
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_reply_or_a_bad_reply(data: Any) -> None:
    """No answer, however odd, raises anything but BadReply, through to the end of the check."""
    from router.providers.base import check

    try:
        reply = to_reply("acme", read_json("acme", orjson.dumps(data)), {})
        check(call_of(2), reply)
    except BadReply:
        return
    raise AssertionError("two vectors of four dimensions cannot come of this")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'"data"', b"null"])
def test_what_is_not_a_list_of_embeddings_is_a_bad_reply(body: bytes) -> None:
    """Half a JSON, bytes, a flood of brackets."""
    with pytest.raises(BadReply):
        to_reply("acme", read_json("acme", body), {})


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (3, 3),
        (3.0, 3),
        (3.2, 4),
        (0, 0),
        (None, None),
        (-1, None),
        (True, None),
        ("3", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**30, None),
        ([3], None),
    ],
)
def test_usage_is_whole_tokens_or_unknown(said: Any, tokens: int | None) -> None:
    """Floats are rounded up; what is no amount of tokens is unknown, so that the hold stands."""
    assert tokens_billed(said) == tokens


@given(st.text(max_size=20), st.sampled_from(["retry-after", "retry-after-ms"]))
def test_retry_after_is_a_wait_or_none(text: str, name: str) -> None:
    """Any text at all gives a finite wait of zero or more, or None."""
    wait = retry_after({name: text}, 1e9)
    assert wait is None or 0 <= wait < float("inf")


async def test_local_weights_that_are_not_there(tmp_path: Path) -> None:
    """A local model without weights is NotConfigured, before anything heavy is imported."""
    assert weights_of("no-such-model") is None
    provider = LocalProvider(tmp_path)
    with pytest.raises(NotConfigured, match="no-such-model"):
        await provider.embed(call_of(1, id="local/no-such-model", provider="local", name="no-such-model"))
    await provider.aclose()
