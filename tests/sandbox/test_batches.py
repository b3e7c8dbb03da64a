"""Files and batches end to end, through the OpenAI SDK, for OpenAI and for Voyage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from router.sandbox import Fault, Sandbox, expected_vector

MODEL = "text-embedding-3-small"
TEXTS = [f"text number {i}" for i in range(10)]  # four tokens each
HALF_PRICE = 4 * 10


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{sandbox.url}/openai/v1", api_key="any", max_retries=0) as found:
        yield found


def lines(texts: list[Any], **body: Any) -> bytes:
    """A batch file with one text a line."""
    return b"\n".join(
        json.dumps(
            {
                "custom_id": f"id-{i}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": MODEL, "input": text} | body,
            }
        ).encode()
        for i, text in enumerate(texts)
    )


async def submit(client: openai.AsyncOpenAI, data: bytes, window: Any = "24h", **more: Any) -> Any:
    """Upload and submit."""
    file = await client.files.create(file=("batch.jsonl", data), purpose="batch")
    assert file.bytes == len(data)
    return await client.batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window=window, **more
    )


async def results(client: openai.AsyncOpenAI, file: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file."""
    if file is None:
        return []
    return [json.loads(line) for line in (await client.files.content(file)).text.splitlines()]


async def test_a_batch_runs_through_its_states_and_is_billed_once(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """Validating to completed; results in another order, each with its own vector; half price, once."""
    batch = await submit(client, lines(TEXTS), metadata={"job": "7"})
    assert (batch.status, batch.metadata) == ("validating", {"job": "7"})
    assert sandbox.bill().nanodollars == 0
    sandbox.advance(batch.id, "in_progress", 3)
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed, batch.output_file_id) == ("in_progress", 3, None)
    assert sandbox.bill().nanodollars == 3 * HALF_PRICE
    sandbox.advance(batch.id, "finalizing")
    assert (await client.batches.retrieve(batch.id)).status == "finalizing"
    assert sandbox.bill().nanodollars == 10 * HALF_PRICE
    sandbox.advance(batch.id, "completed")
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
    assert batch.request_counts.completed == batch.request_counts.total == 10
    found = await results(client, batch.output_file_id)
    assert sorted(line["custom_id"] for line in found) == sorted(f"id-{i}" for i in range(10))
    assert [line["custom_id"] for line in found] != [f"id-{i}" for i in range(10)]
    for line in found:
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        body = line["response"]["body"]
        text = TEXTS[int(line["custom_id"].removeprefix("id-"))]
        np.testing.assert_allclose(body["data"][0]["embedding"], expected_vector(f"openai/{MODEL}", text), atol=1e-7)
        assert body["usage"]["total_tokens"] == 4
    assert await results(client, batch.output_file_id) == found
    bill = sandbox.bill()
    assert (bill.nanodollars, bill.calls, bill.tokens, bill.most_often) == (10 * HALF_PRICE, 10, 40, 1)
    with pytest.raises(httpx.HTTPStatusError):
        httpx.post(f"{sandbox.url}/sandbox/batches/{batch.id}/advance", json={"status": "failed"}).raise_for_status()


async def test_the_clock_moves_batches_too(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """With no time to take, a batch is completed when it is asked for."""
    sandbox.configure(batch_seconds=0)
    batch = await submit(client, lines(TEXTS, encoding_format="base64"))
    assert sandbox.bill().nanodollars == 10 * HALF_PRICE
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert isinstance((await results(client, batch.output_file_id))[0]["response"]["body"]["data"][0]["embedding"], str)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"{not json", "invalid_json_line"),
        (lines(["a"]) + b"\n" + lines(["b"]), "duplicate_custom_id"),
        (lines(["a"]).replace(b"/v1/embeddings", b"/v1/other"), "invalid_url"),
        (lines(["a"]).replace(b"custom_id", b"another"), "missing_required_parameter"),
        (lines(["a"], model="nonsense"), "model_not_found"),
        (lines([["a"] * 2000] * 26), "too_many_inputs"),
        (b"\n".join(b'{"custom_id":"%d","body":1}' % i for i in range(50_001)), "too_many_requests"),
    ],
)
async def test_what_cannot_be_read_fails_at_validation(
    sandbox: Sandbox, client: openai.AsyncOpenAI, data: bytes, code: str
) -> None:
    """A batch with a flaw in its form fails as a whole, says why, and bills nothing."""
    batch = await submit(client, data)
    assert batch.status == "validating"
    sandbox.advance(batch.id, "completed")
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert code in {error.code for error in batch.errors.data}
    assert batch.failed_at is not None
    assert sandbox.bill().nanodollars == 0


async def test_bad_requests_go_to_the_error_file(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """One empty text, one poisoned and one that meets a 500 fail alone; the rest is done and billed."""
    sandbox.faults.add(Fault("poison", match="poison", times=None), Fault("status", match="number 5"))
    batch = await submit(client, lines([*TEXTS, "", "poison"]))
    sandbox.advance(batch.id, "completed")
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 9, 3)
    errors = {line["custom_id"]: line for line in await results(client, batch.error_file_id)}
    assert {key: line["response"]["status_code"] for key, line in errors.items()} == {
        "id-10": 400, "id-11": 400, "id-5": 500
    }  # fmt: skip
    assert errors["id-11"]["response"]["body"]["error"]["code"] == "content_rejected"
    assert len(await results(client, batch.output_file_id)) == 9
    assert sandbox.bill().nanodollars == 9 * HALF_PRICE


async def test_an_expired_batch_bills_what_it_finished(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """What was done is in the output and billed; what was not is in the error file as `batch_expired`."""
    batch = await submit(client, lines(TEXTS))
    sandbox.advance(batch.id, "expired", 4)
    batch = await client.batches.retrieve(batch.id)
    assert batch.status == "expired"
    assert batch.expired_at is not None
    done = await results(client, batch.output_file_id)
    missed = await results(client, batch.error_file_id)
    assert (len(done), len(missed)) == (4, 6)
    assert {line["error"]["code"] for line in missed} == {"batch_expired"}
    assert {line["custom_id"] for line in done + missed} == {f"id-{i}" for i in range(10)}
    assert sandbox.bill().nanodollars == 4 * HALF_PRICE


async def test_a_cancelled_batch_bills_what_it_finished(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """Cancelling, then cancelled, with the finished part in the output; a second cancel is refused."""
    batch = await submit(client, lines(TEXTS))
    sandbox.advance(batch.id, "in_progress", 2)
    batch = await client.batches.cancel(batch.id)
    assert (batch.status, batch.output_file_id) == ("cancelling", None)
    sandbox.advance(batch.id, "cancelled")
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed) == ("cancelled", 2)
    assert len(await results(client, batch.output_file_id)) == 2
    assert sandbox.bill().nanodollars == 2 * HALF_PRICE
    with pytest.raises(openai.ConflictError):
        await client.batches.cancel(batch.id)


async def test_a_batch_cancelled_at_once_has_no_files(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """Nothing was done: no output, no errors, no bill."""
    batch = await submit(client, lines(TEXTS))
    await client.batches.cancel(batch.id)
    sandbox.configure(batch_seconds=0)
    batch = await client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)
    assert sandbox.bill().nanodollars == 0


async def test_results_can_be_tampered_with(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """Doubled, unknown, missing results and one without custom_id; bad vectors in a line."""
    kinds: list[tuple[Any, Any]] = [
        ("batch_doubled", lambda ids: len(ids) == 11 and len(set(ids)) == 10),
        ("batch_unknown", lambda ids: len(ids) == 11 and len(set(ids) - {f"id-{i}" for i in range(10)}) == 1),
        ("batch_missing", lambda ids: len(ids) == 9),
        ("batch_no_custom_id", lambda ids: ids.count(None) == 1 and len(ids) == 10),
    ]
    for kind, holds in kinds:
        sandbox.faults.add(Fault(kind))
        batch = await submit(client, lines(TEXTS))
        sandbox.advance(batch.id, "completed")
        batch = await client.batches.retrieve(batch.id)
        ids = [line.get("custom_id") for line in await results(client, batch.output_file_id)]
        assert holds(ids), kind
    sandbox.faults.add(Fault("zeros", match="number 3"), Fault("batch_failed", skip=1))
    batch = await submit(client, lines(TEXTS))
    sandbox.advance(batch.id, "completed")
    batch = await client.batches.retrieve(batch.id)
    for line in await results(client, batch.output_file_id):
        zero = not any(line["response"]["body"]["data"][0]["embedding"])
        assert zero == (line["custom_id"] == "id-3")
    batch = await submit(client, lines(TEXTS))
    sandbox.advance(batch.id, "completed")
    assert (await client.batches.retrieve(batch.id)).status == "failed"


async def test_batches_are_listed_newest_first_in_pages(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """`limit` and `after` walk through all of them once."""
    made = [(await submit(client, lines(["a"]))).id for _ in range(5)]
    page = await client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == [made[4], made[3]]
    assert page.has_more
    assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]
    rest = await client.batches.list(limit=2, after=made[1])
    assert [batch.id for batch in rest.data] == [made[0]]
    assert not rest.has_more


async def test_files_are_kept_and_deleted(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """A file can be read back, and is gone after its deletion."""
    data = lines(TEXTS)
    file = await client.files.create(file=("batch.jsonl", data), purpose="batch")
    assert (await client.files.retrieve(file.id)).filename == "batch.jsonl"
    assert (await client.files.content(file.id)).content == data
    assert (await client.files.delete(file.id)).deleted
    for ask in (client.files.retrieve, client.files.content):
        with pytest.raises(openai.NotFoundError):
            await ask(file.id)
    with pytest.raises(openai.BadRequestError):
        await client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")


async def test_a_lost_reply_leaves_the_batch_behind(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """Faults on the batch paths: a submission whose answer never comes exists all the same."""
    sandbox.faults.add(Fault("reset", on="POST /batches"), Fault("status", status=503, on="GET /batches"))
    with pytest.raises(openai.APIConnectionError):
        await submit(client, lines(TEXTS), metadata={"job": "7"})
    with pytest.raises(openai.InternalServerError):
        await client.batches.list()
    assert [batch.metadata async for batch in client.batches.list()] == [{"job": "7"}]
    assert [entry.operation for entry in sandbox.received()] == [
        "POST /files", "POST /batches", "GET /batches", "GET /batches"
    ]  # fmt: skip


async def test_chat_batches_give_a_reply_a_line(sandbox: Sandbox, client: openai.AsyncOpenAI) -> None:
    """Chat completions go the same way, unbilled; a list of lists fails alone."""
    good = {"model": "gpt-any", "messages": [{"role": "user", "content": "Hello"}]}
    bodies = [good, good | {"messages": [good["messages"]]}]
    data = b"\n".join(
        json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
        for i, body in enumerate(bodies)
    )
    file = await client.files.create(file=("chat.jsonl", data), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    sandbox.advance(batch.id, "completed")
    batch = await client.batches.retrieve(batch.id)
    (done,) = await results(client, batch.output_file_id)
    (failed,) = await results(client, batch.error_file_id)
    assert done["response"]["body"]["choices"][0]["message"]["content"].startswith("Reply")
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("1", 400)
    assert sandbox.bill().nanodollars == 0


@pytest.mark.parametrize("shared", [True, False])
async def test_voyage_batches_cost_two_thirds(sandbox: Sandbox, shared: bool) -> None:
    """Through the OpenAI SDK at Voyage's URL, with the model in the lines or beside them; 67 % a request."""
    parameters = {"model": "voyage-4", "input_type": "document"}
    data = b"\n".join(
        json.dumps({"custom_id": f"id-{i}", "body": {"input": [text]} | ({} if shared else parameters)}).encode()
        for i, text in enumerate(TEXTS)
    )
    async with openai.AsyncOpenAI(base_url=f"{sandbox.url}/voyage/v1", api_key="any", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError):
            await submit(client, data)
        batch = await submit(client, data, "12h", extra_body={"request_params": parameters} if shared else None)
        sandbox.advance(batch.id, "completed")
        batch = await client.batches.retrieve(batch.id)
        found = await results(client, batch.output_file_id)
    assert len(found) == 10
    for line in found:
        text = TEXTS[int(line["custom_id"].removeprefix("id-"))]
        given = line["response"]["body"]["data"][0]["embedding"]
        np.testing.assert_allclose(given, expected_vector("voyage/voyage-4", text, "document"), atol=1e-7)
    assert sandbox.bill().nanodollars == 10 * 161  # ceil(4 tokens * 60 nanodollars * 0.67)
