"""What becomes of a job that meets an error, as a table, and of the texts that failed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from router.domain.errors import (
    BadInput,
    BadReply,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    OutcomeUnknown,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Refused,
    RouterError,
    StoreBusy,
    StoreError,
    StoreFull,
    Unreachable,
)
from router.jobs.errors import FIRST_PAUSE_S, LONGEST_PAUSE_S, judge, stop_for

NOW = 1_000.0


def blamed(error: RouterError) -> RouterError:
    """An error of which dividing has shown that its text is to blame."""
    error.passes = False
    return error


TABLE: list[tuple[RouterError, str]] = [
    # What every other text would meet stops the job.
    (Refused("the kill switch"), "stop"),
    (StoreError("no database"), "stop"),
    (StoreBusy("locked"), "stop"),
    (StoreFull("full"), "stop"),
    (NotConfigured("no key"), "stop"),
    (KeyRejected("401"), "stop"),
    (QuotaExhausted("402"), "stop"),
    (CallRejected("all of it", action="stop"), "stop"),
    (BadReply("another model", action="stop"), "stop"),
    # What cost nothing and passes is no failure of a text.
    (RateLimited("429"), "passing"),
    (Unreachable("refused"), "passing"),
    # What may have been billed is counted, so that it is not tried for ever.
    (Overloaded("500"), "counted"),
    (OutcomeUnknown("time-out"), "counted"),
    (BadReply("half a body"), "counted"),
    (BadReply("NaN", tokens=3, action="resend_then_divide"), "counted"),
    # What is wrong with the text itself is for good.
    (BadInput("too long"), "for good"),
    (CallTooLarge("413"), "for good"),
    (CallRejected("400"), "for good"),
    (blamed(Overloaded("500")), "for good"),
    (blamed(BadReply("NaN", action="resend_then_divide")), "for good"),
]


@pytest.mark.parametrize(("error", "becomes"), TABLE)
def test_what_the_problem_of_a_text_comes_to(error: RouterError, becomes: str) -> None:
    """Each alone in its block."""
    verdict = judge({7: error})
    assert (verdict.stop is error) == (becomes == "stop")
    assert (verdict.passing is error) == (becomes in ("passing", "counted"))
    assert verdict.failed == ({7: (str(error), becomes == "for good")} if becomes in ("counted", "for good") else {})


def test_the_disk_stops_a_job_before_the_money_does() -> None:
    """Errors that a person must see stop a job, whatever else its block met."""
    full = StoreFull("the disk is full")
    for problems in ([NotConfigured("no key"), full], [full, NotConfigured("no key")], [RateLimited("429"), full]):
        assert judge(dict(enumerate(problems))).stop is full


@pytest.mark.parametrize(
    ("error", "unhealthy", "state", "says"),
    [
        (StoreBusy("Locked."), "", "waiting", "Locked."),
        (StoreFull("Full."), "", "paused", "Full."),
        (Refused("Off."), "", "paused", "Off."),
        (Refused("Off."), "it failed 5 times", "waiting", "Off. It is tried again by itself."),
        (KeyRejected("401."), "it failed 5 times", "paused", "401."),
        (BadReply("Another model.", action="stop"), "", "paused", "Another model."),
        (BadReply("Half a body."), "", "waiting", "Half a body. It is tried again by itself."),
        (RateLimited("429."), "", "waiting", "429. It is tried again by itself."),
        (Overloaded("500."), "", "waiting", "500. It is tried again by itself."),
        (CallRejected("400."), "", "waiting", "400. It is tried again by itself."),
        (BadInput("Empty."), "", "paused", "Empty."),
    ],
)
def test_a_job_waits_for_what_passes_and_is_paused_for_the_rest(
    error: RouterError, unhealthy: str, state: str, says: str
) -> None:
    """It waits twice as long each time, to ten minutes."""
    router: Any = SimpleNamespace(clock=lambda: NOW, limiters={"openai": SimpleNamespace(unhealthy=lambda: unhealthy)})
    job: Any = SimpleNamespace(model="openai/text-embedding-3-small")
    for pauses, seconds in ((0, FIRST_PAUSE_S), (2, 4 * FIRST_PAUSE_S), (99, LONGEST_PAUSE_S)):
        stop = stop_for(router, job, error, pauses)
        assert (stop.state, stop.reason) == (state, says)
        assert stop.wake == (NOW + seconds if state == "waiting" else None)
