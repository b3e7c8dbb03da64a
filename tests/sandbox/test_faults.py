"""Each fault has its shape on the wire, and its effect on the bill."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import cohere
import httpx
import numpy as np
import openai
import pytest
import voyageai
import voyageai.error

from router.sandbox import Fault, Sandbox, expected_vectors
from router.sandbox.faults import KINDS, BatchFault, Refusal, Shape, Transport
from tests.waits import until

MODEL = "text-embedding-3-small"
TEXTS = ["one", "two", "poison three", "four"]
TOKENS = 6
COST = TOKENS * 20  # nanodollars


def post(sandbox: Sandbox, *, form: str = "base64", timeout: float = 60.0, **body: Any) -> httpx.Response:
    """One call to the OpenAI wire."""
    return httpx.post(
        f"{sandbox.url}/openai/v1/embeddings",
        json={"model": MODEL, "input": TEXTS, "encoding_format": form} | body,
        headers={"authorization": "Bearer any"},
        timeout=httpx.Timeout(60.0, read=timeout),
    )


def rows(answer: httpx.Response) -> list[Any]:
    """The decoded vectors of an answer in base64, in its order."""
    return [np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in answer.json()["data"]]


def test_all_kinds_are_known() -> None:
    """The groups of faults do not overlap and make up the whole."""
    groups = [get_args(group) for group in (Refusal, Transport, Shape, BatchFault)]
    assert sorted(kind for group in groups for kind in group) == sorted(KINDS)
    with pytest.raises(ValueError, match="not a fault"):
        Fault("nonsense")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="Cohere"):
        Fault("missing_index", provider="cohere")


def test_faults_count_skip_and_match(sandbox: Sandbox) -> None:
    """A fault befalls as many fitting calls as it says, after those that it skips, and no others."""
    sandbox.faults.add(Fault("status", status=503, match="poison", skip=1, times=2))
    codes = [post(sandbox, input=text).status_code for text in ["x", "poison", "x", "poison", "y", "poison", "poison"]]
    assert codes == [200, 200, 200, 503, 200, 503, 200]
    assert sandbox.faults.pending() == []
    sandbox.faults.add(Fault("poison", times=None), Fault("status"))
    assert [post(sandbox).status_code for _ in range(3)] == [400] * 3
    sandbox.faults.clear()
    assert post(sandbox).status_code == 200


def test_faults_keep_to_their_provider(sandbox: Sandbox) -> None:
    """A fault for Voyage leaves OpenAI alone."""
    sandbox.faults.add(Fault("status", status=503, provider="voyage"))
    assert post(sandbox).status_code == 200
    with pytest.raises(voyageai.error.ServiceUnavailableError):
        voyageai.Client(base_url=f"{sandbox.url}/voyage/v1", api_key="any").embed(["a"], model="voyage-4")


@pytest.mark.parametrize(
    ("asked", "name", "seconds"),
    [
        (2, "retry-after", 2.0),
        ("ms:1500", "retry-after-ms", 1.5),
        (864_000, "retry-after", 864_000.0),
        ("NaN", "retry-after", None),
        (None, None, None),
    ],
)
def test_429_asks_to_wait_in_every_way(sandbox: Sandbox, asked: Any, name: str | None, seconds: float | None) -> None:
    """The header is what was asked for, the recorder knows when a return is welcome, nothing is billed."""
    sandbox.faults.add(Fault("rate_limited", retry_after=asked))
    before = time.monotonic()
    answer = post(sandbox)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert {key for key in answer.headers if key.startswith("retry")} == ({name} if name else set())
    entry = sandbox.received()[-1]
    assert (entry.status, entry.fault, entry.nanodollars) == (429, "rate_limited", 0)
    if seconds is None:
        assert entry.not_before is None
    else:
        assert entry.not_before is not None
        assert before + seconds <= entry.not_before <= time.monotonic() + seconds
    assert sandbox.bill().nanodollars == 0


def test_429_with_a_date(sandbox: Sandbox) -> None:
    """The date is in the future, by at least the seconds asked for."""
    sandbox.faults.add(Fault("rate_limited", retry_after="date:3"))
    before = time.time()
    moment = parsedate_to_datetime(post(sandbox).headers["retry-after"]).timestamp()
    assert before + 3 <= moment <= time.time() + 4


async def test_refusals_reach_the_sdks_as_the_real_ones_do(sandbox: Sandbox) -> None:
    """Quota, revoked key and content errors have the vendors' codes and bill nothing."""
    sandbox.faults.add(Fault("quota"), Fault("key_revoked"), Fault("poison", match="poison"))
    async with openai.AsyncOpenAI(base_url=f"{sandbox.url}/openai/v1", api_key="any", max_retries=0) as client:
        for error, code in (
            (openai.RateLimitError, "insufficient_quota"),
            (openai.AuthenticationError, "invalid_api_key"),
            (openai.BadRequestError, "content_rejected"),
        ):
            with pytest.raises(error) as caught:
                await client.embeddings.create(model=MODEL, input=TEXTS)
            assert caught.value.code == code
    assert sandbox.bill().nanodollars == 0
    assert [entry.status for entry in sandbox.received()] == [429, 401, 400]


@pytest.mark.parametrize("status", [500, 502, 503, 529])
@pytest.mark.parametrize("bill", [True, False, None])
def test_5xx_bills_if_told_to(sandbox: Sandbox, status: int, bill: bool | None) -> None:
    """A 5xx is answered with its status and bills only where the fault says so."""
    sandbox.faults.add(Fault("status", status=status, bill=bill))
    assert post(sandbox).status_code == status
    assert sandbox.bill().nanodollars == (COST if bill else 0)
    assert sandbox.received()[-1].nanodollars == (COST if bill else 0)


@pytest.mark.parametrize("match", [None, "poison"])
def test_refuse_resets_before_an_answer(sandbox: Sandbox, match: str | None) -> None:
    """The connection is reset without a byte and nothing is billed."""
    sandbox.faults.add(Fault("refuse", match=match))
    with pytest.raises((httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)):
        post(sandbox)
    assert sandbox.bill().nanodollars == 0
    assert (sandbox.received()[-1].status, sandbox.received()[-1].fault) == (0, "refuse")
    assert post(sandbox).status_code == 200


def test_hang_bills_and_says_nothing(sandbox: Sandbox) -> None:
    """The client's time-out strikes after the call was billed; a released call is answered."""
    sandbox.faults.add(Fault("hang"))
    with pytest.raises(httpx.ReadTimeout):
        post(sandbox, timeout=0.1)
    asyncio.run(until(lambda: sandbox.bill().calls))  # who gives up may be faster than the provider
    assert sandbox.bill().nanodollars == COST
    sandbox.faults.add(Fault("hang", seconds=0.05))
    assert post(sandbox).status_code == 200
    assert sandbox.bill().nanodollars == 2 * COST


def test_reset_in_mid_body(sandbox: Sandbox) -> None:
    """Half of the body arrives, then the connection is reset; the call was billed."""
    sandbox.faults.add(Fault("reset"))
    got = 0
    with httpx.stream(
        "POST", f"{sandbox.url}/openai/v1/embeddings", json={"model": MODEL, "input": TEXTS},
        headers={"authorization": "Bearer any"},
    ) as answer:  # fmt: skip
        assert answer.status_code == 200
        length = int(answer.headers["content-length"])
        parts = answer.iter_raw()
        with pytest.raises(httpx.ReadError):  # noqa: PT012  # the parts before the reset are counted
            while part := next(parts, b""):
                got += len(part)
    assert 0 < got < length
    assert sandbox.bill().nanodollars == COST


def test_bodies_that_are_not_json(sandbox: Sandbox) -> None:
    """Half a JSON and an HTML page come with status 200, complete as HTTP, and are billed."""
    sandbox.faults.add(Fault("half_json"), Fault("html"))
    for kind in ("application/json", "text/html; charset=utf-8"):
        answer = post(sandbox)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    assert sandbox.bill().nanodollars == 2 * COST


def test_drip_sends_a_byte_at_a_time(sandbox: Sandbox) -> None:
    """Bytes come one by one; the client can leave and the sandbox goes on serving others."""
    sandbox.faults.add(Fault("drip", seconds=0.02))
    with httpx.stream(
        "POST", f"{sandbox.url}/openai/v1/embeddings", json={"model": MODEL, "input": TEXTS},
        headers={"authorization": "Bearer any"},
    ) as answer:  # fmt: skip
        parts = []
        for part in answer.iter_raw():
            parts.append(part)
            if len(parts) == 3:
                break
    assert b"".join(parts).startswith(b'{"o')
    assert sum(map(len, parts)) < 100  # three of thousands; a busy client finds several bytes at a time
    assert post(sandbox).status_code == 200
    assert sandbox.bill().nanodollars == 2 * COST


def test_sleep_delays_and_latency_is_a_floor(sandbox: Sandbox) -> None:
    """A sleeping call takes at least its seconds, and every call at least the latency."""
    sandbox.faults.add(Fault("sleep", seconds=0.1))
    start = time.monotonic()
    assert post(sandbox).status_code == 200
    assert time.monotonic() - start >= 0.1
    sandbox.configure(latency_ms=60)
    start = time.monotonic()
    assert post(sandbox).status_code == 200
    assert time.monotonic() - start >= 0.06


@pytest.mark.parametrize(("kind", "count"), [("one_short", 3), ("one_too_many", 5)])
def test_wrong_number_of_vectors(sandbox: Sandbox, kind: Any, count: int) -> None:
    """One vector fewer, one more."""
    sandbox.faults.add(Fault(kind))
    assert len(post(sandbox).json()["data"]) == count
    assert sandbox.bill().nanodollars == COST


def test_index_faults(sandbox: Sandbox) -> None:
    """Shuffled: right by index and wrong by position. Doubled: an index twice. Missing: none."""
    wanted = expected_vectors(f"openai/{MODEL}", TEXTS)
    sandbox.faults.add(Fault("shuffled_index"), Fault("doubled_index"), Fault("missing_index"))
    shuffled = post(sandbox)
    order = [item["index"] for item in shuffled.json()["data"]]
    assert order != sorted(order)
    for index, row in zip(order, rows(shuffled), strict=True):
        np.testing.assert_array_equal(row, wanted[index])
    assert sorted(item["index"] for item in post(sandbox).json()["data"]) == [0, 0, 1, 2]
    assert all("index" not in item for item in post(sandbox).json()["data"])
    assert sandbox.bill().nanodollars == 3 * COST


@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.parametrize("kind", ["nan", "infinity", "null", "zeros", "wrong_size", "broken_base64"])
def test_bad_rows_are_bad_in_one_place(sandbox: Sandbox, kind: Any, form: str) -> None:
    """The row of the matched text is spoilt, the others are right, the call is billed."""
    sandbox.faults.add(Fault(kind, match="poison"))
    data = json.loads(post(sandbox, form=form).content)["data"]
    wanted = expected_vectors(f"openai/{MODEL}", TEXTS)
    for i in (0, 1, 3):
        given = data[i]["embedding"]
        row = np.frombuffer(base64.b64decode(given), dtype="<f4") if form == "base64" else given
        np.testing.assert_allclose(row, wanted[i], atol=1e-7)
    bad = data[2]["embedding"]
    if kind == "null":
        assert bad is None
    elif kind == "broken_base64":
        with pytest.raises(ValueError, match=r"base64|padding|data"):
            base64.b64decode(bad, validate=True)
    else:
        row = np.frombuffer(base64.b64decode(bad), dtype="<f4") if form == "base64" else np.array(bad)
        assert {
            "nan": lambda: math.isnan(row[0]) and np.isfinite(row[1:]).all(),
            "infinity": lambda: math.isinf(row[0]),
            "zeros": lambda: len(row) == 1536 and not row.any(),
            "wrong_size": lambda: len(row) == 1535,
        }[kind]()
    assert sandbox.bill().nanodollars == COST


def test_wrong_model_and_overbill(sandbox: Sandbox) -> None:
    """The answer names another model; ten times the tokens are reported and billed."""
    sandbox.faults.add(Fault("wrong_model"), Fault("overbill"))
    assert post(sandbox).json()["model"] != MODEL
    answer = post(sandbox).json()
    assert answer["usage"]["total_tokens"] == 10 * TOKENS
    assert sandbox.bill().nanodollars == COST + 10 * COST
    assert sandbox.bill().tokens == 11 * TOKENS


def test_faults_on_the_other_wires(sandbox: Sandbox) -> None:
    """Cohere and Voyage show the same faults in their own forms."""
    sandbox.faults.add(Fault("nan", provider="cohere"), Fault("one_short", provider="voyage"), Fault("rate_limited"))
    with httpx.Client() as inner:
        client = cohere.ClientV2(base_url=f"{sandbox.url}/cohere", api_key="any", httpx_client=inner, max_retries=0)
        found = client.embed(
            model="embed-v4.0", texts=TEXTS, input_type="search_query", embedding_types=["float"]
        ).embeddings.float_
        assert found is not None
        assert math.isnan(found[2][0])
    voyage = voyageai.Client(base_url=f"{sandbox.url}/voyage/v1", api_key="any")
    assert len(voyage.embed(TEXTS, model="voyage-4").embeddings) == 3
    with pytest.raises(voyageai.error.RateLimitError):
        voyage.embed(TEXTS, model="voyage-4")


def test_the_recorder_tells_what_was_sent(sandbox: Sandbox) -> None:
    """Time, provider, model, number of texts and status of each arrival, in order."""
    start = time.monotonic()
    post(sandbox)
    post(sandbox, model="nonsense")
    one, two = sandbox.received()
    assert start < one.at < two.at < time.monotonic()
    assert (one.provider, one.operation, one.model, one.texts, one.tokens) == (
        "openai", "POST /embeddings", f"openai/{MODEL}", 4, TOKENS
    )  # fmt: skip
    assert (one.status, two.status, two.nanodollars) == (200, 404, 0)
    assert len(one.digests) == 4


def test_request_and_token_limits_refill(sandbox: Sandbox) -> None:
    """A spent bucket gives 429 with both headers, and the wait that it names is enough."""
    sandbox.configure(requests_per_minute=30)
    codes = []
    with httpx.Client(headers={"authorization": "Bearer any"}) as client:
        while 429 not in codes and len(codes) < 60:
            answer = client.post(f"{sandbox.url}/openai/v1/embeddings", json={"model": MODEL, "input": "a"})
            codes.append(answer.status_code)
        assert len(codes) > 30
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) in {1, 2}
        assert 1 <= int(answer.headers["retry-after-ms"]) <= 2000
    assert sandbox.bill().calls == codes.count(200)
    sandbox.configure(requests_per_minute=None, tokens_per_minute=60)
    assert post(sandbox, input=" a" * 60).status_code == 200
    answer = post(sandbox)
    assert answer.status_code == 429
    assert 3_000 <= int(answer.headers["retry-after-ms"]) <= 6_000
    assert post(sandbox, input=" a" * 61).headers["retry-after"] == "60"


async def test_calls_in_flight_are_capped(sandbox: Sandbox) -> None:
    """Of five calls at once, two are served and three are told to come back; the next finds a place again."""
    sandbox.configure(max_in_flight=2)
    sandbox.faults.add(Fault("hang", times=2))
    async with httpx.AsyncClient(headers={"authorization": "Bearer any"}) as client:

        async def call() -> int:
            body = {"model": MODEL, "input": "a"}
            return (await client.post(f"{sandbox.url}/openai/v1/embeddings", json=body)).status_code

        calls = {asyncio.ensure_future(call()) for _ in range(5)}
        await until(lambda: sum(one.done() for one in calls) == 3)
        assert {one.result() for one in calls if one.done()} == {429}
        sandbox.release()
        assert sorted(await asyncio.gather(*calls)) == [200, 200, 429, 429, 429]
        for _ in range(5):
            assert await call() == 200
    assert sandbox.bill().calls == 7


def test_everything_works_over_http_too(sandbox: Sandbox) -> None:
    """Bill, faults, configuration, arrivals and reset are reachable from another process."""
    with httpx.Client(base_url=sandbox.url) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/sandbox/faults", json=[{"kind": "status", "status": 502}]).status_code == 200
        assert client.get("/sandbox/faults").json()["faults"][0]["status"] == 502
        assert client.post("/sandbox/faults", json={"kind": "nonsense"}).status_code == 400
        assert post(sandbox).status_code == 502
        assert client.post("/sandbox/config", json={"latency_ms": 1}).json()["latency_ms"] == 1
        assert client.post("/sandbox/config", json={"vectors": "x"}).status_code == 400
        assert post(sandbox).status_code == 200
        bill = client.get("/sandbox/bill").json()
        assert (bill["nanodollars"], bill["calls"], bill["requests"]) == (COST, 1, 2)
        assert set(bill["digests"].values()) == {1}
        assert [entry["status"] for entry in client.get("/sandbox/received").json()] == [502, 200]
        client.post("/sandbox/faults", json={"kind": "hang"})
        client.delete("/sandbox/faults")
        client.post("/sandbox/reset")
        assert client.get("/sandbox/bill").json()["nanodollars"] == 0
        assert client.get("/sandbox/faults").json() == {"faults": []}
