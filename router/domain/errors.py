"""The error tree. Every error a caller can meet is here, and says who sees it and what they can do.

RouterError                    anything the router says no to; `message` is fit for a page
├── BadInput                   the caller: fix the text, file, name or number that the message points at (exit 2)
├── Refused                    the caller: the policy, a budget or the kill switch says no; nothing is spent on what is
│   │                          refused (exit 3)
│   └── BudgetExceeded         ... and the budget that is too small, with the sums
├── StoreError                 the operator: the database cannot be written
│   ├── StoreBusy              ... another program holds the write lock; try again
│   └── StoreFull              ... the disk is full; make room
└── ProviderError              what a provider did; `billed` says what is known of the money
    ├── NotConfigured          the operator: the key is missing, or the address is wrong (not billed)
    ├── KeyRejected            the operator: the key is wrong or was revoked (not billed)
    ├── QuotaExhausted         the operator: the account at the provider is out of money (not billed)
    ├── RateLimited            the dispatcher: wait `retry_after` seconds, then send again (not billed)
    ├── CallTooLarge           the dispatcher: split the call; never resend it unchanged (not billed)
    ├── CallRejected           the caller: the provider will not embed this (not billed)
    ├── Unreachable            the dispatcher: the call never left (not billed)
    ├── Overloaded             the dispatcher: a 5xx; it may have been billed
    ├── OutcomeUnknown         the dispatcher: time-out or reset after sending; it may have been billed
    └── BadReply               the dispatcher: an answer that cannot be trusted; it was or may have been billed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

Billed = Literal["no", "maybe", "yes"]
Action = Literal["wait", "resend", "resend_once", "resend_then_divide", "divide", "stop"]
"""What the dispatcher does about an error of a provider (`dispatch/steps.py` says when it gives up):

`wait` and send the call again under the same hold, it was not billed; `resend` it under a hold of its own, it may have
been billed; `resend_once`; resend it and, where that does not help, `divide` it; `divide` it, unchanged it can never
pass; `stop`, every other call of the request would meet the same."""


class RouterError(Exception):
    """Base of all errors that the router raises on purpose.

    Attributes:
        message: what happened and where, in a sentence that may be shown to anyone.
        hint: what to do about it; empty where the message says it all.
    """

    exit_code = 1

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

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(RouterError):
    """The request itself is wrong. Shown to the caller; nothing was charged or written."""

    exit_code = 2


class Refused(RouterError):
    """A policy, a budget or the kill switch says no. Shown to the caller; nothing is spent on what is refused."""

    exit_code = 3


class BudgetExceeded(Refused):
    """The call does not fit into a hard budget.

    Attributes:
        shortfall: nanodollars by which the budget is too small.
        left: nanodollars that it has left.
    """

    def __init__(self, message: str, hint: str = "", *, shortfall: int = 0, left: int = 0) -> None:
        super().__init__(message, hint)
        self.shortfall = shortfall
        self.left = left


class StoreError(RouterError):
    """The databases in the data folder cannot be read or written. Shown to the operator."""


class StoreBusy(StoreError):
    """Another program has held the write lock for longer than we wait. Try again."""


class StoreFull(StoreError):
    """The disk, or the database, is full. Make room; paid calls stop until then."""


class ProviderError(RouterError):
    """Something a provider did. `billed` is what is known of the money, and decides the hold's fate."""

    billed: Billed = "no"
    action: Action = "stop"
    blames_text = False
    """True where other texts of the same call were answered: it is this text that the server fails on."""


class NotConfigured(ProviderError):
    """There is no key for this provider, or nothing at its address. Shown to the operator; nothing was billed."""


class KeyRejected(ProviderError):
    """401 or 403. Shown to the operator; a job pauses until the key is right."""


class QuotaExhausted(ProviderError):
    """The provider's account has no money left. Will not pass by itself: never retried."""


class RateLimited(ProviderError):
    """429. Known to be unbilled; queued again until the deadline.

    Attributes:
        retry_after: seconds the provider asked us to wait, or None when it did not say.
        headers: the answer's, for the rate limits that it names.
    """

    action: Action = "wait"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = headers or {}


class CallTooLarge(ProviderError):
    """Too many texts or tokens in one call. To be split, never to be resent unchanged."""

    action: Action = "divide"


class CallRejected(ProviderError):
    """Another 4xx: this provider will not embed this call as it is. It is divided, until the text to blame is alone.

    Where nothing of a whole request was answered, `action` is `stop`: it is the set-up that is wrong, and not a text.
    """

    action: Action = "divide"


class Unreachable(ProviderError):
    """Connection refused or no such host: the call never left."""

    action: Action = "wait"


class Overloaded(ProviderError):
    """A 5xx. The provider may have billed it all the same. One text may be why: some servers choke on it."""

    billed: Billed = "maybe"
    action: Action = "resend_then_divide"


class OutcomeUnknown(ProviderError):
    """Time-out, reset or a broken body after the call was sent."""

    billed: Billed = "maybe"
    action: Action = "resend"


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledUsage:
    """What a provider says that it billed for a call. Unit: tokens."""

    tokens: int


class BadReply(ProviderError):
    """A reply that cannot be trusted: nothing of it is stored.

    Attributes:
        usage: what the reply says was billed, or None where it does not say.
        action: whether sending again may help: `resend` (a body that broke off), `resend_once` (a count or an order
            that is wrong), `resend_then_divide` (a number that is not finite) or `stop` (another model, another size).
    """

    billed: Billed = "maybe"

    def __init__(
        self, message: str, hint: str = "", *, usage: BilledUsage | None = None, action: Action = "resend"
    ) -> None:
        super().__init__(message, hint)
        self.usage = usage
        self.action = action
        if usage is not None:
            self.billed = "yes"
