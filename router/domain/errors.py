"""The error tree: who sees an error, what they can do, and what the program itself does next.

                         billed   action              falls_over  passes
RouterError              -        give_up             no          no      anything the router says no to
├── BadInput             -        give_up             no          no      the caller: fix the text or the file (exit 2)
├── Refused              -        stop                no          no      a policy or the kill switch says no (exit 3)
│   └── BudgetExceeded   -        stop                no          no      ... or a budget, with the sums
├── StoreError           -        stop                no          no      the operator: the database cannot be written
│   ├── StoreBusy        -        stop                no          yes     ... another program holds the write lock
│   └── StoreFull        -        stop                no          no      ... the disk is full; make room
└── ProviderError        no       stop                no          no      what a provider did
    ├── NotConfigured    no       stop                no          no      no key, or the address is wrong
    ├── KeyRejected      no       stop                yes         no      401, 403: the key is wrong or was revoked
    ├── QuotaExhausted   no       stop                yes         no      the account at the provider has no money left
    ├── RateLimited      no       retry               yes         yes     429
    ├── CallTooLarge     no       divide              no          no      too many texts or tokens in one call
    ├── CallRejected     no       divide              no          no      another 4xx: it will not embed this call
    ├── Unreachable      no       retry               yes         yes     connection refused: the call never left
    ├── Overloaded       maybe    resend_then_divide  yes         yes     a 5xx; some servers choke on one text
    ├── OutcomeUnknown   maybe    resend              yes         yes     time-out or reset after sending
    └── BadReply         maybe    resend              no          yes     an answer that cannot be trusted

`CallRejected` and `BadReply` are given another action where more is known; `BadReply` is `billed` where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

Billed = Literal["no", "maybe", "yes"]
Action = Literal["retry", "resend", "resend_once", "resend_then_divide", "divide", "give_up", "stop"]
"""`retry` the call under the same hold, it was not billed; `resend` it under another, it may have been billed;
`resend_once`; resend it and, where that does not help, `divide` it; `divide` it, unchanged it can never pass;
`give_up`, only this text fails; `stop` the request and its job. `dispatch/steps.py` says how often."""


class RouterError(Exception):
    """Base of all errors that the router raises on purpose.

    Attributes:
        message: what happened and where, in a sentence that may be shown to anyone.
        hint: what to do about it; empty where the message says it all.
        action: what the program does next.
        falls_over: another route to the same space may be tried.
        passes: it goes by itself: a job waits and goes on.
    """

    exit_code = 1
    action: Action = "give_up"
    falls_over: bool = False
    passes: bool = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def copy(self, *, message: str | None = None, hint: str | None = None) -> Self:
        """A new error of the same class, its cause and every attribute kept but those given.

        Texts share error objects, so none is changed after it was raised or handed on.
        """
        message = self.message if message is None else message
        new = type(self).__new__(type(self), message)
        new.__dict__.update(self.__dict__, message=message, hint=self.hint if hint is None else hint)
        new.__cause__ = self.__cause__
        return new

    @property
    def stops_job(self) -> bool:
        """True where every other text of a job would meet it too, until it passes or a person acts."""
        return self.action == "stop"

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(RouterError):
    """The request itself is wrong. Shown to the caller; nothing was charged or written."""

    exit_code = 2


class Refused(RouterError):
    """A policy, a budget or the kill switch says no. Shown to the caller; nothing is spent on what is refused."""

    exit_code = 3
    action = "stop"


class BudgetExceeded(Refused):
    """The call does not fit into a hard budget.

    `shortfall` is by how much the budget is too small, `left` what it has left, in nanodollars.
    """

    def __init__(self, message: str, hint: str = "", *, shortfall: int = 0, left: int = 0) -> None:
        super().__init__(message, hint)
        self.shortfall = shortfall
        self.left = left


class StoreError(RouterError):
    """The databases in the data folder cannot be read or written. Shown to the operator."""

    action = "stop"


class StoreBusy(StoreError):
    """Another program has held the write lock for longer than we wait. Try again."""

    passes = True


class StoreFull(StoreError):
    """The disk, or the database, is full. Make room; paid calls stop until then."""


class ProviderError(RouterError):
    """Something a provider did. `billed` is what is known of the money, and decides the hold's fate."""

    billed: Billed = "no"
    action: Action = "stop"


class NotConfigured(ProviderError):
    """There is no key for this provider, or nothing at its address. Shown to the operator."""


class KeyRejected(ProviderError):
    """401 or 403. Shown to the operator; a job pauses until the key is right."""

    falls_over = True


class QuotaExhausted(ProviderError):
    """The provider's account has no money left. Never retried."""

    falls_over = True


class RateLimited(ProviderError):
    """429. Known to be unbilled; queued again until the deadline.

    `retry_after` is the seconds that the provider asked us to wait, if it did; the answer's `headers` name rate limits.
    """

    action = "retry"
    falls_over = passes = True

    def __init__(
        self, message: str, hint: str = "", *, retry_after: float | None = None, headers: Mapping[str, str] = {}
    ) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.headers = headers


class CallTooLarge(ProviderError):
    """Too many texts or tokens in one call. Never resent unchanged."""

    action = "divide"


class CallRejected(ProviderError):
    """Another 4xx. The call is divided until the text to blame is alone. With the action `stop` nothing of a whole
    request was answered: it is the set-up that is wrong, and not a text.
    """

    def __init__(self, message: str, hint: str = "", *, action: Action = "divide") -> None:
        super().__init__(message, hint)
        self.action = action


class Unreachable(ProviderError):
    """Connection refused or no such host: the call never left."""

    action = "retry"
    falls_over = passes = True


class Overloaded(ProviderError):
    """A 5xx. The provider may have billed it all the same. One text may be why: some servers choke on it."""

    billed = "maybe"
    action = "resend_then_divide"
    falls_over = passes = True


class OutcomeUnknown(ProviderError):
    """Time-out, reset or a broken body after the call was sent."""

    billed = "maybe"
    action = "resend"
    falls_over = passes = True


class BadReply(ProviderError):
    """A reply that cannot be trusted: nothing of it is stored.

    Attributes:
        tokens: what the reply says was billed, or None where it does not say.
        action: whether sending again may help: `resend` (a body that broke off), `resend_once` (a count or an order
            that is wrong), `resend_then_divide` (a number that is not finite) or `stop` (another model, another size).
    """

    passes = True

    def __init__(self, message: str, hint: str = "", *, tokens: int | None = None, action: Action = "resend") -> None:
        super().__init__(message, hint)
        self.tokens = tokens
        self.action = action
        self.billed = "maybe" if tokens is None else "yes"
