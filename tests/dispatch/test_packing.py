"""Packing: whatever the texts and the limits, each text is in exactly one call, and no call breaks a limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dispatch.packing import SMALL, pack
from router.domain.values import Limits, Unit

texts_a_call = st.integers(1, 60)


def units(tokens: list[int]) -> list[Unit]:
    """Texts of so many tokens, each with a name of its own."""
    return [Unit(digest=n.to_bytes(32), text=str(n), tokens=t) for n, t in enumerate(tokens)]


@given(
    tokens=st.lists(st.integers(0, 50), max_size=300), texts=texts_a_call, most=st.none() | st.integers(50, 900),
    ours=st.none() | texts_a_call, limiters=st.integers(1, 40),
)  # fmt: skip
def test_every_text_is_in_one_call_and_no_call_breaks_a_limit(
    tokens: list[int], texts: int, most: int | None, ours: int | None, limiters: int
) -> None:
    """The calls in a row are the texts in their order; counts and tokens keep to both limits; no call is empty."""
    given_units = units(tokens)
    calls = pack(given_units, Limits(texts_per_call=texts, tokens_per_call=most), max_texts=ours, limiters=limiters)
    assert [u for call in calls for u in call] == given_units
    for call in calls:
        assert 0 < len(call) <= min(texts, ours or texts)
        assert most is None or sum(u.tokens for u in call) <= most


@given(n=st.integers(1, 2_000), texts=texts_a_call, ours=st.none() | texts_a_call)
def test_as_few_calls_as_the_count_allows_and_none_small_and_late(n: int, texts: int, ours: int | None) -> None:
    """Where only the count binds, there are no more calls than needed, and the last is not a straggler."""
    calls = pack(units([1] * n), Limits(texts_per_call=texts), max_texts=ours)
    most = min(texts, ours or texts)
    assert len(calls) == -(-n // most)
    assert max(map(len, calls)) == -(-n // len(calls))


@given(tokens=st.lists(st.integers(1, 100), min_size=1, max_size=200), most=st.integers(100, 1_000))
def test_where_tokens_bind_no_call_could_be_spared_and_none_is_needlessly_heavy(tokens: list[int], most: int) -> None:
    """As few calls as filling each one up gives, and a lower limit would need more: so the last is no straggler."""
    limits = Limits(texts_per_call=1_000, tokens_per_call=most)
    calls = pack(units(tokens), limits)
    assert len(calls) == filled(tokens, most)
    heaviest = max(sum(u.tokens for u in call) for call in calls)
    assert len(calls) == 1 or heaviest == max(tokens) or filled(tokens, heaviest - 1) > len(calls)


def filled(tokens: list[int], most: int) -> int:
    """Calls, if each is filled before the next is begun."""
    calls, weight = 1, 0
    for t in tokens:
        if weight + t > most:
            calls, weight = calls + 1, 0
        weight += t
    return calls


@pytest.mark.parametrize(("n", "limiters", "calls"), [(SMALL * 8, 8, 8), (SMALL * 8, 100, 8), (SMALL - 1, 8, 1)])
def test_work_is_spread_over_the_lanes_but_not_in_crumbs(n: int, limiters: int, calls: int) -> None:
    """One call's worth of texts goes over all limiters, unless the calls would become small."""
    sizes = [len(call) for call in pack(units([1] * n), Limits(texts_per_call=10_000), limiters=limiters)]
    assert len(sizes) == calls
    assert max(sizes) - min(sizes) <= 1


def test_a_text_above_the_calls_tokens_goes_alone() -> None:
    """It is the provider's to refuse; its neighbours are not to be refused with it."""
    calls = pack(units([10, 999, 10]), Limits(texts_per_call=100, tokens_per_call=100))
    assert [[u.tokens for u in call] for call in calls] == [[10], [999], [10]]


def test_no_texts_no_calls() -> None:
    """Nothing to send is no call."""
    assert pack([], Limits(texts_per_call=1)) == []
