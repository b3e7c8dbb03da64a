"""Whether a reply can be trusted: the one check that stands between a provider and the cache."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from router.config import load_settings
from router.domain.errors import BadReply
from router.domain.values import Limits, Model
from router.providers.base import EmbedCall, Reply, check

SIZE = 4
NUMBERS = st.floats(min_value=-3, max_value=3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)


def model(**changes: Any) -> Model:
    """A model of four dimensions."""
    fields: dict[str, Any] = {
        "id": "acme/one",
        "provider": "acme",
        "name": "one",
        "space": "acme/one",
        "dimensions": SIZE,
        "default_dimensions": SIZE,
        "tokenizer": "bytes",
        "limits": Limits(texts_per_call=100),
    }
    return Model(**(fields | changes))


def call_of(n: int, **changes: Any) -> EmbedCall:
    """A call of n texts."""
    return EmbedCall(model=model(**changes), texts=tuple(f"text {i}" for i in range(n)), role="document")


def wire(vectors: Any, form: str) -> list[Any]:
    """Vectors as a wire carries them."""
    if form == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return [row.tolist() for row in vectors]


good = arrays.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(SIZE)), elements=NUMBERS).filter(
    lambda rows: bool(np.abs(rows).max(axis=1).min() > 0)
)
forms = st.sampled_from(["base64", "float"])


@given(rows=good, form=forms, data=st.data())
def test_every_text_gets_its_own_vector_in_any_order(rows: Any, form: str, data: st.DataObject) -> None:
    """Whatever order the reply comes in, position i holds text i's vector, at unit length."""
    n = len(rows)
    order = data.draw(st.permutations(range(n)))
    sent = wire(rows[order], form)
    found = check(call_of(n), Reply(vectors=sent, indices=list(order), tokens=n, model="one"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1.1e-3)


def certain(indices: list[Any]) -> bool:
    """Whether indices say for certain whose each row is: a row without one is its position's, if nothing speaks
    against that."""
    n = len(indices)
    there = [index for index in indices if index is not None]
    if any(type(index) is not int or not 0 <= index < n for index in there) or len(set(there)) < len(there):
        return False
    without = {place for place, index in enumerate(indices) if index is None}
    ordered = all(index in (None, place) for place, index in enumerate(indices))
    return without == set(range(n)) - set(there) and (len(without) < 2 or ordered)


odd = st.one_of(st.none(), st.integers(-2, 8), st.booleans(), st.floats(), st.text(max_size=2))
inorder = st.integers(1, 6).flatmap(lambda n: st.tuples(*(st.sampled_from([None, i]) for i in range(n))).map(list))
shuffled = st.integers(1, 6).flatmap(lambda n: st.permutations([*range(n - 1), None]))


@given(indices=st.one_of(st.lists(odd, min_size=1, max_size=6), inorder, shuffled), form=forms)
@example(indices=[None, 1, 2], form="float").via("Gemini's: the index is left out where it is 0")
@example(indices=[None, None], form="base64").via("no row has an index")
@example(indices=[1, 0, None], form="float").via("the one row without an index stands where it must")
@example(indices=[None, 0], form="float").via("its position is another row's index")
@example(indices=[2, None, 0, None], form="float").via("shuffled, and two could be either's")
def test_a_row_without_an_index_counts_by_position_if_that_is_certain(indices: list[Any], form: str) -> None:
    """Doubled, odd and out-of-range indices are never guessed, nor whose a row is that has none among shuffled ones."""
    rows = np.eye(8, dtype=np.float32)[: len(indices)]
    call = call_of(len(indices), dimensions=8)
    reply = Reply(vectors=wire(rows, form), indices=indices, tokens=3, model=None)
    if certain(indices):
        places = [place if index is None else index for place, index in enumerate(indices)]
        np.testing.assert_array_equal(check(call, reply)[places], rows)
    else:
        with pytest.raises(BadReply, match="index"):
            check(call, reply)


BROKEN: dict[str, Any] = {
    "NaN": [1.0, float("nan"), 0.0, 0.0],
    "infinity": [1.0, float("inf"), 0.0, 0.0],
    "too large": [1e300, 0.0, 0.0, 0.0],
    "too large to square": [3e38, 3e38, 0.0, 0.0],
    "zeros": [0.0] * SIZE,
    "too small": [1e-30] * SIZE,
    "null in it": [None, 1.0, 0.0, 0.0],
    "null": None,
    "short": [1.0] * (SIZE - 1),
    "long": [1.0] * (SIZE + 1),
    "empty": [],
    "nested": [[1.0] * SIZE],
    "text": ["a", "b", "c", "d"],
    "a number": 1.0,
    "an object": {"float": [1.0] * SIZE},
    "broken base64": "%%% not base64 %%%",
    "short base64": base64.b64encode(b"\0" * 4 * (SIZE - 1)).decode(),
    "not ASCII": "é" * 24,
    "empty base64": "",
    "zeros in base64": base64.b64encode(b"\0" * 4 * SIZE).decode(),
    "NaN in base64": base64.b64encode(np.full(SIZE, np.nan, "<f4").tobytes()).decode(),
}


@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_broken_vector_sinks_the_reply(what: str, form: str, at: int) -> None:
    """One vector that is not right, anywhere, and nothing of the reply is taken; what was billed is told."""
    sent = wire(np.eye(SIZE, dtype=np.float32)[:3], form)
    sent[at] = BROKEN[what]
    with pytest.raises(BadReply) as caught:
        check(call_of(3), Reply(vectors=sent, indices=[0, 1, 2], tokens=9, model=None))
    assert caught.value.billed == "yes"
    assert caught.value.tokens is not None
    assert caught.value.tokens == 9


@given(cut=st.integers(0, SIZE), more=st.integers(0, SIZE))
def test_sizes_that_only_add_up_are_refused(cut: int, more: int) -> None:
    """Base64 rows whose lengths differ are refused, even where their sum is right."""
    if cut == 0 and more == 0:
        return
    rows = [np.ones(SIZE - cut, "<f4"), np.ones(SIZE + more, "<f4")]
    with pytest.raises(BadReply):
        check(call_of(2), Reply(vectors=wire(rows, "base64"), indices=None, tokens=None, model=None))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_wrong_number_of_vectors_is_refused(n: int) -> None:
    """One short or one too many: which text has none cannot be known."""
    reply = Reply(vectors=wire(np.eye(SIZE)[:n], "float"), indices=list(range(n)), tokens=None, model=None)
    with pytest.raises(BadReply) as caught:
        check(call_of(2), reply)
    assert caught.value.billed == "maybe"


@pytest.mark.parametrize(
    ("name", "answered", "right"),
    [
        ("one", "one", True),
        ("one", "One", True),
        ("one", "one-2026-01-25", True),
        ("one", "one-20260125", True),
        ("one", "one-2026-01", True),
        ("one", "one-2601", True),
        ("one", "one-001", True),
        ("one", "one@001", True),
        ("one", "one-v2", True),
        ("one", "one-v1.5", True),
        ("one", "one-latest", True),
        ("one", "one:latest", True),
        ("one:latest", "one", True),
        ("one", "models/one", True),
        ("one", "models/one-001", True),
        ("owner/one", "one", True),
        ("owner/one", "owner/one-v2", True),
        ("owner/one", "other/one", False),
        ("my-deployment", "one", True),
        ("my-deployment", "my-deployment", True),
        ("one", "one-large", False),
        ("one", "one-2", False),
        ("one", "one.5", False),
        ("one", "one5", False),
        ("one", "one-2026-01-25-large", False),
        ("one", "one-v2-large", False),
        ("one", "one-1024", False),
        ("one", "two", False),
        ("one", "two-one", False),
        ("one-2026-01-25", "one", False),
        ("one", "one:v2", False),
        ("one", "on", False),
        ("one", 7, False),
        ("one", {"id": "one"}, False),
    ],
)
def test_the_model_that_answers_must_be_the_one_asked(name: str, answered: Any, right: bool) -> None:
    """The name sent or the name in the id, with an owner, a date, a version or `latest`; any other is refused."""
    other = {} if name.startswith("my-") else {"id": f"acme/{name}"}
    reply = Reply(vectors=wire(np.eye(SIZE)[:1], "float"), indices=[0], tokens=1, model=answered)
    if right:
        assert check(call_of(1, name=name, **other), reply).shape == (1, SIZE)
    else:
        with pytest.raises(BadReply, match="another model"):
            check(call_of(1, name=name, **other), reply)


def test_no_model_of_the_catalog_passes_for_another(tmp_path: Path) -> None:
    """Whatever alias is accepted: of two models of the catalog, one never answers in the other's name."""
    models = load_settings(tmp_path, env={}).catalog.models
    reply = Reply(vectors=wire(np.eye(SIZE)[:1], "float"), indices=[0], tokens=1, model=None)
    pairs = [(a, b) for a in models for b in models if a.name != b.name]
    for asked, answered in pairs:
        with pytest.raises(BadReply, match="another model"):
            check(call_of(1, id=asked.id, name=asked.name), replace(reply, model=answered.name))
    assert len(pairs) > 100


@pytest.mark.parametrize(
    ("space", "right"), [("mine/m", True), ("mine/m-v2", False)], ids=["of one space", "of another space"]
)
def test_the_operators_other_model_is_no_version_of_this_one(tmp_path: Path, space: str, right: bool) -> None:
    """`m-v2` beside `m` in router.toml answers in its own name only, unless both are of one space."""
    one = (
        'dimensions = 4\ntokenizer = "bytes"\nlimits = { texts_per_call = 9 }\n'
        'prices = [{ since = 2026-01-01, now = "1", source = "a test", checked = 2026-01-01 }]\n'
    )
    (tmp_path / "router.toml").write_text(
        '[endpoints.mine]\nbase_url = "http://127.0.0.1:9/v1"\n'
        f'[[models]]\nid = "mine/m"\nspace = "mine/m"\n{one}'
        f'[[models]]\nid = "mine/Owner/m-v2"\nspace = "{space}"\n{one}',
        "utf-8",
    )
    call = EmbedCall(model=load_settings(tmp_path, env={}).catalog.get("mine/m"), texts=("a",), role="document")
    for answered in ("m-v2", "owner/M-V2", "m-v2:latest"):
        reply = Reply(vectors=wire(np.eye(SIZE)[:1], "float"), indices=[0], tokens=1, model=answered)
        if right:
            check(call, reply)
        else:
            with pytest.raises(BadReply, match="another model"):
                check(call, reply)
    check(call, Reply(vectors=wire(np.eye(SIZE)[:1], "float"), indices=[0], tokens=1, model="m-v3"))
