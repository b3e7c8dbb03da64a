"""Policies: a card, the form, its differences, the versions, the account budget.

The form is not an `st.form`, so that the remaining models and the differences are updated while it is filled in. The
keys of its widgets contain the policy's name and version, so another policy or version starts with fresh ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import streamlit as st

from pages.components import access, widgets
from pages.components.format import listed, md, percent, plural, when
from pages.components.format import quality as score
from router.domain.catalog import quality
from router.domain.errors import RouterError
from router.domain.money import parse_usd, to_json
from router.domain.policy import (
    DEADLINES,
    GOALS,
    LONG_TEXTS,
    QUERIES,
    WHEN_EXHAUSTED,
    WINDOWS,
    differences,
    validate,
)
from router.domain.values import ROUTES, Budget, Policy
from router.engine import Router
from router.host import Host

GOAL_WORDS = {
    "economy": ("Economy", "The cheapest model that is good enough."),
    "balanced": ("Balanced", "The best model while spending is on pace, the cheapest while it is ahead."),
    "quality": ("Quality", "The best model that the budgets allow."),
}
EXHAUSTED_WORDS = {
    "local": "Use the local model",
    "wait": "Wait: embed what fits, the rest in the next window",
    "refuse": "Refuse",
}
DEADLINE_WORDS = {"now": "Answer now", "24h": "Within a day, at the batch price (files and jobs)"}
LONG_WORDS = {"split": "Split and average", "refuse": "Refuse", "cut": "Cut, and report it"}
QUERY_WORDS = {"same": "the model of its documents", "cheapest": "the cheapest of its family"}
PER_WORDS = {"request": "a request", "day": "a day", "week": "a week", "month": "a month", "total": "in total"}
KIND_WORDS = {True: "hard", False: "soft"}
NAMED = 6
"""Models named under the slider; the others are counted."""


# ---- the list ----------------------------------------------------------------------------------


def card(router: Router, policy: Policy) -> None:
    """A policy at a glance: goal, allowed models, budgets, and the routes of this week."""
    title, goal = "local only" if policy.local_only else policy.goal, GOAL_WORDS[policy.goal][1]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{md(policy.name)}**", width="content")
        st.badge(title, color="blue" if policy.local_only else "gray")
        st.space("stretch")
        st.button(
            "Edit", key=f"edit {policy.name}", icon=":material/edit:", type="tertiary",
            on_click=st.query_params.update, args=({"policy": policy.name},),
        )  # fmt: skip
    rules = ["Free, on this machine." if policy.local_only else goal]
    if policy.min_quality is not None:
        rules.append(f"Quality at least {policy.min_quality:g}.")
    if policy.allow != ("*",):
        rules.append(f"Models: {', '.join(policy.allow)}.")
    st.caption(md(" ".join(rules)))
    own = [s for s in router.budgets(policy.name) if s.owner != "account"]
    for state in own:
        widgets.budget(state, policy.timezone)
    if not own and not policy.local_only:
        st.caption("No budget of its own; only the account budget applies.")
    _week(router, policy)


def _week(router: Router, policy: Policy) -> None:
    """Its routes in the last seven days."""
    now = router.clock()
    sums = router.usage.sums(since=now - 7 * 86_400, until=now, by=("route", "model"), where={"policy": policy.name})
    routes: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for (route, model), s in sums:
        routes[str(route)] += s.texts
        models[str(model)] += s.texts
    answered = {name: routes[name] for name in ROUTES}
    if any(answered.values()):
        widgets.route_badges(answered)
        (most, texts), *_ = models.most_common(1)
        share = percent(texts / models.total())
        st.caption(f"Distinct texts of the last seven days; {share} with {md(most)}.")
    else:
        st.caption("Not used in the last seven days.")


# ---- the form ----------------------------------------------------------------------------------


def new(router: Router) -> Policy | RouterError:
    """A draft with a new name; it starts from the defaults or from another policy."""
    one, other = st.columns(2)
    name = one.text_input("Name", max_chars=64, key="name /0").strip()
    like = other.selectbox(
        "Start from", [p.name for p in router.policies.all()], index=None, placeholder="the defaults", key="like"
    )
    start = Policy(name="") if like is None else replace(router.policies.get(like), name="", version=0)
    draft = form(router, start, like=like or "")
    return draft if isinstance(draft, RouterError) else replace(draft, name=name)


def form(router: Router, saved: Policy, *, like: str = "") -> Policy | RouterError:
    """The draft in the form's fields, or what is wrong with a field."""
    at = f"{saved.name}/{saved.version}{like}"
    with st.container(key="goals"):  # three cards; see style.css
        goal = st.radio(
            "Goal", GOALS, index=GOALS.index(saved.goal), format_func=lambda g: GOAL_WORDS[g][0],
            captions=[GOAL_WORDS[g][1] for g in GOALS], key=f"goal {at}",
        )  # fmt: skip
    local_only = st.toggle(
        "Local models only", saved.local_only, key=f"local {at}", help="Nothing leaves this machine."
    )
    ids = [model.id for model in router.catalog.models]
    patterns = ["*", *dict.fromkeys(f"{m.provider}/*" for m in router.catalog.models), *ids]
    allow = st.multiselect(
        "Allowed models", list(dict.fromkeys([*saved.allow, *patterns])), default=list(saved.allow),
        accept_new_options=True, key=f"allow {at}",
        help="`*` is every model, `openai/*` every model of OpenAI. You can type other patterns.",
    )  # fmt: skip
    floor = _quality(router, saved, at, allow, local_only)
    st.markdown("**Budgets**")
    budgets = _budget_rows(saved.budgets, key=at)
    exhausted = widgets.pick(
        st, "When the money is gone", WHEN_EXHAUSTED, saved.when_exhausted, EXHAUSTED_WORDS, key=f"exhausted {at}",
        help="A collection in a paid space never falls back to the local model: cached texts are served, the rest waits"
        " or is refused.",
    )  # fmt: skip
    one, other = st.columns(2)
    deadline = widgets.pick(
        one, "Deadline", DEADLINES, saved.deadline, DEADLINE_WORDS, key=f"deadline {at}",
        help="The batch tier costs about half, if the provider has one.",
    )  # fmt: skip
    long_texts = widgets.pick(
        other, "Texts longer than the model takes", LONG_TEXTS, saved.long_texts, LONG_WORDS, key=f"long {at}",
        help="Split: even pieces, averaged by their tokens. Cut: to the model's limit; the answer names the texts.",
    )  # fmt: skip
    zone = one.selectbox(
        "Time zone", zones(saved.timezone), key=f"zone {at}",
        help="The days, weeks and months of the budgets begin at midnight there.",
    )  # fmt: skip
    normalise = other.toggle(
        "Normalise texts", saved.normalise, key=f"normalise {at}",
        help="Unicode NFC, line ends as \\n, no white space at the ends: texts that look the same are the same.",
    )  # fmt: skip
    queries = widgets.pick(
        other, "Queries of a collection go to", QUERIES, saved.queries, QUERY_WORDS, key=f"queries {at}",
        help="Models of a family (voyage-4) share a space: documents can use the best one, queries the cheapest.",
    )  # fmt: skip
    if isinstance(budgets, RouterError):
        return budgets
    return replace(
        saved, goal=goal, min_quality=floor, allow=tuple(allow), local_only=local_only,
        budgets=budgets, when_exhausted=exhausted, deadline=deadline, long_texts=long_texts, normalise=normalise,
        timezone=zone, queries=queries,
    )  # fmt: skip


def _quality(router: Router, saved: Policy, at: str, allow: Sequence[str], local_only: bool) -> float | None:
    """The quality floor, with the models that are left."""
    scale = router.catalog.scale
    value = st.slider(
        f"Minimum quality ({scale}; 0 is none)", 0.0, 100.0, float(saved.min_quality or 0.0), 0.5, format="%.1f",
        key=f"floor {at}", help="With a minimum, models without a score on this scale are never chosen.",
    )  # fmt: skip
    left = [
        m
        for m in router.catalog.models
        if any(fnmatchcase(m.id, pattern) for pattern in allow) and (m.local or not local_only)
        if not value or (quality(m, scale) or 0.0) >= value
    ]
    ready = [(m.id, quality(m, scale)) for m in left if router.configured(m)]
    ready.sort(key=lambda one: -(one[1] or 0.0))
    names = listed([name if mark is None else f"{name} ({score(mark)})" for name, mark in ready], NAMED)
    words = f"**{plural(len(left), 'model')} left**, {len(ready)} of them with a key or installed"
    st.caption(
        f"{words}{': ' + md(', '.join(names)) if names else ''}."
        if left
        else "**No model is left**: lower the minimum or allow more."
    )
    return value or None


def zones(first: str) -> list[str]:
    """Every IANA zone, the usual ones first."""
    from zoneinfo import available_timezones

    usual = [first, "UTC", "Europe/London", "Europe/Paris", "America/New_York", "America/Los_Angeles", "Asia/Tokyo"]
    return list(dict.fromkeys([*usual, *sorted(z for z in available_timezones() if "/" in z)]))


def _budget_rows(saved: Sequence[Budget], *, key: str) -> tuple[Budget, ...] | RouterError:
    """The budgets in the fields, or what is wrong with an amount. Another `key` starts with other rows.

    Not `st.data_editor`, whose output must not be written back as its input. Amounts are text, never floats.
    """
    rows = st.session_state.setdefault(f"rows {key}", list(range(len(saved))))
    out: list[Budget] = []
    wrong: RouterError | None = None
    for row in list(rows):
        usual = saved[row] if row < len(saved) else Budget(amount=1_000_000_000, window="month")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            plain = to_json(usual.amount).rstrip("0").removesuffix(".")  # `5`, `0.25`
            amount = st.text_input("Dollars", plain, key=f"amount {row} {key}", icon=":material/attach_money:")
            window = widgets.pick(st, "Per", WINDOWS, usual.window, PER_WORDS, key=f"window {row} {key}")
            hard = widgets.pick(
                st, "Kind", (True, False), usual.hard, KIND_WORDS, key=f"hard {row} {key}",
                help="A hard budget is never exceeded; a soft one only makes the goal `balanced` spend less.",
            )  # fmt: skip
            st.button(
                "Remove", icon=":material/close:", key=f"remove {row} {key}", on_click=rows.remove, args=(row,),
                help="Takes effect when you save.",
            )  # fmt: skip
        try:
            out.append(Budget(amount=parse_usd(amount), window=window, hard=hard))
        except RouterError as error:
            st.markdown(f":small[:red[:material/error: {md(error.message)}]]")
            wrong = wrong or error
    st.button(
        "Add a budget", icon=":material/add:", key=f"add {key}",
        on_click=lambda: rows.append(max(rows, default=len(saved) - 1) + 1),
    )  # fmt: skip
    return wrong or tuple(out)


# ---- beside the form ---------------------------------------------------------------------------


def review(host: Host, saved: Policy | None, draft: Policy | RouterError) -> Policy | None:
    """The draft's changes or its error, and the button to save; returns the policy once it is saved."""
    router = host.router
    ids = [model.id for model in router.catalog.models]
    with st.container(border=True):
        st.markdown("**Before you save**")
        try:
            if isinstance(draft, RouterError):
                raise draft
            if saved is None and not draft.name:
                st.caption("Give the policy a name.")
                return None
            if saved is None and any(p.name == draft.name for p in router.policies.all()):
                st.error(f"A policy “{md(draft.name)}” exists already.", icon=":material/block:")
                return None
            validate(draft, ids)
        except RouterError as error:
            widgets.show_error(error)
            return None
        lines = differences(saved or Policy(name=draft.name), draft)
        if saved is not None and not lines:
            st.caption("Nothing is changed yet.")
        for line in lines:
            st.markdown(f"- {md(line)}")
        if saved is None and not lines:
            st.caption("The defaults: balanced, every model allowed, no budget of its own.")
        unchanged = saved is not None and not lines
        if st.button("Save", type="primary", icon=":material/save:", **access.only_editors(disabled=unchanged)):
            with widgets.errors_shown():
                return host.run(router.policies.save(draft, ids))
    return None


def history(router: Router, name: str) -> None:
    """Every version with its changes, newest first."""
    versions, zone = router.policies.versions(name), router.policies.zone(name)
    with st.expander(f"Versions ({len(versions)})"):
        for number in range(len(versions) - 1, -1, -1):
            policy, at, deleted = versions[number]
            changes = differences(versions[number - 1][0], policy) if number else ["the first version"]
            words = "deleted" if deleted else "; ".join(changes) or "no change"
            st.markdown(f"**{policy.version}** · {md(when(at, zone))} {md(zone)} · {md(words)}")


def delete(host: Host, name: str) -> bool:
    """A button that asks for confirmation; True where the policy was deleted."""
    with st.popover("Delete", icon=":material/delete:"):
        st.markdown(
            f"Delete **{md(name)}**? Requests that name it will be refused. Its past spending is kept, and counts again"
            " if a policy of this name is created."
        )
        if st.button("Delete the policy", type="primary", key=f"delete {name}", **access.only_editors()):
            with widgets.errors_shown():
                host.run(host.router.policies.delete(name))
                return True
    return False


def account(host: Host) -> None:
    """The account's budgets, and the form to change them."""
    router = host.router
    for state in router.budgets():
        widgets.budget(state, router.policies.account_zone())
    saved = Policy(name="account", budgets=router.policies.account_budgets(), timezone=router.policies.account_zone())
    with st.expander("Change the account budget"):
        budgets = _budget_rows(saved.budgets, key=f"account/{hash(saved)}")
        zone = st.selectbox(
            "Time zone", zones(saved.timezone), key=f"zone account/{hash(saved)}", width=320,
            help="Its days, weeks and months begin at midnight there. Changing it counts their spending anew.",
        )  # fmt: skip
        if isinstance(budgets, RouterError):
            widgets.show_error(budgets)
        else:
            draft = Policy(name="account", budgets=budgets, timezone=zone)
            lines = differences(saved, draft)
            for line in lines:
                st.markdown(f"- {md(line)}")
            if not budgets:
                st.warning(
                    "Without an account budget, only the policies' own budgets apply.", icon=":material/warning:"
                )
            options = access.only_editors(disabled=not lines)
            if st.button("Save the account budget", icon=":material/save:", **options):
                with widgets.errors_shown():
                    validate(draft, ["*"])
                    said = "Saved: the account budget. It applies from the next call on."
                    widgets.run(host, router.policies.set_account_budgets(budgets, zone), notice=said)
