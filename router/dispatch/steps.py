"""What is done about a call that failed: functions of the error and of how the call stands, without I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from router.domain.errors import ProviderError, RateLimited, Unreachable

Step = Literal["retry", "resend", "divide", "give_up", "expire", "stop"]

MOST_SENDS = 3
"""Sends of one text that may have been billed, where it stands alone from the start."""
SENDS_OF_SEVERAL = 2
"""Sends of several texts before they are divided: the halves are the third, and spare whoever is not to blame."""
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How a call stands.

    Attributes:
        texts: how many it holds.
        sends: of these texts that may have been billed, in the call that this one is a part of as well.
        limited, unreached: sends that were not billed: refused for the rate, and never left.
        late: the pause before another send would pass the request's deadline.
        stopped: the request was cancelled, or an error has closed it.
        may_resend: the provider's retry budget is not used up.
    """

    texts: int
    sends: int = 0
    limited: int = 0
    unreached: int = 0
    late: bool = False
    stopped: bool = False
    may_resend: bool = True

    def after(self, error: ProviderError) -> Attempt:
        """With a send counted that failed."""
        return replace(
            self,
            sends=self.sends + (error.billed != "no"),
            limited=self.limited + isinstance(error, RateLimited),
            unreached=self.unreached + isinstance(error, Unreachable),
        )

    def pause_s(self, error: ProviderError) -> float:
        """Seconds before the next send: random, longer each time, and never less than the provider asked."""
        if isinstance(error, RateLimited) and error.retry_after is not None:
            return error.retry_after + random.uniform(0, min(0.25, 0.05 + error.retry_after / 10))
        tries = self.limited + self.unreached if error.billed == "no" else self.sends
        return random.uniform(FIRST_WAIT_S / 2, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries, 16)))


def next_step(error: ProviderError, attempt: Attempt) -> Step:
    """The next thing to do about a call that failed, with that failure counted in `attempt`.

    `retry` it under its hold; `resend` it under another; `divide` it; `give_up`; `expire`: there is no time for another
    send that would cost nothing; or `stop` the request.
    """
    several, over = attempt.texts > 1, attempt.late or attempt.stopped
    match error.action:
        case "retry":
            if attempt.unreached >= MOST_SENDS and not isinstance(error, RateLimited):
                return "give_up"
            return "expire" if over else "retry"
        case "divide":
            return "divide" if several else "give_up"
        case "give_up" | "stop":
            return error.action
        case "resend":
            most = MOST_SENDS
        case "resend_once":
            most = 2
        case "resend_then_divide":
            most = SENDS_OF_SEVERAL if several else MOST_SENDS
    if attempt.sends < most and (over or attempt.may_resend):
        return "give_up" if over else "resend"
    return "divide" if several and error.action == "resend_then_divide" else "give_up"


PAIRS_AT_ONCE = 4
"""Pairs of parts that are sent at once, where dividing was seen to help."""


class DivisionLimit:
    """How far a call that failed is divided.

    At most 2 log2(n) parts are sent, which is the way down to a single text and both halves at each step, and two more
    for each text that was answered that way: as long as it pays. Where the parts that fail may be billed, no part is
    divided any more once log2(n) of them have failed.
    """

    def __init__(self, texts: int, *, paid: bool = False) -> None:
        """`paid`: its parts may be billed, and cost something."""
        self.depth = max(1, (texts - 1).bit_length())
        self.sent = self.answered = self._unsure = 0
        self._paid = paid

    def note(self, texts: int, *, answered: bool, unsure: bool) -> None:
        """A part of so many texts was sent. `unsure`: it failed, and may have been billed."""
        self.sent += 1
        self.answered += texts * answered
        self._unsure += unsure

    def pairs_at_once(self) -> int:
        """How many pairs to send at once: one, until a text was answered."""
        return PAIRS_AT_ONCE if self.answered else 1

    def over(self) -> bool:
        """True where no further part is to be sent."""
        return self.sent >= 2 * (self.depth + self.answered) or (self._paid and self._unsure >= self.depth)
