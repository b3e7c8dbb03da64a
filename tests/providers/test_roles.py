"""What tells a query from a document: prompts of local models, prefixes and extra fields of endpoints; their keys."""

from __future__ import annotations

import contextlib
import json
import threading
import types
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import splitting, tokens
from router.config import Endpoint, load_settings
from router.domain.catalog import read_catalog
from router.domain.errors import BadInput, NotConfigured
from router.domain.values import Model
from router.engine import Router
from router.library import Library
from router.prompts import prompts_of
from router.providers import local, precision
from router.providers.base import EmbedCall
from router.providers.batch import request_line, shared_params
from router.providers.local import LocalProvider, choose_device, weights_of
from router.store.entries import claim_kind
from router.store.vectors import VectorKey, vector_key

TEXTS = ["Lift of a thin wing.", "Boundary layers", "a third text, which is rather longer than the others are"]
PROMPTS = {"query": "Represent this question: ", "document": "passage: "}
NOMIC = 'prefix = { query = "search_query: ", document = "search_document: " }\n'
EXTRA = 'extra = { query = { task = "retrieval.query" }, document = { task = "retrieval.passage", late = true } }\n'
MODEL = """
[endpoints.mine]
base_url = "{url}"
encoding = "float"

[[models]]
id = "mine/nomic"
space = "mine/nomic"
dimensions = 4
tokenizer = "bytes"
limits = {{ texts_per_call = 64, tokens_per_text = 2000 }}
prices = [{{ since = 2026-01-01, now = "1", source = "a test", checked = 2026-01-01 }}]
"""
LOCAL = """
[[models]]
id = "local/mine"
name = "{folder}"
space = "local/mine"
dimensions = {dimensions}
tokenizer = "bytes"
limits = {{ texts_per_call = 64, tokens_per_text = 2000 }}
"""


# ---- endpoints ---------------------------------------------------------------------------------


class Counting(ThreadingHTTPServer):
    """Answers OpenAI's wire with vectors of four numbers drawn from the text, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.bodies: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Answer(BaseHTTPRequestHandler):
    """One call."""

    server: Counting

    def do_POST(self) -> None:
        """Keep the body, answer with usage."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        rows = [[len(t), 1 + sum(t.encode()) % 97, 1, 1] for t in body["input"]]
        data = [{"index": i, "embedding": row} for i, row in enumerate(rows)]
        said = json.dumps({"data": data, "model": body["model"], "usage": {"prompt_tokens": 9}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Counting]:
    """A counting server on loopback."""
    with Counting() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_prefix_and_extra_fields_arrive(tmp_path: Path, server: Counting) -> None:
    """Each role's prefix stands before every text, its fields in the body; both roles are paid for and kept apart."""
    (tmp_path / "router.toml").write_text(MODEL.format(url=server.url) + NOMIC + EXTRA)
    async with Router.open(tmp_path, env={}) as router:
        document = await router.embed(TEXTS, model="mine/nomic", role="document")
        query = await router.embed(TEXTS, model="mine/nomic", role="query")
        again = await router.embed(TEXTS, model="mine/nomic", role="query")
    assert [body["input"] for body in server.bodies] == [
        [f"search_document: {text}" for text in TEXTS],
        [f"search_query: {text}" for text in TEXTS],
    ]
    first, second = server.bodies
    assert (first["task"], first["late"], second["task"], "late" in second) == (
        "retrieval.passage", True, "retrieval.query", False,
    )  # fmt: skip
    assert (query.counts.cache, again.counts.cache) == (0, len(TEXTS))
    assert not np.allclose(document.vectors, query.vectors)


async def test_chunks_leave_room_for_the_prefix(tmp_path: Path, server: Counting) -> None:
    """A chunk of a collection, as long as the model lets it be, goes in one piece with the prefix before it."""
    (tmp_path / "router.toml").write_text(MODEL.format(url=server.url) + NOMIC, "utf-8")
    (tmp_path / "text.txt").write_text(" ".join(f"word{n}" for n in range(900)), "utf-8")
    async with Router.open(tmp_path, env={}) as router:
        model = router.catalog.get("mine/nomic")
        most = tokens.room(model, "document")
        assert most is not None
        assert most < 2000
        async with contextlib.aclosing(Library(router)) as library:
            with pytest.raises(BadInput, match=f"takes {most:,} tokens, not 2,000"):
                await library.create("too long", policy="quality", model=model.id, chunk_tokens=2000)
            await library.create("notes", policy="quality", model=model.id, chunk_tokens=most)
            await library.add_files("notes", [tmp_path / "text.txt"])
            quote = await library.quote("notes")
            (chosen,) = [one for one in quote.candidates if one.verdict.model.id == model.id]
            assert (chosen.warning, chosen.verdict.texts) == ("", 4)


async def test_a_changed_prefix_is_another_vector(tmp_path: Path, server: Counting) -> None:
    """After the prefix was changed texts are embedded anew; back under the old one they are found again."""
    file = tmp_path / "router.toml"
    plain = MODEL.format(url=server.url)
    cached = []
    for text in (plain, plain + NOMIC, plain + NOMIC.replace("search_document: ", "doc: "), plain + NOMIC, plain):
        file.write_text(text)
        async with Router.open(tmp_path, env={}) as router:
            cached.append((await router.embed(TEXTS, model="mine/nomic")).counts.cache)
    assert cached == [0, 0, 0, 3, 3]


async def test_a_prefix_is_held_and_quoted(tmp_path: Path, server: Counting) -> None:
    """What a call may cost counts the prefix of every text."""
    most = []
    for extra in ("", NOMIC):
        (tmp_path / "router.toml").write_text(MODEL.format(url=server.url) + extra)
        async with Router.open(tmp_path, env={}) as router:
            quote = await router.quote(TEXTS, model="mine/nomic")
            most.append(next(line.verdict.tokens for line in quote.lines if line.verdict.model.id == "mine/nomic"))
    assert most[1] - most[0] == len(TEXTS) * len("search_document: ")


def model_of(tmp_path: Path, more: str, **changes: Any) -> Model:
    """The model of a `router.toml`."""
    (tmp_path / "router.toml").write_text(MODEL.format(url="http://127.0.0.1:9/v1") + more)
    return replace(load_settings(tmp_path, env={}).catalog.get("mine/nomic"), **changes)


def test_keys_without_a_prefix_are_those_of_version_one(tmp_path: Path) -> None:
    """Vectors and claims that were written before there were prefixes are still found."""
    catalog = load_settings(tmp_path, env={}).catalog
    small, lite = catalog.get("openai/text-embedding-3-small"), catalog.get("voyage/voyage-4-lite")
    key = VectorKey(space=small.space, model=small.id, role="", variant="whole", dimensions=1536)
    assert vector_key(small, "query", "whole") == key
    assert (vector_key(lite, "query", "whole").role, vector_key(lite, "document", "cut").role) == ("query", "document")
    assert (claim_kind(small, "query"), claim_kind(lite, "query")) == (f"{small.space}|", "voyage-4|query")
    assert model_of(tmp_path, 'prefix = { query = "", document = "" }\n').role_key("query") == ""


def test_every_prefix_and_field_has_a_key_of_its_own(tmp_path: Path) -> None:
    """No two of them share vectors or claims, even where queries and documents get the same."""
    added = ["", NOMIC, EXTRA, NOMIC + EXTRA, 'prefix = { query = "a", document = "a" }\n']
    models = [model_of(tmp_path, more) for more in added]
    assert len({vector_key(model, "document", "whole") for model in models}) == len(models)
    assert len({claim_kind(model, "document") for model in models}) == len(models)
    assert [model.roles for model in models] == [False, True, True, True, False]


def test_lines_of_a_batch_have_the_prefix(tmp_path: Path) -> None:
    """Batches are made of documents: their prefix and fields are in every line, or said once for Voyage."""
    model = model_of(tmp_path, NOMIC + EXTRA)
    body = json.loads(request_line(Endpoint(name="mine", wire="openai"), model, "id", "a text"))["body"]
    assert (body["input"], body["task"]) == (["search_document: a text"], "retrieval.passage")
    voyage = Endpoint(name="mine", wire="voyage")
    assert json.loads(request_line(voyage, model, "id", "a text"))["body"] == {"input": ["search_document: a text"]}
    assert (shared_params(voyage, model, "document") or {})["task"] == "retrieval.passage"


WORDS = st.lists(
    st.sampled_from(["wing", "naïve", "日本語", "𝔘nicode", "a" * 30, "1.5", "\n\n"]), min_size=30, max_size=90
)


@given(WORDS, st.sampled_from(["query: ", "Represent this sentence: ", "ﷺ "]))
def test_over_long_texts_leave_room_for_the_prefix(words: list[str], prefix: str) -> None:
    """No piece of a split or cut text is longer behind its prefix than the model takes."""
    text = " ".join(words)
    for tokenizer in ("cl100k_base", "wordpiece", "bytes"):
        table = {
            "id": "mine/x", "space": "s", "dimensions": 4, "tokenizer": tokenizer, "prefix": {"query": prefix},
            "limits": {"texts_per_call": 9, "tokens_per_text": 90},
        }  # fmt: skip
        model = read_catalog({"models": [table]}, origin="test").models[0]
        room = tokens.room(model, "query")
        assert room is not None
        pieces = [*splitting.split_evenly(model.tokenizer, text, room), tokens.cut(model.tokenizer, text, room)]
        assert max(tokens.count_for(model, "query", pieces)) <= 90


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("prefix = 'x'\n", "key `prefix`: it must be a table"),
        ("prefix = { query = 3 }\n", "prefix, key `query`: it must be a string"),
        ("prefix = { passage = 'x' }\n", "prefix, key `passage`: unknown key. Known are: document, query"),
        ("extra = { query = 3 }\n", "extra, key `query`: it must be a table"),
        ("extra = { query = { input = 'x' } }\n", "`input` is set by the router"),
        ("extra = { query = { a = [nan] } }\n", "extra, key `query`: it has a date, or a number"),
        ("extra = { query = { a = 2026-01-01 } }\n", "extra, key `query`: it has a date, or a number"),
        (NOMIC + "roles = false\n", "key `roles`: it is false, but"),
        ("roles = true\n", "nothing tells its endpoint a query from a document"),
        ("usage = 'none'\n", "key `usage`: 'none' is not one of stated, absent"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, more: str, says: str) -> None:
    """The message has the file, the table and the key."""
    with pytest.raises(BadInput, match=says) as caught:
        model_of(tmp_path, more)
    assert caught.value.message.startswith("router.toml")


# ---- local models ------------------------------------------------------------------------------


def save_static(folder: Path, **more: Any) -> Path:
    """A static model of 16 dimensions with drawn vectors, saved with its configuration."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    packaged = weights_of("all-MiniLM-L6-v2")
    assert packaged is not None
    tokenizer = Tokenizer.from_file(str(packaged / "tokenizer.json"))
    tokenizer.no_truncation()
    weights = np.random.default_rng(3).standard_normal((tokenizer.get_vocab_size(), 16), dtype=np.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu", **more)
    model.save(str(folder))
    return folder


def save_bert(folder: Path, *, include_prompt: bool, **more: Any) -> Path:
    """A BERT of one layer with drawn weights, whose pooling may leave the prompt out."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    packaged = weights_of("all-MiniLM-L6-v2")
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    raw = folder / "raw"
    BertModel(config).save_pretrained(raw)
    AutoTokenizer.from_pretrained(str(packaged)).save_pretrained(raw)
    modules = [Transformer(str(raw)), Pooling(32, pooling_mode="mean", include_prompt=include_prompt)]
    SentenceTransformer(modules=modules, device="cpu", **more).save(str(folder))
    return folder


async def both(folder: Path, dimensions: int, data: Path) -> None:
    """Ours are the vectors of `encode_query` and `encode_document`, and told apart in the cache."""
    from sentence_transformers import SentenceTransformer

    (data / "router.toml").write_text(LOCAL.format(folder=folder, dimensions=dimensions))
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    async with Router.open(data, env={}) as router:
        for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
            ours = await router.embed(TEXTS, policy="local", model="local/mine", role=role)  # type: ignore[arg-type]
            expected = np.asarray(encode(TEXTS, normalize_embeddings=True))
            assert ours.counts.cache == 0
            assert float(np.sum(ours.vectors * expected, axis=1).min()) > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"prompts": PROMPTS},
        {"prompts": {"query": "only queries: "}},
        {"prompts": {"query": "q: ", "passage": "p: ", "cluster": "c: "}, "default_prompt_name": "cluster"},
    ],
)
async def test_a_local_model_uses_its_own_prompts(tmp_path: Path, more: dict[str, Any]) -> None:
    """As sentence-transformers' own `encode_query` and `encode_document` do, cosine above 0.9999."""
    await both(save_static(tmp_path / "model", **more), 16, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("include_prompt", [True, False])
async def test_a_transformer_uses_its_own_prompts(
    tmp_path: Path, include_prompt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose pooling leaves the prompt's tokens out, which a prompt glued to the text would not tell."""
    monkeypatch.setattr(precision, "LEAST_GAIN", float("inf"))  # float32 stays: bfloat16 is another test's
    await both(save_bert(tmp_path / "model", include_prompt=include_prompt, prompts=PROMPTS), 32, tmp_path)


@pytest.mark.slow
async def test_a_prefix_of_router_toml_goes_before_the_models_own(tmp_path: Path) -> None:
    """`prefix` in the file is what is encoded; an empty one switches the model's prompts off."""
    from sentence_transformers import SentenceTransformer

    folder = save_static(tmp_path / "model", prompts=PROMPTS)
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    for before in ("mine: ", ""):
        text = LOCAL.format(folder=folder, dimensions=16) + f'prefix = {{ query = "{before}", document = "" }}\n'
        (tmp_path / "router.toml").write_text(text)
        async with Router.open(tmp_path, env={}) as router:
            ours = await router.embed(TEXTS, policy="local", model="local/mine", role="query")
        expected = theirs.encode(TEXTS, prompt=before, normalize_embeddings=True)
        assert float(np.sum(ours.vectors * expected, axis=1).min()) > 0.9999


@pytest.mark.slow
async def test_prompts_that_were_not_known_stop_the_model(tmp_path: Path) -> None:
    """A model that was fetched only now may turn out to have prompts: nothing is stored under a key without them."""
    folder = save_static(tmp_path / "model", prompts=PROMPTS)
    (tmp_path / "router.toml").write_text(LOCAL.format(folder=folder, dimensions=16))
    model = replace(load_settings(tmp_path, env={}).catalog.get("local/mine"), prefix={}, roles=False)
    provider = LocalProvider(tmp_path)
    try:
        with pytest.raises(NotConfigured, match="has prompts of its own"):
            await provider.embed(EmbedCall(model=model, texts=("a",), role="query"))
    finally:
        await provider.aclose()


def test_prompts_are_read_without_the_model(tmp_path: Path) -> None:
    """Only `query` and `document` count, a Router module makes two ways, and what cannot be read is named."""
    assert prompts_of(str(tmp_path)) == ({}, False)
    assert prompts_of("nobody/has-fetched-this") == ({}, False)
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "q: ", "document": None, "x": "y"}}))
    assert prompts_of(str(tmp_path)) == ({"query": "q: ", "document": ""}, False)
    file.write_text(json.dumps({"prompts": {"query": ""}, "default_prompt_name": "query"}))
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.base.modules.router.Router"}]))
    assert prompts_of(str(tmp_path)) == ({}, True)
    for broken in ("{", '{"prompts": {"query": 3}}', '{"prompts": {"query": "\\ud800"}}'):
        file.write_text(broken)
        with pytest.raises(BadInput, match=r"config_sentence_transformers\.json"):
            prompts_of(str(tmp_path))


# ---- devices -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("cuda", "mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_device(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str) -> None:
    """CUDA, then MPS, then the CPU; a name is taken as it is."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert (choose_device("auto"), choose_device("cpu")) == (device, "cpu")


@pytest.mark.slow
async def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The setting is in the message, and nothing runs elsewhere in its place."""
    folder = save_static(tmp_path / "model")
    text = '[providers.local]\ndevice = "xpu:7"\n' + LOCAL.format(folder=folder, dimensions=16)
    (tmp_path / "router.toml").write_text(text)
    async with Router.open(tmp_path, env={}) as router:
        with pytest.raises(NotConfigured, match=r"'xpu:7' of \[providers.local\] in router.toml"):
            await router.embed(TEXTS, policy="local", model="local/mine")


@pytest.mark.slow
async def test_on_another_device_one_thread_encodes_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on a GPU is not copied for each core, and gets whole calls in batches of its own size."""
    seen: list[tuple[int, int]] = []

    class Gpu:
        device = type("Device", (), {"type": "cuda"})
        prompts = types.MappingProxyType[str, str]({})

        def encode_document(self, texts: list[str], **how: Any) -> Any:
            seen.append((len(texts), how["batch_size"]))
            return np.ones((len(texts), 384), dtype=np.float32)

    monkeypatch.setattr(precision, "load", lambda *_: Gpu())
    model = load_settings(tmp_path, env={}).catalog.get("local/all-MiniLM-L6-v2")
    provider = LocalProvider(tmp_path, "cpu")
    try:
        call = EmbedCall(model=model, texts=tuple(f"text {i}" for i in range(64)), role="document")
        await provider.embed(call)
        seen.clear()
        await provider.embed(call)
    finally:
        await provider.aclose()
    assert seen == [(64, local.GPU_BATCH)]
