"""The error tree: what each class says is done about it, and copies that keep everything."""

from __future__ import annotations

import re

import pytest

from router.domain import errors
from router.domain.errors import (
    BadReply,
    BudgetExceeded,
    CallRejected,
    ProviderError,
    RateLimited,
    RouterError,
)


def tree(root: type[RouterError] = RouterError) -> list[type[RouterError]]:
    """A class, and all that are derived from it."""
    return [root, *(error for child in root.__subclasses__() for error in tree(child))]


EXAMPLES: dict[type[RouterError], RouterError] = {
    BudgetExceeded: BudgetExceeded("too dear", "raise it", shortfall=7, left=3),
    RateLimited: RateLimited("429", "later", retry_after=2.5, headers={"retry-after": "2.5"}),
    BadReply: BadReply("another size", "look", tokens=9, action="stop"),
}


ROW = re.compile(r"^[│├└─ ]*(\w+) +(-|no|maybe) +(\w+) +(yes|no) +(yes|no) +\S", re.MULTILINE)
TABLE = {name: row for name, *row in ROW.findall(errors.__doc__ or "")}
"""The rows of the table in the docstring."""


def test_the_table_has_a_row_for_every_class() -> None:
    """And none for another."""
    assert set(TABLE) == {error.__name__ for error in tree() if error.__module__ == errors.__name__}
    assert len(TABLE) == 18


@pytest.mark.parametrize("error", tree())
def test_the_table_is_true(error: type[RouterError]) -> None:
    """Of each class as it is made without more, and of its subclasses elsewhere, which are no exception to it."""
    listed = next(base for base in error.__mro__ if base.__name__ in TABLE)
    made = error("what happened")
    billed = made.billed if isinstance(made, ProviderError) else "-"
    says = [billed, made.action, *("yes" if answer else "no" for answer in (made.falls_over, made.passes))]
    assert says == TABLE[listed.__name__]
    assert made.stops_job == (made.action == "stop")


def test_an_action_that_is_given_stands() -> None:
    """It stops the job where it says so; a reply that names its tokens was billed."""
    assert CallRejected("all of it", action="stop").stops_job
    reply = BadReply("another size", tokens=9, action="stop")
    assert (reply.billed, reply.stops_job) == ("yes", True)
    assert not BadReply("half a body").stops_job


def example(error: type[RouterError]) -> RouterError:
    """An error of a class, with all that it can carry."""
    return EXAMPLES.get(error) or error("what happened", "what to do")


@pytest.mark.parametrize("error", [e for e in tree() if e.__module__.startswith("router.")])
def test_a_copy_keeps_all_but_what_it_is_given(error: type[RouterError]) -> None:
    """Of the class and the attributes of the first, which stays as it is; the cause is kept for the log."""
    first = example(error)
    first.__cause__ = ValueError("why")
    before = dict(vars(first))
    for change in ({}, {"message": "2 of 3"}, {"hint": "try"}, {"message": "2 of 3", "hint": ""}):
        copy = first.copy(**change)
        assert copy is not first
        assert type(copy) is error
        assert vars(copy) == {**before, **change}
        assert copy.__cause__ is first.__cause__
        assert copy.args == (copy.message,)
        assert str(copy) == f"{copy.message} {copy.hint}".strip()
    assert vars(first) == before


def test_what_was_set_on_one_error_goes_with_its_copy() -> None:
    """Not only what the class knows of."""
    error = CallRejected("no")
    error.seen_by = "a test"  # type: ignore[attr-defined]
    assert error.copy(hint="x").seen_by == "a test"  # type: ignore[attr-defined]
