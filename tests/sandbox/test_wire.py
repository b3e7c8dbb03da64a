"""The three wires, spoken by the three real SDKs."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import tiktoken
import voyageai
import voyageai.error
from cohere.core.api_error import ApiError

from router.sandbox import Sandbox, expected_vector, expected_vectors
from router.sandbox.limits import duration

FAMILY_AND_OTHER = ("voyage-4-large", "voyage-4-lite", "voyage-3.5")
TEXTS = ["Lift of a thin wing.", "Boundary layers, again.", "naïve café 東京 🙂", "  spaces \n and lines "]


def openai_client(sandbox: Sandbox, key: str = "any") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{sandbox.url}/openai/v1", api_key=key, max_retries=0)


def cohere_client(sandbox: Sandbox, key: str = "any") -> cohere.AsyncClientV2:
    return cohere.AsyncClientV2(base_url=f"{sandbox.url}/cohere", api_key=key, max_retries=0)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[cohere.AsyncClientV2]:
    async with cohere_client(sandbox) as found:
        yield found


def voyage_client(sandbox: Sandbox, key: str = "any") -> voyageai.AsyncClient:
    return voyageai.AsyncClient(base_url=f"{sandbox.url}/voyage/v1", api_key=key, max_retries=1)


def cl100k(texts: list[str]) -> int:
    encoding = tiktoken.get_encoding("cl100k_base")
    return sum(len(encoding.encode_ordinary(text)) for text in texts)


@pytest.mark.parametrize(
    ("model", "price"),
    [("text-embedding-3-small", 20), ("text-embedding-3-large", 130), ("text-embedding-ada-002", 100)],
)
@pytest.mark.parametrize("form", ["float", "base64", None])
async def test_openai_answers_each_text_and_bills_its_tokens(
    sandbox: Sandbox, model: str, price: int, form: Any
) -> None:
    """Every position holds its own text's vector, usage is exact, and the bill is tokens times price."""
    async with openai_client(sandbox) as client:
        extra = {"encoding_format": form} if form == "float" else {}
        found = await client.embeddings.create(model=model, input=TEXTS, **extra)
    vectors = np.array([item.embedding for item in found.data], dtype=np.float32)
    np.testing.assert_allclose(vectors, expected_vectors(f"openai/{model}", TEXTS), atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert [item.index for item in found.data] == [0, 1, 2, 3]
    assert found.model == model
    assert found.usage.prompt_tokens == found.usage.total_tokens == cl100k(TEXTS)
    bill = sandbox.bill()
    assert bill.nanodollars == bill.by_model[f"openai/{model}"] == cl100k(TEXTS) * price
    assert (bill.requests, bill.calls, bill.texts, bill.tokens) == (1, 1, 4, cl100k(TEXTS))
    assert bill.digests == {blake2b(text.encode(), digest_size=32).hexdigest(): 1 for text in TEXTS}
    assert bill.most_often == 1


async def test_openai_takes_tokens_and_single_texts(sandbox: Sandbox) -> None:
    """A text, its tokens and a list of token lists are the same thing."""
    tokens = tiktoken.get_encoding("cl100k_base").encode_ordinary(TEXTS[0])
    wanted = expected_vector("openai/text-embedding-3-small", TEXTS[0])
    async with openai_client(sandbox) as client:
        for given in (TEXTS[0], tokens, [tokens]):
            found = await client.embeddings.create(model="text-embedding-3-small", input=given)
            np.testing.assert_allclose(found.data[0].embedding, wanted, atol=1e-7)
            assert found.usage.total_tokens == len(tokens)
    assert sandbox.bill().most_often == 3


async def test_openai_dimensions_are_cut_and_renormalised(sandbox: Sandbox) -> None:
    """Fewer dimensions are the head of the full vector at unit length."""
    async with openai_client(sandbox) as client:
        found = await client.embeddings.create(model="text-embedding-3-large", input=TEXTS[0], dimensions=1000)
    full = expected_vector("openai/text-embedding-3-large", TEXTS[0])
    head = full[:1000] / np.linalg.norm(full[:1000])
    np.testing.assert_allclose(found.data[0].embedding, head, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "status", "code", "says"),
    [
        ({"model": "text-embedding-9"}, 404, "model_not_found", "text-embedding-9"),
        ({"input": ""}, 400, None, "empty string"),
        ({"input": ["a", ""]}, 400, None, "empty string"),
        ({"input": []}, 400, None, "at least one"),
        ({"input": ["a"] * 2049}, 400, "array_above_max_length", "2048"),
        ({"input": ["a", 3]}, 400, None, "list of texts"),
        ({"input": " a" * 8193}, 400, None, "maximum context length is 8192 tokens"),
        ({"input": [" a" * 8000] * 38}, 400, "max_tokens_per_request", "304000"),
        ({"model": "text-embedding-ada-002", "dimensions": 256}, 400, None, "dimensions"),
        ({"dimensions": 1537}, 400, None, "1536"),
        ({"dimensions": 0}, 400, None, "1536"),
    ],
)
async def test_openai_refuses_in_its_own_words(
    sandbox: Sandbox, given: dict[str, Any], status: int, code: str | None, says: str
) -> None:
    """What the API does not take is refused with its status, code and message, and is not billed."""
    async with openai_client(sandbox) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.embeddings.create(**({"model": "text-embedding-3-small", "input": "a"} | given))
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert says in caught.value.message
    assert sandbox.bill().nanodollars == 0
    assert sandbox.received()[-1].status == status


async def test_limits_that_are_just_met_are_served(sandbox: Sandbox) -> None:
    """2,048 texts, and a text of 8,192 tokens, are taken."""
    async with openai_client(sandbox) as client:
        found = await client.embeddings.create(model="text-embedding-3-small", input=["a"] * 2048)
        assert len(found.data) == 2048
        found = await client.embeddings.create(model="text-embedding-3-small", input=" a" * 8192)
        assert found.usage.total_tokens == 8192


async def test_keys_are_checked(sandbox: Sandbox) -> None:
    """A wrong key gives 401 on every wire, and a missing one too."""
    sandbox.configure(key="right")
    async with openai_client(sandbox, "wrong") as one, cohere_client(sandbox, "wrong") as two:
        with pytest.raises(openai.AuthenticationError) as caught:
            await one.embeddings.create(model="text-embedding-3-small", input="a")
        with pytest.raises(ApiError) as refused:
            await two.embed(model="embed-v4.0", texts=["a"], input_type="search_query")
    assert caught.value.code == "invalid_api_key"
    assert refused.value.status_code == 401
    with pytest.raises(voyageai.error.AuthenticationError):
        await voyage_client(sandbox, "wrong").embed(["a"], model="voyage-4")
    body = {"model": "text-embedding-3-small", "input": "a"}
    assert httpx.post(f"{sandbox.url}/openai/v1/embeddings", json=body).status_code == 401
    assert sandbox.bill().nanodollars == 0
    assert sandbox.bill().requests == 4
    async with openai_client(sandbox, "right") as one:
        await one.embeddings.create(model="text-embedding-3-small", input="a")
    assert sandbox.bill().calls == 1


async def test_openai_sends_its_headers(sandbox: Sandbox) -> None:
    """The rate-limit headers count down and the resets are durations."""
    sandbox.configure(requests_per_minute=500, tokens_per_minute=6000)
    async with openai_client(sandbox) as client:
        raw = await client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=" a" * 100)
    assert raw.headers["x-ratelimit-limit-requests"] == "500"
    assert raw.headers["x-ratelimit-remaining-requests"] == "499"
    assert raw.headers["x-ratelimit-reset-requests"] == "120ms"
    assert raw.headers["x-ratelimit-limit-tokens"] == "6000"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "5900"
    assert raw.headers["x-ratelimit-reset-tokens"] == "1s"
    assert raw.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.012, "12ms"), (0, "0ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (3600, "1h0m0s"), (86_399, "23h59m59s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    """Milliseconds, seconds, minutes and hours."""
    assert duration(seconds) == written


async def test_openai_lists_its_models(sandbox: Sandbox) -> None:
    """The three embedding models are listed."""
    async with openai_client(sandbox) as client:
        names = [model.id async for model in client.models.list()]
    assert names == ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"]


async def test_chat_replies_the_same_each_time_and_refuses_a_list_of_lists(sandbox: Sandbox) -> None:
    """A chat call is answered with usage; a list of message lists is no batch, it is a 400."""
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    async with openai_client(sandbox) as client:
        first = await client.chat.completions.create(model="gpt-any", messages=messages)
        again = await client.chat.completions.create(model="gpt-any", messages=messages)
        assert first.choices[0].message.content == again.choices[0].message.content
        assert first.usage is not None
        assert first.usage.total_tokens > 0
        with pytest.raises(openai.BadRequestError, match=r"messages\[0\]"):
            await client.chat.completions.create(model="gpt-any", messages=[messages, messages])  # type: ignore[arg-type, list-item]  # on purpose


@pytest.mark.parametrize(
    ("model", "size"), [("embed-v4.0", 1536), ("embed-english-v3.0", 1024), ("embed-multilingual-v3.0", 1024)]
)
async def test_cohere_answers_by_role(sandbox: Sandbox, client: cohere.AsyncClientV2, model: str, size: int) -> None:
    """Documents and queries of the same text differ; billed units are a float and make the bill."""
    price = 120 if model == "embed-v4.0" else 100
    found = {}
    for kind, role in (("search_document", "document"), ("search_query", "query")):
        answer = await client.embed(model=model, texts=TEXTS, input_type=kind, embedding_types=["float"])
        found[role] = np.array(answer.embeddings.float_, dtype=np.float32)
        wanted = expected_vectors(f"cohere/{model}", TEXTS, role)
        assert wanted.shape == (4, size)
        np.testing.assert_allclose(found[role], wanted, atol=1e-7)
        assert answer.meta is not None
        assert answer.meta.billed_units is not None
        assert answer.meta.billed_units.input_tokens == cl100k(TEXTS)
        assert isinstance(answer.meta.billed_units.input_tokens, float)
    assert (np.sum(found["document"] * found["query"], axis=1) < 0.9).all()
    assert sandbox.bill().nanodollars == 2 * cl100k(TEXTS) * price
    assert [entry.role for entry in sandbox.received()] == ["document", "query"]


async def test_cohere_refuses_in_its_own_words(sandbox: Sandbox, client: cohere.AsyncClientV2) -> None:
    """97 texts, a size that is not sold, a missing input_type and an unknown model are refused with a message."""
    for given, status in (
        ({"texts": ["a"] * 97}, 400),
        ({"output_dimension": 100}, 400),
        ({"model": "embed-english-v3.0", "output_dimension": 256}, 400),
        ({"input_type": "classification"}, 400),
        ({"model": "embed-v9"}, 404),
    ):
        with pytest.raises(ApiError) as caught:
            await client.embed(
                **({"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query"} | given)  # type: ignore[arg-type]  # by name
            )
        assert caught.value.status_code == status
        assert caught.value.body["message"]
    bare = httpx.post(
        f"{sandbox.url}/cohere/v2/embed",
        json={"model": "embed-v4.0", "texts": ["a"]},
        headers={"authorization": "Bearer any"},
    )
    assert bare.status_code == 400
    assert "input_type" in bare.json()["message"]
    assert sandbox.bill().nanodollars == 0


async def test_cohere_cuts_long_texts_unless_told_not_to(sandbox: Sandbox, client: cohere.AsyncClientV2) -> None:
    """Over 512 tokens a v3 text is cut and billed as cut; with truncate NONE it is refused."""
    long = " a" * 600
    answer = await client.embed(
        model="embed-english-v3.0", texts=[long], input_type="search_document", embedding_types=["float"]
    )
    assert answer.embeddings.float_ is not None
    cut = expected_vector("cohere/embed-english-v3.0", " a" * 512, "document")
    np.testing.assert_allclose(answer.embeddings.float_[0], cut, atol=1e-7)
    assert sandbox.bill().tokens == 512
    with pytest.raises(ApiError):
        await client.embed(model="embed-english-v3.0", texts=[long], input_type="search_document", truncate="NONE")
    assert sandbox.bill().calls == 1


@pytest.mark.parametrize(
    ("model", "size", "price"),
    [("voyage-4-large", 1024, 120), ("voyage-3.5-lite", 1024, 20), ("voyage-3-lite", 512, 20)],
)
async def test_voyage_answers_by_role(sandbox: Sandbox, model: str, size: int, price: int) -> None:
    """Documents, queries and texts without a role differ; the SDK's base64 is decoded; the bill is exact."""
    client = voyage_client(sandbox)
    found = []
    for role in ("document", "query", None):
        answer = await client.embed(TEXTS, model=model, input_type=role, truncation=False)
        found.append(np.array(answer.embeddings, dtype=np.float32))
        assert found[-1].shape == (4, size)
        np.testing.assert_allclose(found[-1], expected_vectors(f"voyage/{model}", TEXTS, role), atol=1e-7)
        assert answer.total_tokens == cl100k(TEXTS)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (np.sum(found[one] * found[other], axis=1) < 0.95).all()
    assert sandbox.bill().nanodollars == 3 * cl100k(TEXTS) * price


async def test_voyage_refuses_in_its_own_words(sandbox: Sandbox) -> None:
    """Too many texts or tokens, an unknown model or a size that is not sold are refused with a detail."""
    client = voyage_client(sandbox)
    for given in (
        {"texts": ["a"] * 1001},
        {"texts": [" a" * 30_000] * 5, "model": "voyage-4-large"},
        {"texts": [" a" * 32_001], "truncation": False},
        {"model": "voyage-9"},
        {"output_dimension": 100},
        {"model": "voyage-3-lite", "output_dimension": 256},
    ):
        with pytest.raises(voyageai.error.InvalidRequestError):
            await client.embed(**({"texts": ["a"], "model": "voyage-4"} | given))  # type: ignore[arg-type]  # by name
    assert sandbox.bill().nanodollars == 0


def test_the_voyage_4_family_shares_one_space() -> None:
    """Members' vectors of a text are nearly equal and not equal; other models' are unrelated."""
    large, small, other = (expected_vectors(f"voyage/{name}", TEXTS, "document") for name in FAMILY_AND_OTHER)
    near = np.sum(large * small, axis=1)
    assert (near > 0.999).all()
    assert (large != small).any(axis=1).all()
    assert (np.abs(np.sum(large * other, axis=1)) < 0.2).all()


def test_different_texts_have_unrelated_vectors() -> None:
    """Among 2,000 texts no two vectors are alike."""
    vectors = expected_vectors("openai/text-embedding-3-small", [f"text {i}" for i in range(2000)])
    cosines = vectors @ vectors.T - np.eye(2000)
    assert np.abs(cosines).max() < 0.35
    assert math.isclose(float(cosines.mean()), 0, abs_tol=0.01)
