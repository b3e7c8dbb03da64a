"""What is done about a call that failed: a pure function of the error and of how often it was tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.domain.errors import ProviderError, RateLimited

Step = Literal["wait", "resend", "divide", "give_up", "stop"]

MOST_SENDS = 3
"""Sends of one text that may have been billed, where it stands alone from the start."""
SENDS_OF_SEVERAL = 2
"""Sends of several texts before they are divided: the halves are the third, and spare whoever is not to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How often a call was tried, the failure at hand included.

    Attributes:
        texts: how many it holds.
        sends: of these texts that may have been billed, in the call that this one is a part of as well.
        unreached: sends that never left.
    """

    texts: int
    sends: int = 0
    unreached: int = 0


def next_step(error: ProviderError, attempt: Attempt) -> Step:
    """The next thing to do about a call that failed.

    `wait` and send it again under its hold; `resend` it under another; `divide` it; `give_up`; or `stop` the request.
    """
    several = attempt.texts > 1
    match error.action:
        case "wait":
            return "wait" if isinstance(error, RateLimited) or attempt.unreached < MOST_SENDS else "give_up"
        case "divide":
            return "divide" if several else "give_up"
        case "resend":
            return "resend" if attempt.sends < MOST_SENDS else "give_up"
        case "resend_once":
            return "resend" if attempt.sends < 2 else "give_up"
        case "resend_then_divide":
            if attempt.sends < (SENDS_OF_SEVERAL if several else MOST_SENDS):
                return "resend"
            return "divide" if several else "give_up"
        case "stop":
            return "stop"


PAIRS_AT_ONCE = 4
"""Parts that are sent at once, in pairs, where dividing was seen to help."""


class Division:
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
