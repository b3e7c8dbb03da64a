"""The error tree: copies that keep everything."""

from __future__ import annotations

import pytest

from router.domain.errors import BadReply, BilledUsage, BudgetExceeded, CallRejected, RateLimited, RouterError


def tree(root: type[RouterError] = RouterError) -> list[type[RouterError]]:
    """A class, and all that are derived from it."""
    return [root, *(error for child in root.__subclasses__() for error in tree(child))]


EXAMPLES: dict[type[RouterError], RouterError] = {
    BudgetExceeded: BudgetExceeded("too dear", "raise it", shortfall=7, left=3),
    RateLimited: RateLimited("429", "later", retry_after=2.5, headers={"retry-after": "2.5"}),
    BadReply: BadReply("another size", "look", usage=BilledUsage(tokens=9), action="stop"),
}


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
