"""A decision in plain sentences, for the page, the shell and the answer: what was chosen, why, and why not the rest.

The phrases for budgets are here too, so that a refusal and an explanation name the same budget alike.
"""

from __future__ import annotations

from datetime import date

from router.domain import money
from router.domain.policy import THIS_WINDOW
from router.domain.values import Ask, BudgetState, Facts, Model, Plan, Policy, Refusal, Verdict


def explain(outcome: Plan | Refusal, *, ask: Ask, policy: Policy, facts: Facts) -> str:
    """One to five sentences on the whole decision."""
    if isinstance(outcome, Refusal):
        return f"Refused: {_uncapital(outcome.reason)} {outcome.hint}"
    chosen = next(v for v in outcome.verdicts if v.chosen)
    goal = "" if policy.local_only else f"The goal is {policy.goal}: "
    sentences = [_how(outcome, chosen, ask), goal + (_uncapital(outcome.reason) if goal else outcome.reason)]
    if outcome.model.retiring(facts.now.date()):
        end = retirement(outcome.model, facts.now.date())
        sentences.append(f"{outcome.model.id} {end}: vectors of another model will not compare with these.")
    hard = [state for state in facts.budgets if state.budget.hard and state.budget.window != "request"]
    if outcome.fell_back:
        sentences.append(f"These vectors are in the space {outcome.model.space} and compare with no other.")
    elif hard:
        sentences.append(sentence(money_left(min(hard, key=lambda state: state.left))))
    return " ".join(sentences)


def why_not(outcome: Plan | Refusal) -> list[tuple[str, str]]:
    """Model id and a sentence for each candidate that was not chosen, in the order of the facts."""
    return [(v.model.id, sentence(v.reason)) for v in outcome.verdicts if not v.chosen]


def retirement(model: Model, today: date) -> str:
    """When a model's vendor retires it: `retires on 2027-12-01, in 51 days`."""
    if model.retires is None:
        raise ValueError(f"{model.id} has no day on which it retires")
    days = (model.retires - today).days
    return f"retires on {model.retires}, in {days} {'day' if days == 1 else 'days'}"


def sentence(clause: str) -> str:
    """The clause as a sentence; a model's id at its head keeps its spelling."""
    starts_with_id = "/" in clause.split(" ", 1)[0]
    return (clause if starts_with_id else clause[:1].upper() + clause[1:]) + ("" if clause.endswith(".") else ".")


def budget_name(state: BudgetState) -> str:
    """Which budget: `this month's account budget`, `today's budget`, `the total budget`."""
    return f"{THIS_WINDOW[state.budget.window]} {'account ' if state.owner == 'account' else ''}budget"


def money_left(state: BudgetState) -> str:
    """How a budget stands: `this month's $5.00 is spent`, `$0.0031 of today's account budget of $1.00 is left`."""
    amount, window = money.show(state.budget.amount), state.budget.window
    if window == "request":
        whose = "the account lets a request cost" if state.owner == "account" else "a request may cost"
        return f"{whose} {amount} at most"
    plain = state.owner != "account" and window != "total"
    which = f"{THIS_WINDOW[window]} {amount}" if plain else f"{budget_name(state)} of {amount}"
    return f"{which} is spent" if state.left == 0 else f"{money.show(state.left)} of {which} is left"


def _how(plan: Plan, chosen: Verdict, ask: Ask) -> str:
    what = "quer" if ask.role == "query" else "text"
    one, many = ("y", "ies") if ask.role == "query" else ("", "s")

    def counted(n: int) -> str:
        return f"{n:,} {what}{one if n == 1 else many}"

    misses = chosen.texts - chosen.cached
    if plan.route == "cache":
        all_of_them = f"The {what}{one} is" if chosen.texts == 1 else f"All {counted(chosen.texts)} are"
        return f"{all_of_them} in the cache in the space {plan.model.space}, so nothing is spent."
    verb = "goes" if misses == 1 else "go"
    price = money.show_likely(plan.expected, plan.cost)
    price = f"for {price}" if price.startswith(("$", "<")) else price
    where = {
        "local": f"{verb} to {plan.model.id} on this machine, at no cost.",
        "api": f"{verb} to {plan.model.id} over its API, {price}.",
        "batch": f"{verb} to {plan.model.id} as a batch, answered within a day, {price}.",
    }[plan.route]
    if chosen.cached <= 0:
        return f"{counted(misses)} {where}"
    have = "is" if chosen.cached == 1 else "are"
    return f"{chosen.cached:,} of {counted(chosen.texts)} {have} in the cache; the other {misses:,} {where}"


def _uncapital(text: str) -> str:
    return text if "/" in text.split(" ", 1)[0] else text[:1].lower() + text[1:]
