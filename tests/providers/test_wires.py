"""The three providers against the sandbox: one request a call, whatever comes of it."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.config import Secret, Settings, load_settings
from router.domain.errors import (
    BadReply,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    Unreachable,
)
from router.domain.values import Role
from router.providers.base import EmbedCall, Floats, Provider, check
from router.sandbox import Fault, Sandbox, expected_vectors
from tests.providers.conftest import Connect
from tests.waits import until

MODELS = (
    "openai/text-embedding-3-small",
    "openai/text-embedding-ada-002",
    "cohere/embed-v5.0-pro",
    "cohere/embed-v5.0-fast",
    "cohere/embed-v4.0",
    "cohere/embed-english-v3.0",
    "voyage/voyage-4-lite",
    "voyage/voyage-3.5",
    "voyage/voyage-3-lite",
    "gemini/gemini-embedding-2",
)
ONE_EACH = (
    *("openai/text-embedding-3-small", "cohere/embed-v4.0", "voyage/voyage-4-lite", "gemini/gemini-embedding-2"),
)
INDEXED = ("openai/text-embedding-3-small", "voyage/voyage-4-lite")
TEXTS = ("Lift of a thin wing.", "Boundary layers, again.", "naïve café 東京 🙂", "  spaces \n and lines ")
CANARY = "canary-7f3a-this-is-a-key"


def call_of(settings: Settings, model: str, role: Role = "document", texts: tuple[str, ...] = TEXTS) -> EmbedCall:
    """One call for a model of the catalog."""
    return EmbedCall(model=settings.catalog.get(model), texts=texts, role=role)


async def send(provider: Provider, call: EmbedCall) -> Floats:
    """Send a call and check its reply."""
    return check(call, await provider.embed(call))


def vendors_role(call: EmbedCall) -> str | None:
    """The role that the vendor is told of in a field; Gemini is told of it in the text alone."""
    return call.role if call.model.roles and not call.model.prefix else None


def wanted(call: EmbedCall) -> Floats:
    """What the sandbox makes of a call."""
    return expected_vectors(call.model.id, call.sent, vendors_role(call), call.model.dimensions)


def provider_of(model: str) -> str:
    """The provider's name in a model's id."""
    return model.split("/", 1)[0]


@pytest.mark.parametrize("role", ["document", "query"])
@pytest.mark.parametrize("model", MODELS)
async def test_full_vectors_of_the_role(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str, role: Role
) -> None:
    """Every text gets its own vector at full size, for the role where the model has roles; usage is whole tokens."""
    call = call_of(settings, model, role)
    reply = await connect(provider_of(model)).embed(call)
    np.testing.assert_allclose(check(call, reply), wanted(call), atol=1e-6)
    bill = sandbox.bill()
    assert reply.tokens == (None if call.model.usage == "absent" else bill.tokens)
    assert (bill.requests, bill.most_often) == (1, 1)
    assert sandbox.received()[0].role == vendors_role(call)


@pytest.mark.parametrize("model", ONE_EACH)
async def test_a_connection_serves_many_calls(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str
) -> None:
    """Calls that go out together each get their own vectors, one request a call."""
    provider = connect(provider_of(model))
    calls = [call_of(settings, model, texts=(f"first {n}", f"second {n}")) for n in range(8)]
    answers = await asyncio.gather(*(send(provider, call) for call in calls))
    for call, vectors in zip(calls, answers, strict=True):
        np.testing.assert_allclose(vectors, wanted(call), atol=1e-6)
    assert sandbox.bill().requests == 8


@pytest.mark.parametrize("model", INDEXED)
async def test_a_shuffled_answer_is_put_in_order(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str
) -> None:
    """Vectors go to their texts by `index`, whatever order they come in."""
    sandbox.faults.add(Fault("shuffled_index"))
    call = call_of(settings, model)
    reply = await connect(provider_of(model)).embed(call)
    assert reply.indices == [3, 2, 1, 0]
    np.testing.assert_allclose(check(call, reply), wanted(call), atol=1e-6)


@pytest.mark.parametrize("model", INDEXED)
async def test_rows_without_an_index_are_taken_in_order(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str
) -> None:
    """Servers that leave `index` out send their rows in the order of the texts."""
    sandbox.faults.add(Fault("missing_index"))
    call = call_of(settings, model)
    role = "document" if call.model.roles else None
    wanted = expected_vectors(model, list(TEXTS), role, call.model.dimensions)
    np.testing.assert_allclose(await send(connect(provider_of(model)), call), wanted, atol=1e-6)
    assert sandbox.bill().requests == 1


@pytest.mark.parametrize("model", ONE_EACH)
@pytest.mark.parametrize(
    ("fault", "error", "billed"),
    [
        (Fault("rate_limited"), RateLimited, "no"),
        (Fault("quota"), QuotaExhausted, "no"),
        (Fault("key_revoked"), KeyRejected, "no"),
        (Fault("poison"), CallRejected, "no"),
        (Fault("status", status=402), QuotaExhausted, "no"),
        (Fault("status", status=403), KeyRejected, "no"),
        (Fault("status", status=404), NotConfigured, "no"),
        (Fault("status", status=408), Overloaded, "maybe"),
        (Fault("status", status=413), CallTooLarge, "no"),
        (Fault("status", status=422), CallRejected, "no"),
        (Fault("status", status=499), Overloaded, "maybe"),
        (Fault("status", status=500), Overloaded, "maybe"),
        (Fault("status", status=502), Overloaded, "maybe"),
        (Fault("status", status=503), Overloaded, "maybe"),
        (Fault("status", status=529), Overloaded, "maybe"),
        (Fault("refuse"), OutcomeUnknown, "maybe"),
        (Fault("reset"), OutcomeUnknown, "maybe"),
        (Fault("half_json"), BadReply, "maybe"),
        (Fault("html"), BadReply, "maybe"),
        (Fault("one_short"), BadReply, "yes"),
        (Fault("one_too_many"), BadReply, "yes"),
        (Fault("doubled_index"), BadReply, "yes"),
        (Fault("nan"), BadReply, "yes"),
        (Fault("infinity"), BadReply, "yes"),
        (Fault("null"), BadReply, "yes"),
        (Fault("zeros"), BadReply, "yes"),
        (Fault("wrong_size"), BadReply, "yes"),
        (Fault("broken_base64"), BadReply, "yes"),
        (Fault("wrong_model"), BadReply, "yes"),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else "",
)
async def test_faults_become_our_errors_after_one_request(
    connect: Connect,
    settings: Settings,
    sandbox: Sandbox,
    model: str,
    fault: Fault,
    error: type[ProviderError],
    billed: str,
) -> None:
    """Each fault is one of our errors, with what is known of the money, and the SDK sends nothing twice."""
    if model not in INDEXED and fault.kind in {"doubled_index", "wrong_model"}:
        pytest.skip("this wire has no such field")
    sandbox.faults.add(fault)
    with pytest.raises(ProviderError) as caught:
        await send(connect(provider_of(model)), call_of(settings, model))
    assert type(caught.value) is error
    assert caught.value.billed == ("maybe" if provider_of(model) == "gemini" and billed == "yes" else billed)
    bill = sandbox.bill()
    assert bill.requests == 1
    if isinstance(caught.value, BadReply) and caught.value.tokens is not None:
        assert caught.value.tokens == bill.tokens


@pytest.mark.parametrize("model", ONE_EACH)
async def test_a_text_beyond_the_limit_is_refused_not_cut(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str
) -> None:
    """What is too long is refused by the provider: no SDK asks it to cut in silence."""
    long = "wing " * 130_000
    with pytest.raises((CallTooLarge, CallRejected)):
        await send(connect(provider_of(model)), call_of(settings, model, texts=(long,)))
    assert sandbox.bill().nanodollars == 0


@pytest.mark.parametrize("model", ONE_EACH)
async def test_a_silent_provider_times_out_after_one_request(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str
) -> None:
    """No answer in time: the outcome is unknown, and nothing is sent again."""
    sandbox.faults.add(Fault("hang"))
    with pytest.raises(OutcomeUnknown):
        await connect(provider_of(model), timeout_s=0.5).embed(call_of(settings, model))
    await until(lambda: sandbox.bill().calls)
    sandbox.release()
    assert sandbox.bill().requests == 1


@pytest.mark.parametrize("model", ONE_EACH)
async def test_who_cannot_be_reached_was_not_billed(connect: Connect, settings: Settings, model: str) -> None:
    """Connection refused, and a host that does not exist, are known to have left nothing."""
    call = call_of(settings, model)
    for url in ("http://127.0.0.1:9", "http://nobody.invalid"):
        with pytest.raises(Unreachable) as caught:
            await connect(provider_of(model), base_url=url).embed(call)
        assert caught.value.billed == "no"


@pytest.mark.parametrize("model", ONE_EACH)
@pytest.mark.parametrize(
    ("said", "least", "most"), [(7, 7, 7), ("ms:1500", 1.5, 1.5), ("date:90", 85, 91), ("NaN", None, None)]
)
async def test_retry_after_is_heard(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str, said: Any, least: Any, most: Any
) -> None:
    """Seconds, milliseconds and dates are understood on every wire; nonsense is no answer."""
    sandbox.faults.add(Fault("rate_limited", retry_after=said))
    with pytest.raises(RateLimited) as caught:
        await connect(provider_of(model)).embed(call_of(settings, model))
    if least is None:
        assert caught.value.retry_after is None
    else:
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most


async def test_rate_limit_headers_come_through(connect: Connect, settings: Settings, sandbox: Sandbox) -> None:
    """The reply carries the headers that the limiter learns its rate from."""
    sandbox.configure(requests_per_minute=600)
    reply = await connect("openai").embed(call_of(settings, ONE_EACH[0]))
    assert reply.headers["x-ratelimit-limit-requests"] == "600"


@pytest.mark.parametrize("model", ONE_EACH)
async def test_without_a_key_nothing_is_sent(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str
) -> None:
    """No key is NotConfigured, and names the variable to set."""
    provider = connect(provider_of(model), key=None)
    with pytest.raises(NotConfigured, match=settings.endpoints[provider_of(model)].key_variable):
        await provider.embed(call_of(settings, model))
    assert sandbox.bill().requests == 0


@pytest.mark.parametrize("model", ONE_EACH)
async def test_a_key_typed_in_later_is_used(connect: Connect, settings: Settings, sandbox: Sandbox, model: str) -> None:
    """A provider that was refused works with the next key, on the same client."""
    sandbox.configure(key="good")
    provider = connect(provider_of(model), key=Secret("bad"))
    with pytest.raises(KeyRejected):
        await provider.embed(call_of(settings, model))
    settings.endpoints[provider_of(model)].key = Secret("good")
    assert (await send(provider, call_of(settings, model))).shape[0] == len(TEXTS)


@pytest.mark.parametrize("model", ONE_EACH)
@pytest.mark.parametrize("key", [f"{CANARY} x", f"{CANARY}\nx", f"{CANARY}é", f"{CANARY}"])
@pytest.mark.parametrize("fault", [Fault("key_revoked"), Fault("refuse"), Fault("html"), Fault("status")])
async def test_keys_are_never_shown(
    connect: Connect, settings: Settings, sandbox: Sandbox, model: str, key: str, fault: Fault
) -> None:
    """No error, no chain of causes and no repr holds the key, even one that no header can carry."""
    sandbox.faults.add(fault)
    provider = connect(provider_of(model), key=Secret(key))
    with pytest.raises(ProviderError) as caught:
        await send(provider, call_of(settings, model))
    shown = "".join(traceback.format_exception(caught.value)) + repr(settings) + repr(settings.endpoints)
    assert CANARY not in shown
    assert sandbox.bill().requests == (1 if key == CANARY else 0)


def test_no_sdk_is_imported_before_its_first_call(tmp_path: Path) -> None:
    """Making the providers imports none of the SDKs."""
    import subprocess

    code = (
        "import sys; from router.config import load_settings; from router.engine import PROVIDERS\n"
        f"[PROVIDERS[e.wire](e) for e in load_settings({str(tmp_path)!r}).endpoints.values() if e.wire in PROVIDERS]\n"
        "print(sorted({'openai', 'httpx2', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_settings_are_loaded_without_keys(tmp_path: Path) -> None:
    """An environment without keys leaves every paid provider unconfigured."""
    settings = load_settings(tmp_path, env={})
    assert all(endpoint.key is None for endpoint in settings.endpoints.values())
