"""`policy`: the rules that decide, made, shown and ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.budget import parse_budgets, state_as_json, tell_states
from router.cli.output import Json, answer, emit, say, table
from router.cli.shell import with_router
from router.domain.errors import BadInput
from router.domain.policy import describe_budget, differences, from_dict, to_dict
from router.domain.values import Policy

if TYPE_CHECKING:
    from router.engine import Router

policy_app = typer.Typer(no_args_is_help=True, help="Quality goal, budgets, what is allowed.")
Name = Annotated[str, typer.Argument()]


@policy_app.command("set")
def set_policy(
    name: Name,
    goal: Annotated[str | None, typer.Option(metavar="economy|balanced|quality")] = None,
    min_quality: Annotated[
        str | None, typer.Option(metavar="0-100|none", help="Least quality, RTEB English retrieval.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="AMOUNT/WINDOW[:soft]", help="Such as 5/month; may be repeated; `none` for none."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Models, such as 'openai/*'; may be repeated.")
    ] = None,
    local_only: Annotated[bool | None, typer.Option("--local-only/--no-local-only")] = None,
    when_exhausted: Annotated[str | None, typer.Option(metavar="local|wait|refuse")] = None,
    deadline: Annotated[str | None, typer.Option(metavar="now|24h")] = None,
    long_texts: Annotated[str | None, typer.Option(metavar="split|refuse|cut")] = None,
    queries: Annotated[
        str | None, typer.Option(metavar="same|cheapest", help="Which of a family embeds a collection's queries.")
    ] = None,
    normalise: Annotated[bool | None, typer.Option("--normalise/--no-normalise")] = None,
    timezone: Annotated[str | None, typer.Option(metavar="ZONE", help="Such as Europe/Paris.")] = None,
    as_json: Json = False,
) -> None:
    """Create a policy, or change what is named of one that there is. What its budgets have spent is kept."""
    given: dict[str, Any] = {
        "goal": goal, "allow": allow or None, "local_only": local_only, "when_exhausted": when_exhausted,
        "deadline": deadline, "long_texts": long_texts, "queries": queries, "normalise": normalise,
        "timezone": timezone,
    }  # fmt: skip
    changes = {key: value for key, value in given.items() if value is not None}
    exact: dict[str, Any] = {"budgets": parse_budgets(budget)} if budget else {}
    if min_quality is not None:
        exact["min_quality"] = _quality(min_quality)

    async def work(router: Router) -> tuple[Policy | None, Policy]:
        old = next((p for p in router.policies.all() if p.name == name), None)
        draft = replace(from_dict({**to_dict(old or Policy(name=name)), **changes}), **exact)
        if old is not None and not differences(old, draft):
            return old, old
        return old, await router.policies.save(draft, [m.id for m in router.catalog.models])

    old, saved = with_router(work)
    if as_json:
        emit(to_dict(saved))
    elif old is None:
        say(f"The policy '{name}' was created.")
        _tell(saved)
    else:
        changed = differences(old, saved)
        say(f"The policy '{name}' was changed:" if changed else f"The policy '{name}' is so already.")
        for line in changed:
            say(f"  {line}")


@policy_app.command("list")
def list_policies(as_json: Json = False) -> None:
    """Every policy."""
    policies = with_router(lambda router: asyncio.to_thread(router.policies.all))
    if as_json:
        emit({"policies": [to_dict(p) for p in policies]})
        return
    rows = [
        (p.name, "local only" if p.local_only else p.goal, p.min_quality,
         ", ".join(map(describe_budget, p.budgets)) or "the account's", ", ".join(p.allow), p.when_exhausted)
        for p in policies
    ]  # fmt: skip
    table(("name", "goal", "least quality", "budget", "allowed", "when exhausted"), rows)


@policy_app.command("show")
def show_policy(name: Name, as_json: Json = False) -> None:
    """One policy, and what is left of every budget over it."""
    policy, states = with_router(
        lambda router: asyncio.to_thread(lambda: (router.policies.get(name), router.budgets(name)))
    )
    if as_json:
        emit({**to_dict(policy), "states": [state_as_json(state) for state in states]})
    else:
        _tell(policy)
        tell_states(states)


@policy_app.command("delete")
def delete_policy(name: Name, as_json: Json = False) -> None:
    """Delete a policy. What it spent stays in the ledger."""
    with_router(lambda router: router.policies.delete(name))
    answer(as_json, {"deleted": name}, f"The policy '{name}' was deleted.")


def _quality(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"The least quality '{text}' is not a number.", "Give a score from 0 to 100, or none.") from None


def _tell(policy: Policy) -> None:
    def words(value: object) -> str:
        if value is None:
            return "none"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    values = {**to_dict(policy), "budgets": [describe_budget(b) for b in policy.budgets] or None}
    for key, value in values.items():
        say(f"{key.replace('_', ' '):16}{words(value)}")
