"""`budget` and `pay`: the account's budget, which stands over all policies, and the kill switch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.output import Json, answer, emit, pick, say, table
from router.cli.shell import with_router
from router.domain.errors import BadInput
from router.domain.money import show, to_json
from router.domain.policy import describe_budget, format_budget, parse_budget
from router.domain.values import Budget, BudgetState

if TYPE_CHECKING:
    from router.engine import Router

budget_app = typer.Typer(no_args_is_help=True, help="The account budget, over all policies together.")


def parse_budgets(texts: Sequence[str]) -> tuple[Budget, ...]:
    """Budgets from their texts; `none` alone is none at all.

    Raises:
        BadInput: a text is not a budget, or two are for the same window.
    """
    if list(texts) == ["none"]:
        return ()
    budgets = tuple(map(parse_budget, texts))
    if len({(b.window, b.hard) for b in budgets}) < len(budgets):
        raise BadInput("Two budgets are for the same window.", "Keep the one that is meant.")
    return budgets


def state_as_json(state: BudgetState) -> dict[str, object]:
    """A budget with what its running window has used. A `request` budget has no running window."""
    return {
        "owner": state.owner,
        "budget": format_budget(state.budget),
        "amount_usd": to_json(state.budget.amount),
        **pick(state.budget, "window hard"),
        "used_usd": to_json(state.used),
        "left_usd": to_json(state.left),
        "resets": None if state.resets is None else state.resets.isoformat(),
    }


def tell_states(states: Sequence[BudgetState]) -> None:
    """The same for people."""
    rows = [
        (s.owner, describe_budget(s.budget), show(s.used), show(s.left),
         f"{s.resets:%Y-%m-%d %H:%M} UTC" if s.resets else None)
        for s in states
    ]  # fmt: skip
    table(("over", "budget", "used", "left", "resets"), rows, right=(2, 3))


@budget_app.command("show")
def show_budget(as_json: Json = False) -> None:
    """The account budget, and what is left of it."""

    def read(router: Router) -> tuple[tuple[BudgetState, ...], str, bool]:
        return router.budgets(), router.policies.account_zone(), router.policies.paid_enabled()

    states, timezone, paid = with_router(lambda router: asyncio.to_thread(read, router))
    if as_json:
        emit({"budgets": [state_as_json(state) for state in states], "timezone": timezone, "paid": paid})
        return
    if states:
        tell_states(states)
    else:
        say("There is no account budget: only the policies' own budgets limit what is spent.")
    if timezone != "UTC":
        say(f"Days, weeks and months are those of {timezone}.")
    if not paid:
        say("All paid calls are stopped (`pay on` allows them again).")


@budget_app.command("set", context_settings={"ignore_unknown_options": True})
def set_budget(
    budget: Annotated[list[str], typer.Argument(metavar="AMOUNT/WINDOW[:soft]...", help="Such as 20/month; or none.")],
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Whose days, weeks and months, such as Europe/Paris.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replace the account budget. What has been spent counts against the new one."""
    budgets = parse_budgets(budget)
    with_router(lambda router: router.policies.set_account_budgets(budgets, timezone))
    show_budget(as_json)


def pay(state: Annotated[str, typer.Argument(metavar="on|off")], as_json: Json = False) -> None:
    """The kill switch: `off` stops all paid calls, of every process on this data folder, from the next one on."""
    if state not in ("on", "off"):
        raise BadInput(f"Paid calls cannot be '{state}'.", "Say on or off.")
    with_router(lambda router: router.policies.set_paid(state == "on"))
    line = "Paid calls are allowed, within the budgets." if state == "on" else "All paid calls are stopped."
    answer(as_json, {"paid": state == "on"}, line)
