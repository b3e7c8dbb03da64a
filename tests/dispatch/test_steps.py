"""What is done about a call that failed, as a table, and how far a call is divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dispatch.steps import MOST_SENDS, Attempt, DivisionLimit, Step, next_step
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
    (RateLimited("429"), Attempt(texts=MANY), "retry"),
    (RateLimited("429"), Attempt(texts=MANY, unreached=9), "retry"),
    (Unreachable("refused"), Attempt(texts=MANY, unreached=2), "retry"),
    (Unreachable("refused"), Attempt(texts=MANY, unreached=3), "give_up"),
    (Unreachable("refused"), Attempt(texts=MANY, unreached=3, late=True), "give_up"),
    (RateLimited("429"), Attempt(texts=MANY, may_resend=False), "retry"),
    (RateLimited("429"), Attempt(texts=MANY, late=True), "expire"),
    (RateLimited("429"), Attempt(texts=MANY, stopped=True), "expire"),
    (Unreachable("refused"), Attempt(texts=MANY, unreached=1, late=True), "expire"),
    # Not billed, and never to be sent again as it is.
    (CallTooLarge("413"), Attempt(texts=MANY), "divide"),
    (CallRejected("400"), Attempt(texts=MANY), "divide"),
    (CallRejected("400"), Attempt(texts=ONE), "give_up"),
    (CallRejected("400"), Attempt(texts=MANY, late=True, stopped=True, may_resend=False), "divide"),
    (CallRejected("all of it", action="stop"), Attempt(texts=MANY), "stop"),
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
    (OutcomeUnknown("time-out"), Attempt(texts=MANY, sends=1, may_resend=False), "give_up"),
    (OutcomeUnknown("time-out"), Attempt(texts=MANY, sends=1, late=True), "give_up"),
    (OutcomeUnknown("time-out"), Attempt(texts=MANY, sends=1, stopped=True), "give_up"),
    # One text may be to blame.
    (Overloaded("500"), Attempt(texts=MANY, sends=1), "resend"),
    (Overloaded("500"), Attempt(texts=MANY, sends=2), "divide"),
    (Overloaded("500"), Attempt(texts=MANY, sends=7), "divide"),
    (Overloaded("500"), Attempt(texts=ONE, sends=2), "resend"),
    (Overloaded("500"), Attempt(texts=ONE, sends=3), "give_up"),
    (BadReply("NaN", action="resend_then_divide"), Attempt(texts=MANY, sends=2), "divide"),
    (Overloaded("500"), Attempt(texts=MANY, sends=1, may_resend=False), "divide"),
    (Overloaded("500"), Attempt(texts=ONE, sends=1, may_resend=False), "give_up"),
    (Overloaded("500"), Attempt(texts=MANY, sends=1, may_resend=False, late=True), "give_up"),
    (Overloaded("500"), Attempt(texts=MANY, sends=1, stopped=True), "give_up"),
    (Overloaded("500"), Attempt(texts=MANY, sends=2, stopped=True), "divide"),
]


@pytest.mark.parametrize(("error", "attempt", "step"), TABLE)
def test_the_table(error: ProviderError, attempt: Attempt, step: Step) -> None:
    """Each kind of error, and how often the call was tried."""
    assert next_step(error, attempt) == step


@given(
    error=st.sampled_from([error for error, _, _ in TABLE]),
    attempt=st.builds(
        Attempt, texts=st.integers(1, 3_000), sends=st.integers(0, 20), unreached=st.integers(0, 20),
        late=st.booleans(), stopped=st.booleans(), may_resend=st.booleans(),
    ),
)  # fmt: skip
def test_nothing_is_sent_for_ever(error: ProviderError, attempt: Attempt) -> None:
    """What may be billed is not sent as it is a fourth time; a lone text is not divided; only a 429 waits for ever.

    Nothing is sent again as it is once there is no time, the request is over or, where it may be billed, most fail.
    """
    step = next_step(error, attempt)
    assert step != "resend" or (attempt.sends < MOST_SENDS and attempt.may_resend and error.billed != "no")
    assert step != "divide" or attempt.texts > 1
    assert step != "retry" or isinstance(error, RateLimited) or attempt.unreached < 3
    assert step not in ("retry", "resend") or not (attempt.late or attempt.stopped)


def test_a_failure_counts_for_what_it_was() -> None:
    """Three counts: what may have been billed, what was refused for the rate, what never left."""
    attempt = Attempt(texts=3)
    for error in (OutcomeUnknown("x"), RateLimited("x"), Unreachable("x"), BadReply("x"), Unreachable("x")):
        attempt = attempt.after(error)
    assert attempt == Attempt(texts=3, sends=2, limited=1, unreached=2)
    assert attempt.after(CallRejected("x")) == attempt


@pytest.mark.parametrize(
    ("error", "attempt", "shortest", "longest"),
    [
        (RateLimited("x"), Attempt(texts=1, limited=1), 0.125, 0.5),
        (Unreachable("x"), Attempt(texts=1, limited=1, unreached=2), 0.125, 2.0),
        (Overloaded("x"), Attempt(texts=1, limited=9, sends=1), 0.125, 0.5),
        (OutcomeUnknown("x"), Attempt(texts=1, sends=10_000), 0.125, 30.0),
        (RateLimited("x", retry_after=7.0), Attempt(texts=1, limited=9), 7.0, 7.25),
        (RateLimited("x", retry_after=0.0), Attempt(texts=1, limited=9), 0.0, 0.05),
    ],
)
def test_a_pause_is_random_and_never_less_than_was_asked(
    error: ProviderError, attempt: Attempt, shortest: float, longest: float
) -> None:
    """Doubling with the sends of its sort, to half a minute."""
    pauses = [attempt.pause_s(error) for _ in range(200)]
    assert shortest <= min(pauses) < max(pauses) <= longest
    assert max(pauses) - min(pauses) > (longest - shortest) / 2


@pytest.mark.parametrize(("texts", "depth"), [(1, 1), (2, 1), (3, 2), (20, 5), (286, 9), (2_000, 11), (2_048, 11)])
def test_a_division_in_vain_ends_after_the_way_down_to_a_text(texts: int, depth: int) -> None:
    """Both halves at each step, when nothing is answered; log2(n) failures where they may be billed."""
    free, paid = DivisionLimit(texts), DivisionLimit(texts, paid=True)
    assert (free.depth, paid.depth) == (depth, depth)
    for sent in range(2 * depth):
        assert not free.over()
        assert paid.over() == (sent >= depth)
        free.note(1, answered=False, unsure=True)
        paid.note(1, answered=False, unsure=True)
    assert free.over()


def test_every_text_that_is_answered_buys_two_sends() -> None:
    """As long as dividing pays it goes on, several parts at once."""
    division = DivisionLimit(4)
    assert division.pairs_at_once() == 1
    for _ in range(4):
        division.note(1, answered=False, unsure=False)
    assert division.over()
    division.note(3, answered=True, unsure=False)
    assert not division.over()
    assert division.pairs_at_once() > 1
