"""Gemini's wire: what its refusals mean, and that its money is held, booked and explained without a word on usage."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from router import Router
from router.config import Endpoint, Secret, load_settings
from router.domain.errors import (
    BadInput,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    ProviderError,
    QuotaExhausted,
    RateLimited,
)
from router.providers.gemini import _refused
from router.sandbox import Sandbox

GEMINI = "gemini/gemini-embedding-2"
QUOTA = "You exceeded your current quota, please check your plan and billing details."


def refused(status: int, message: str, kind: str = "", details: object = ()) -> ProviderError:
    """Our error for one of Google's."""
    endpoint = Endpoint(name="gemini", wire="gemini", key=Secret("k"), key_variable="GEMINI_API_KEY")
    body = json.dumps({"error": {"code": status, "message": message, "status": kind, "details": details}})
    return _refused(endpoint, status, body.encode(), {})


def test_googles_refusals_are_told_apart() -> None:
    """A wrong key is a 400 there, and the limit of a minute has the words that elsewhere mean an empty account."""
    reason = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    retry = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    daily = [{"violations": [{"quotaId": "EmbedContentRequestsPerDayPerProjectPerModel-FreeTier"}]}]
    found = [
        refused(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", reason),
        refused(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"),
        refused(400, "The input token count (9000) exceeds the maximum number of tokens (8192).", "INVALID_ARGUMENT"),
        refused(400, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch"),
        refused(403, "Permission denied", "PERMISSION_DENIED"),
        refused(404, "models/gemini-embedding-9 is not found", "NOT_FOUND"),
        refused(429, QUOTA, "RESOURCE_EXHAUSTED", retry),
        refused(429, QUOTA, "RESOURCE_EXHAUSTED"),
        refused(429, QUOTA, "RESOURCE_EXHAUSTED", daily),
        refused(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"),
    ]
    assert [type(error) for error in found] == [
        KeyRejected, NotConfigured, CallTooLarge, CallRejected, KeyRejected, NotConfigured, RateLimited, RateLimited,
        QuotaExhausted, QuotaExhausted,
    ]  # fmt: skip
    assert [error.retry_after for error in found if isinstance(error, RateLimited)] == [34.5, None]
    assert all(error.billed == "no" for error in found)


async def test_a_key_that_is_refused_stops_the_request_after_one_call(tmp_path: Path, sandbox: Sandbox) -> None:
    """Its 400 is not taken for a text that is to blame, and divided."""
    sandbox.configure(key="another")
    async with Router.open(tmp_path, env=sandbox.environment) as router:
        with pytest.raises(KeyRejected):
            await router.embed([f"text {i}" for i in range(8)], policy="economy", model=GEMINI)
    assert sandbox.bill().requests == 1


async def test_250_texts_are_three_calls_and_no_text_is_folded(tmp_path: Path, sandbox: Sandbox) -> None:
    """A hundred texts a call, each with a vector of its own; what is booked is at least what was billed."""
    texts = [f"A short text, number {i}." for i in range(250)]
    async with Router.open(tmp_path, env=sandbox.environment) as router:
        found = await router.embed(texts, policy="economy", model=GEMINI)
        again = await router.embed(texts, policy="economy", model=GEMINI, dimensions=768)
    bill = sandbox.bill()
    assert (found.vectors.shape, again.vectors.shape, len({row.tobytes() for row in found.vectors})) == (
        (250, 3072), (250, 768), 250,
    )  # fmt: skip
    assert (bill.calls, bill.texts, again.counts.cache) == (3, 250, 250)
    assert 0 < bill.nanodollars <= found.cost


def test_a_batch_price_at_a_wire_without_batches_is_refused(tmp_path: Path) -> None:
    """Else the policy's deadline of a day would send work to a tier that the router cannot speak to."""
    price = f'[[prices]]\nmodel = "{GEMINI}"\nsince = {date(2026, 11, 1)}\nnow = "0.2"\nbatch = "0.1"\nsource = "x"\n'
    (tmp_path / "router.toml").write_text(price)
    with pytest.raises(BadInput, match="not sent on the gemini wire"):
        load_settings(tmp_path, env={})


def test_an_endpoint_of_ones_own_takes_the_place_of_a_built_in_one(tmp_path: Path) -> None:
    """A `router.toml` that named OpenRouter before it was built in still means what it meant."""
    (tmp_path / "router.toml").write_text(
        '[endpoints.openrouter]\nbase_url = "http://127.0.0.1:9/v1"\nkey_variable = "MINE"\n'
        '[[models]]\nid = "openrouter/qwen/qwen3-embedding-4b"\nspace = "qwen"\ndimensions = 2560\n'
        'tokenizer = "bytes"\nlimits = { texts_per_call = 9 }\n'
    )
    found = load_settings(tmp_path, env={"MINE": "k", "OPENROUTER_API_KEY": "theirs"})
    assert [model.space for model in found.catalog.models if model.provider == "openrouter"] == ["qwen"]
    assert found.endpoints["openrouter"].base_url == "http://127.0.0.1:9/v1"
    assert found.endpoints["openrouter"].url_setting.startswith("base_url of [endpoints.openrouter]")


def test_built_in_endpoints_need_a_key_only(tmp_path: Path) -> None:
    """Each has its variables; without a key its models are in the catalog and never called."""
    env = {"GEMINI_API_KEY": "a", "MISTRAL_API_KEY": "b", "OPENROUTER_API_KEY": "c", "MISTRAL_BASE_URL": "http://m"}
    found = load_settings(tmp_path, env=env).endpoints
    assert [(found[name].wire, found[name].key is not None) for name in ("gemini", "mistral", "openrouter")] == [
        ("gemini", True), ("openai", True), ("openai", True),
    ]  # fmt: skip
    assert (found["mistral"].base_url, found["openrouter"].encoding) == ("http://m", "float")
    assert load_settings(tmp_path, env={}).endpoints["gemini"].key is None
