"""What is done about a call that failed, as a table, and how far a call is divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dispatch.steps import MOST_SENDS, Attempt, Division, Step, next_step
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

ONE, MANY = 1, 20
TABLE: list[tuple[ProviderError, Attempt, Step]] = [
    # Not billed: the same call again, until the deadline or (unreached) three times.
    (RateLimited("429"), Attempt(texts=MANY), "wait"),
    (RateLimited("429"), Attempt(texts=MANY, unreached=9), "wait"),
    (Unreachable("refused"), Attempt(texts=MANY, unreached=2), "wait"),
    (Unreachable("refused"), Attempt(texts=MANY, unreached=3), "give_up"),
    # Not billed, and never to be sent again as it is.
    (CallTooLarge("413"), Attempt(texts=MANY), "divide"),
    (CallRejected("400"), Attempt(texts=MANY), "divide"),
    (CallRejected("400"), Attempt(texts=ONE), "give_up"),
    # The same for every call.
    (KeyRejected("401"), Attempt(texts=MANY), "stop"),
    (QuotaExhausted("402"), Attempt(texts=ONE), "stop"),
    (NotConfigured("404"), Attempt(texts=ONE), "stop"),
    (BadReply("another model", action="stop"), Attempt(texts=MANY, sends=1), "stop"),
    # It may have been billed.
    (OutcomeUnknown("time-out"), Attempt(texts=MANY, sends=1), "resend"),
    (OutcomeUnknown("time-out"), Attempt(texts=MANY, sends=2), "resend"),
    (OutcomeUnknown("time-out"), Attempt(texts=MANY, sends=3), "give_up"),
    (BadReply("half a body"), Attempt(texts=MANY, sends=2), "resend"),
    (BadReply("half a body"), Attempt(texts=MANY, sends=3), "give_up"),
    (BadReply("one short", action="resend_once"), Attempt(texts=MANY, sends=1), "resend"),
    (BadReply("one short", action="resend_once"), Attempt(texts=MANY, sends=2), "give_up"),
    # One text may be to blame.
    (Overloaded("500"), Attempt(texts=MANY, sends=1), "resend"),
    (Overloaded("500"), Attempt(texts=MANY, sends=2), "divide"),
    (Overloaded("500"), Attempt(texts=MANY, sends=7), "divide"),
    (Overloaded("500"), Attempt(texts=ONE, sends=2), "resend"),
    (Overloaded("500"), Attempt(texts=ONE, sends=3), "give_up"),
    (BadReply("NaN", action="resend_then_divide"), Attempt(texts=MANY, sends=2), "divide"),
]


@pytest.mark.parametrize(("error", "attempt", "step"), TABLE)
def test_the_table(error: ProviderError, attempt: Attempt, step: Step) -> None:
    """Each kind of error, and how often the call was tried."""
    assert next_step(error, attempt) == step


@given(
    error=st.sampled_from([error for error, _, _ in TABLE]), texts=st.integers(1, 3_000), sends=st.integers(0, 20),
    unreached=st.integers(0, 20),
)  # fmt: skip
def test_nothing_is_sent_for_ever(error: ProviderError, texts: int, sends: int, unreached: int) -> None:
    """What may be billed is not sent as it is a fourth time; a lone text is not divided; only a 429 waits for ever."""
    step = next_step(error, Attempt(texts=texts, sends=sends, unreached=unreached))
    assert step != "resend" or sends < MOST_SENDS
    assert step != "divide" or texts > 1
    assert step != "wait" or isinstance(error, RateLimited) or unreached < 3


@pytest.mark.parametrize(("texts", "depth"), [(1, 1), (2, 1), (3, 2), (20, 5), (286, 9), (2_000, 11), (2_048, 11)])
def test_a_division_in_vain_ends_after_the_way_down_to_a_text(texts: int, depth: int) -> None:
    """Both halves at each step, when nothing is answered; log2(n) failures where they may be billed."""
    free, paid = Division(texts), Division(texts, paid=True)
    assert (free.depth, paid.depth) == (depth, depth)
    for sent in range(2 * depth):
        assert not free.over()
        assert paid.over() == (sent >= depth)
        free.note(1, answered=False, unsure=True)
        paid.note(1, answered=False, unsure=True)
    assert free.over()


def test_every_text_that_is_answered_buys_two_sends() -> None:
    """As long as dividing pays it goes on, several parts at once."""
    division = Division(4)
    assert division.pairs_at_once() == 1
    for _ in range(4):
        division.note(1, answered=False, unsure=False)
    assert division.over()
    division.note(3, answered=True, unsure=False)
    assert not division.over()
    assert division.pairs_at_once() > 1
