"""The sandbox as a program: its thread, its command, its speed, its vectors with a meaning."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from router.sandbox import Fault, Sandbox, SandboxConfig, expected_vector, expected_vectors, run
from router.sandbox.vectors import _local
from tests.waits import until


def test_bill_survives_the_end_and_hanging_calls_do_not_hold_it_up() -> None:
    """A sandbox with a hanging call stops; its bill can still be read."""
    with Sandbox() as sandbox:
        sandbox.faults.add(Fault("hang", seconds=3600))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{sandbox.url}/openai/v1/embeddings", json={"model": "text-embedding-ada-002", "input": "a"},
                headers={"authorization": "Bearer any"}, timeout=httpx.Timeout(60, read=0.1),
            )  # fmt: skip
        asyncio.run(until(lambda: sandbox.bill().calls))
    assert sandbox.bill().nanodollars == 100
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{sandbox.url}/healthz")


def test_it_listens_on_loopback_only() -> None:
    """Any other host is refused before a socket is opened."""
    with pytest.raises(ValueError, match="loopback"):
        run("0.0.0.0", 0, SandboxConfig())


@pytest.mark.parametrize(
    "wrong", [{"vectors": "x"}, {"max_in_flight": 0}, {"latency_ms": -1}, {"requests_per_minute": -5}]
)
def test_configuration_is_checked(wrong: dict[str, object]) -> None:
    """Nonsense is refused when it is set."""
    with pytest.raises(ValueError, match=r"must"):
        SandboxConfig(**wrong)  # type: ignore[arg-type]  # on purpose


def test_run_prints_where_it_is_and_what_to_set() -> None:
    """`run` announces one line with the URL and the six variables, and serves."""
    code = "from router.sandbox import SandboxConfig, run; run('127.0.0.1', 0, SandboxConfig(key='abc'))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            variables = dict(word.split("=", 1) for word in words if "=" in word)
            assert variables["OPENAI_API_KEY"] == variables["CO_API_KEY"] == variables["VOYAGE_API_KEY"] == "abc"
            answer = httpx.post(
                f"{variables['VOYAGE_BASE_URL']}/embeddings", json={"model": "voyage-4", "input": "a"},
                headers={"authorization": "Bearer abc"},
            )  # fmt: skip
            assert answer.status_code == 200
            base = variables["OPENAI_BASE_URL"].removesuffix("/openai/v1")
            assert httpx.get(f"{base}/sandbox/bill").json()["nanodollars"] == 60
        finally:
            process.terminate()


def test_a_call_of_many_texts_is_cheaper_than_as_many_calls(sandbox: Sandbox) -> None:
    """200 texts in one call take less of the processor than 200 calls, and each text has its own vector."""
    texts = [f"text number {i}" for i in range(200)]
    url = f"{sandbox.url}/openai/v1/embeddings"
    body = {"model": "text-embedding-3-small", "encoding_format": "float"}
    with httpx.Client(headers={"authorization": "Bearer any"}) as client:
        start = time.process_time()
        together = client.post(url, json=body | {"input": texts}).json()["data"]
        once = time.process_time() - start
        start = time.process_time()
        for text in texts:
            client.post(url, json=body | {"input": text, "encoding_format": "base64"})
        singly = time.process_time() - start
    assert once < singly
    found = np.array([item["embedding"] for item in together], dtype=np.float32)
    np.testing.assert_allclose(found, expected_vectors("openai/text-embedding-3-small", texts), atol=1e-7)
    assert set(sandbox.bill().digests.values()) == {2}


@pytest.mark.slow
def test_model_vectors_keep_the_local_models_cosines() -> None:
    """In model mode cosines of every paid model equal the local model's, and queries keep the order."""
    texts = ["wings and lift", "lift of an aerofoil", "how to bake bread", "heat in a boundary layer"]
    local = _local(texts)
    for model in ("openai/text-embedding-3-small", "openai/text-embedding-3-large", "cohere/embed-v4.0"):
        found = expected_vectors(model, texts, "document", mode="model")
        np.testing.assert_allclose(found @ found.T, local @ local.T, atol=1e-5)
    query = expected_vector("cohere/embed-v4.0", texts[0], "query", mode="model")
    documents = expected_vectors("cohere/embed-v4.0", texts, "document", mode="model")
    assert not np.allclose(query, documents[0], atol=1e-3)
    assert (np.argsort(documents @ query) == np.argsort(local @ local[0])).all()
    with Sandbox(vectors="model") as sandbox:
        answer = httpx.post(
            f"{sandbox.url}/openai/v1/embeddings", json={"model": "text-embedding-3-small", "input": texts},
            headers={"authorization": "Bearer any"}, timeout=60,
        )  # fmt: skip
    rows = np.array([item["embedding"] for item in answer.json()["data"]])
    np.testing.assert_allclose(rows, expected_vectors("openai/text-embedding-3-small", texts, mode="model"), atol=1e-5)
