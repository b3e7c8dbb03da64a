"""Policies' pieces: a card, the form, what it would change, the versions, the account's budget.

The form has no `st.form` around it, so that the models that are left and the differences are seen while it is filled
in. Its widgets carry the policy's name and version in their keys: a saved or another policy starts them afresh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import streamlit as st

from pages.components import access, widgets
from pages.components.budgets import budget_rows
from pages.components.format import md, percent, plural, when
from pages.components.format import quality as score
from router.domain.catalog import quality
from router.domain.errors import RouterError
from router.domain.policy import DEADLINES, GOALS, LONG_TEXTS, QUERIES, WHEN_EXHAUSTED, differences, validate
from router.domain.values import Policy
from router.engine import Router
from router.host import Host

GOAL_WORDS = {
    "economy": ("Economy", "The cheapest model that is good enough."),
    "balanced": ("Balanced", "The best model while spending is on pace, the cheapest while it is ahead."),
    "quality": ("Quality", "The best model that the budgets allow."),
}
EXHAUSTED_WORDS = {
    "local": "Use the local model",
    "wait": "Wait: embed what fits, leave the rest for the next window",
    "refuse": "Refuse",
}
DEADLINE_WORDS = {"now": "Answer now", "24h": "Within a day, for the batch price (files and jobs)"}
LONG_WORDS = {
    "split": "Split and average",
    "refuse": "Refuse",
    "cut": "Cut, and say so",
}
NAMED = 6
"""Models named under the slider; the others are counted."""
QUERY_WORDS = {"same": "the model of its documents", "cheapest": "the cheapest of its family"}


# ---- the list ----------------------------------------------------------------------------------


def card(router: Router, policy: Policy, edit: Callable[[str], None]) -> None:
    """A policy at a glance: goal, what is allowed, budgets as bars, what it chose this week."""
    title, goal = "local only" if policy.local_only else policy.goal, GOAL_WORDS[policy.goal][1]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{md(policy.name)}**", width="content")
        st.badge(title, color="blue" if policy.local_only else "gray")
        st.space("stretch")
        st.button(
            "Edit",
            key=f"edit {policy.name}",
            icon=":material/edit:",
            type="tertiary",
            on_click=edit,
            args=(policy.name,),
        )
    rules = ["On this machine, for nothing." if policy.local_only else goal]
    if policy.min_quality is not None:
        rules.append(f"Quality of at least {policy.min_quality:g}.")
    if policy.allow != ("*",):
        rules.append(f"Models: {', '.join(policy.allow)}.")
    st.caption(md(" ".join(rules)))
    own = [s for s in router.ledger.states(policy.name) if s.owner != "account"]
    for state in own:
        widgets.budget(state, policy.timezone)
    if not own and not policy.local_only:
        st.caption("No budget of its own: it stands under the account budget alone.")
    _week(router, policy)


def _week(router: Router, policy: Policy) -> None:
    """What it chose in the last seven days."""
    now = router.clock()
    sums = router.usage.sums(since=now - 7 * 86_400, until=now, by=("route", "model"), where={"policy": policy.name})
    routes: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for (route, model), s in sums:
        routes[str(route)] += s.texts
        models[str(model)] += s.texts
    answered = {name: routes[name] for name in ("cache", "local", "api", "batch")}
    if any(answered.values()):
        widgets.route_badges(answered)
        (most, texts), *_ = models.most_common(1)
        share = percent(texts / models.total())
        st.caption(f"Distinct texts of the last seven days; {share} with {md(most)}.")
    else:
        st.caption("Not used in the last seven days.")


# ---- the form ----------------------------------------------------------------------------------


def new(router: Router) -> Policy | RouterError:
    """A draft with a name of its own, that begins as the defaults or as another policy is."""
    one, other = st.columns(2)
    name = one.text_input("Name", max_chars=64, key="name /0").strip()
    like = other.selectbox(
        "Begin as",
        [policy.name for policy in router.policies.all()],
        index=None,
        placeholder="the defaults",
        key="like",
    )
    start = Policy(name="") if like is None else replace(router.policies.get(like), name="", version=0)
    draft = form(router, start, like=like or "")
    return draft if isinstance(draft, RouterError) else replace(draft, name=name)


def form(router: Router, saved: Policy, *, like: str = "") -> Policy | RouterError:
    """The draft that the form's fields make, or what is wrong with a field."""
    at = f"{saved.name}/{saved.version}{like}"
    with st.container(key="goals"):  # three cards; see style.css
        goal = st.radio(
            "Goal",
            GOALS,
            index=GOALS.index(saved.goal),
            format_func=lambda g: GOAL_WORDS[g][0],
            captions=[GOAL_WORDS[g][1] for g in GOALS],
            key=f"goal {at}",
        )
    local_only = st.toggle(
        "Local models only", saved.local_only, key=f"local {at}", help="Nothing leaves this machine."
    )
    ids = [model.id for model in router.catalog.models]
    patterns = ["*", *dict.fromkeys(f"{m.provider}/*" for m in router.catalog.models), *ids]
    allow = st.multiselect(
        "Allowed models",
        list(dict.fromkeys([*saved.allow, *patterns])),
        default=list(saved.allow),
        accept_new_options=True,
        key=f"allow {at}",
        help="`*` is every model, `openai/*` every one of OpenAI. A pattern of your own may be typed.",
    )
    floor = _quality(router, saved, at, allow, local_only)
    st.markdown("**Budgets**")
    budgets = budget_rows(saved.budgets, key=at)
    exhausted = widgets.pick(
        st, "When the money is gone", WHEN_EXHAUSTED, saved.when_exhausted, EXHAUSTED_WORDS, key=f"exhausted {at}",
        help="A collection in a paid space never falls to the local model: what is cached is served, the rest waits or"
        " is refused.",
    )  # fmt: skip
    one, other = st.columns(2)
    deadline = widgets.pick(
        one, "Deadline", DEADLINES, saved.deadline, DEADLINE_WORDS, key=f"deadline {at}",
        help="The batch tier costs about half, where a provider has one.",
    )  # fmt: skip
    long_texts = widgets.pick(
        other, "Texts longer than the model takes", LONG_TEXTS, saved.long_texts, LONG_WORDS, key=f"long {at}",
        help="Split: even pieces, averaged by their tokens. Cut: to the model's length; the answer says which.",
    )  # fmt: skip
    zone = one.selectbox(
        "Time zone", zones(saved.timezone), key=f"zone {at}",
        help="Days, weeks and months of the budgets begin at its midnight.",
    )  # fmt: skip
    normalise = other.toggle(
        "Normalise texts",
        saved.normalise,
        key=f"normalise {at}",
        help="Unicode NFC, line ends as \\n, no white space at the ends: texts that look the same are the same.",
    )
    queries = widgets.pick(
        other, "Queries of a collection go to", QUERIES, saved.queries, QUERY_WORDS, key=f"queries {at}",
        help="Models of one family (voyage-4) share a space: documents may be on the best, queries on the cheapest.",
    )  # fmt: skip
    if isinstance(budgets, RouterError):
        return budgets
    return replace(
        saved, goal=goal, min_quality=floor, allow=tuple(allow), local_only=local_only,
        budgets=budgets, when_exhausted=exhausted, deadline=deadline, long_texts=long_texts, normalise=normalise,
        timezone=zone, queries=queries,
    )  # fmt: skip


def _quality(router: Router, saved: Policy, at: str, allow: Sequence[str], local_only: bool) -> float | None:
    """The floor, and the models that are left above it."""
    scale = router.catalog.scale
    value = st.slider(
        f"Least quality ({scale}, 0 is no floor)",
        0.0,
        100.0,
        float(saved.min_quality or 0.0),
        0.5,
        format="%.1f",
        key=f"floor {at}",
        help="With a floor, a model without a score on this scale is never chosen.",
    )
    left = [
        m
        for m in router.catalog.models
        if any(fnmatchcase(m.id, pattern) for pattern in allow) and (m.local or not local_only)
        if not value or (quality(m, scale) or 0.0) >= value
    ]
    ready = [(m.id, quality(m, scale)) for m in left if router.configured(m)]
    ready.sort(key=lambda one: -(one[1] or 0.0))
    names = [name if mark is None else f"{name} ({score(mark)})" for name, mark in ready[:NAMED]]
    names += [f"and {len(ready) - NAMED} more"] * (len(ready) > NAMED)
    words = f"**{plural(len(left), 'model')} left**, {len(ready)} of them with a key or installed"
    st.caption(
        f"{words}{': ' + md(', '.join(names)) if names else ''}."
        if left
        else "**No model is left**: lower the floor or allow more."
    )
    return value or None


def zones(first: str) -> list[str]:
    """Every IANA zone, the usual ones first."""
    from zoneinfo import available_timezones

    usual = [first, "UTC", "Europe/London", "Europe/Paris", "America/New_York", "America/Los_Angeles", "Asia/Tokyo"]
    return list(dict.fromkeys([*usual, *sorted(z for z in available_timezones() if "/" in z)]))


# ---- beside the form ---------------------------------------------------------------------------


def review(host: Host, saved: Policy | None, draft: Policy | RouterError) -> Policy | None:
    """What the draft would change, or what is wrong with it; the policy as saved, once it is."""
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
                st.error(f"There is a policy “{md(draft.name)}” already.", icon=":material/block:")
                return None
            validate(draft, ids)
        except RouterError as error:
            widgets.say_no(error)
            return None
        lines = differences(saved or Policy(name=draft.name), draft)
        if saved is not None and not lines:
            st.caption("Nothing is changed yet.")
        for line in lines:
            st.markdown(f"- {md(line)}")
        if saved is None and not lines:
            st.caption("As the defaults: balanced, every model allowed, no budget of its own.")
        unchanged = saved is not None and not lines
        if st.button("Save", type="primary", icon=":material/save:", **access.only_editors(disabled=unchanged)):
            with widgets.in_words():
                return host.run(router.policies.save(draft, ids))
    return None


def history(router: Router, name: str) -> None:
    """Every version with what it changed, newest first."""
    versions, zone = router.policies.versions(name), router.policies.zone(name)
    with st.expander(f"Versions ({len(versions)})"):
        for number in range(len(versions) - 1, -1, -1):
            policy, at, deleted = versions[number]
            changes = differences(versions[number - 1][0], policy) if number else ["the first version"]
            words = "deleted" if deleted else "; ".join(changes) or "no change"
            st.markdown(f"**{policy.version}** · {md(when(at, zone))} {md(zone)} · {md(words)}")


def delete(host: Host, name: str) -> bool:
    """A button that asks once more; True where the policy was deleted."""
    with st.popover("Delete", icon=":material/delete:"):
        st.markdown(
            f"Delete **{md(name)}**? Requests that name it will be refused. What it spent stays in the books, and"
            " counts again if the name comes back."
        )
        if st.button("Delete the policy", type="primary", key=f"delete {name}", **access.only_editors()):
            with widgets.in_words():
                host.run(host.router.policies.delete(name))
                return True
    return False


def account(host: Host) -> None:
    """The budgets over all policies, with their bars."""
    router = host.router
    for state in router.ledger.states(""):
        widgets.budget(state, router.policies.account_zone())
    saved = Policy(name="account", budgets=router.policies.account_budgets(), timezone=router.policies.account_zone())
    with st.expander("Change the account budget"):
        budgets = budget_rows(saved.budgets, key=f"account/{hash(saved)}")
        zone = st.selectbox(
            "Time zone", zones(saved.timezone), key=f"zone account/{hash(saved)}", width=320,
            help="Where its days, weeks and months begin. What is spent in them is counted anew when it changes.",
        )  # fmt: skip
        if isinstance(budgets, RouterError):
            widgets.say_no(budgets)
        else:
            draft = Policy(name="account", budgets=budgets, timezone=zone)
            lines = differences(saved, draft)
            for line in lines:
                st.markdown(f"- {md(line)}")
            if not budgets:
                st.warning("Without an account budget, only the policies' own budgets hold.", icon=":material/warning:")
            options = access.only_editors(disabled=not lines)
            if st.button("Save the account budget", icon=":material/save:", **options):
                with widgets.in_words():
                    validate(draft, ["*"])
                    host.run(router.policies.set_account_budgets(budgets, zone))
                    st.session_state["said"] = "Saved: the account budget. It counts from the next call on."
                    st.rerun()
