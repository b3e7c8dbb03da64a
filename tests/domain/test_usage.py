"""How much of what a provider says that it billed is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.usage import Believed, believe


@pytest.mark.parametrize(
    ("said", "settled", "beyond", "why"),
    [
        (70, 70, 0, ""),  # what it says
        (100, 100, 0, ""),
        (400, 400, 0, ""),  # more than was held, and it can be: the truth
        (401, 400, 1, "401 tokens, where the texts can be 400"),
        (10**12, 400, 10**12 - 400, "1,000,000,000,000 tokens"),
        (20, 20, 0, ""),
        (19, 100, 0, "19 tokens for 20 texts"),
        (0, 100, 0, "0 tokens for 20 texts"),
        (None, 100, 0, "names no usage"),
    ],
)
def test_what_is_booked(said: int | None, settled: int, beyond: int, why: str) -> None:
    """Twenty texts, a hundred tokens held, four hundred bytes."""
    believed = believe(said, texts=20, held=100, most=400)
    assert (believed.tokens, believed.beyond) == (settled, beyond)
    assert why in believed.doubt
    assert bool(believed.doubt) == bool(why)


@given(
    said=st.none() | st.integers(0, 10**12), texts=st.integers(1, 3_000), held=st.integers(3_000, 10**6),
    most=st.integers(1, 10**7),
)  # fmt: skip
def test_never_less_than_was_said_and_nothing_silently_else(said: int | None, texts: int, held: int, most: int) -> None:
    """What is settled can be true; with what is beyond, all that was said is in the books."""
    believed = believe(said, texts=texts, held=held, most=most)
    assert believed.tokens + believed.beyond >= (said or 0)
    assert believed.tokens <= max(held, most)
    assert believed.doubt or believed == Believed(tokens=said or 0)
