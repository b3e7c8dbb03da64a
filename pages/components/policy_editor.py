"""Policies: a card, the form, its differences, the versions, the account budget.

The form is not an `st.form`, so that the remaining models and the differences are updated while it is filled in. The
keys of its widgets contain the policy's name and version, so another policy or version starts with fresh ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from zoneinfo import available_timezones

import streamlit as st

from pages.components import widgets
from pages.components.format import PER, listed, md, percent, plural, when
from pages.components.format import quality as score
from router.domain.catalog import quality
from router.domain.errors import RouterError
from router.domain.money import parse_usd, to_json
from router.domain.policy import differences, validate
from router.domain.values import ROUTES, Budget, Policy
from router.engine import Router
from router.host import Host

GOAL_WORDS = {
    "economy": ("Economy", "The cheapest model that is good enough."),
    "balanced": ("Balanced", "The best model while spending is on pace, the cheapest while it is ahead."),
    "quality": ("Quality", "The best model that the budgets allow."),
}
PICKS = {
    "when_exhausted": (
        "When the money is gone",
        {
            "local": "Use the local model",
            "wait": "Wait: embed what fits, the rest in the next window",
            "refuse": "Refuse",
        },
        "A collection in a paid space never falls back to the local model: cached texts are served, the rest waits or"
        " is refused.",
    ),
    "deadline": (
        "Deadline",
        {"now": "Answer now", "24h": "Within a day, at the batch price (files and jobs)"},
        "The batch tier costs about half, if the provider has one.",
    ),
    "long_texts": (
        "Texts longer than the model takes",
        {"split": "Split and average", "refuse": "Refuse", "cut": "Cut, and report it"},
        "Split: even pieces, averaged by their tokens. Cut: to the model's limit; the answer names the texts.",
    ),
    "queries": (
        "Queries of a collection go to",
        {"same": "the model of its documents", "cheapest": "the cheapest of its family"},
        "Models of a family (voyage-4) share a space: documents can use the best one, queries the cheapest.",
    ),
}
"""Fields of a policy that are picked from a list: label, options in words, help."""
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
        edit = partial(st.query_params.update, {"policy": policy.name})
        st.button("Edit", key=f"edit {policy.name}", icon=":material/edit:", type="tertiary", on_click=edit)
    rules = ["Free, on this machine." if policy.local_only else goal]
    rules += [f"Quality at least {policy.min_quality:g}."] if policy.min_quality is not None else []
    rules += [f"Models: {', '.join(policy.allow)}."] if policy.allow != ("*",) else []
    st.caption(md(" ".join(rules)))
    own = [s for s in router.budgets(policy.name) if s.owner != "account"]
    for state in own:
        widgets.budget(state, policy.timezone)
    if not own and not policy.local_only:
        st.caption("No budget of its own; only the account budget applies.")
    now = router.clock()
    sums = router.usage.sums(since=now - 7 * 86_400, until=now, by=("route", "model"), where={"policy": policy.name})
    routes: Counter[Any] = Counter()
    models: Counter[Any] = Counter()
    for (route, model), s in sums:
        routes[route] += s.texts
        models[model] += s.texts
    answered = {name: routes[name] for name in ROUTES}
    if any(answered.values()):
        widgets.route_badges(answered)
        ((most, texts),) = models.most_common(1)
        share = percent(texts / models.total())
        st.caption(f"Distinct texts of the last seven days; {share} with {md(most)}.")
    else:
        st.caption("Not used in the last seven days.")


# ---- the form ----------------------------------------------------------------------------------


def new(router: Router) -> Policy | RouterError:
    """A draft with a new name; it starts from the defaults or from another policy."""
    one, other = st.columns(2)
    name = one.text_input("Name", max_chars=64, key="name /0").strip()
    names = [policy.name for policy in router.policies.all()]
    like = other.selectbox("Start from", names, index=None, placeholder="the defaults", key="like")
    start = Policy(name="") if like is None else replace(router.policies.get(like), name="", version=0)
    draft = form(router, start, like=like or "")
    return draft if isinstance(draft, RouterError) else replace(draft, name=name)


def form(router: Router, saved: Policy, *, like: str = "") -> Policy | RouterError:
    """The draft in the form's fields, or what is wrong with a field."""
    at = f"{saved.name}/{saved.version}{like}"
    with st.container(key="goals"):  # three cards; see style.css
        goals = list(GOAL_WORDS)
        goal = st.radio(
            "Goal", goals, index=goals.index(saved.goal), format_func=lambda g: GOAL_WORDS[g][0],
            captions=[caption for _, caption in GOAL_WORDS.values()], key=f"goal {at}",
        )  # fmt: skip
    help = "Nothing leaves this machine."
    local_only = st.toggle("Local models only", saved.local_only, key=f"local {at}", help=help)
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

    def pick(place: Any, field: str) -> Any:
        label, words, help = PICKS[field]
        return widgets.pick(place, label, getattr(saved, field), words, key=f"{field} {at}", help=help)

    exhausted = pick(st, "when_exhausted")
    one, other = st.columns(2)
    deadline, long_texts = pick(one, "deadline"), pick(other, "long_texts")
    help = "The days, weeks and months of the budgets begin at midnight there."
    zone = _zone(one, saved.timezone, key=f"zone {at}", help=help)
    help = "Unicode NFC, line ends as \\n, no white space at the ends: texts that look the same are the same."
    normalise = other.toggle("Normalise texts", saved.normalise, key=f"normalise {at}", help=help)
    queries = pick(other, "queries")
    if isinstance(budgets, RouterError):
        return budgets
    return replace(
        saved, goal=goal, min_quality=floor, allow=tuple(allow), local_only=local_only, budgets=budgets, timezone=zone,
        when_exhausted=exhausted, deadline=deadline, long_texts=long_texts, normalise=normalise, queries=queries,
    )  # fmt: skip


def _quality(router: Router, saved: Policy, at: str, allow: Sequence[str], local_only: bool) -> float | None:
    """The quality floor, with the models that are left."""
    scale = router.catalog.scale
    value = st.slider(
        f"Minimum quality ({scale}; 0 is none)", 0.0, 100.0, float(saved.min_quality or 0.0), 0.5, format="%.1f",
        key=f"floor {at}", help="With a minimum, models without a score on this scale are never chosen.",
    )  # fmt: skip
    left = {
        m: quality(m, scale)
        for m in router.catalog.models
        if any(fnmatchcase(m.id, pattern) for pattern in allow) and (m.local or not local_only)
        if (quality(m, scale) or 0.0) >= value
    }
    ready = sorted((m for m in left if router.configured(m)), key=lambda m: -(left[m] or 0.0))
    names = listed([m.id if left[m] is None else f"{m.id} ({score(left[m])})" for m in ready], NAMED)
    words = f"**{plural(len(left), 'model')} left**, {len(ready)} of them with a key or installed"
    some = f"{words}{': ' + md(', '.join(names)) if names else ''}."
    st.caption(some if left else "**No model is left**: lower the minimum or allow more.")
    return value or None


def _zone(place: Any, first: str, **more: Any) -> str:
    """A select box of every IANA zone, the usual ones first."""
    usual = [first, "UTC", "Europe/London", "Europe/Paris", "America/New_York", "America/Los_Angeles", "Asia/Tokyo"]
    zones = list(dict.fromkeys([*usual, *sorted(z for z in available_timezones() if "/" in z)]))
    return str(place.selectbox("Time zone", zones, **more))


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
            window = widgets.pick(st, "Per", usual.window, PER, key=f"window {row} {key}")
            help = "A hard budget is never exceeded; a soft one only makes the goal `balanced` spend less."
            kinds = {True: "hard", False: "soft"}
            hard = widgets.pick(st, "Kind", usual.hard, kinds, key=f"hard {row} {key}", help=help)
            take, help = partial(rows.remove, row), "Takes effect when you save."
            st.button("Remove", icon=":material/close:", key=f"remove {row} {key}", on_click=take, help=help)
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


def review(host: Host, saved: Policy | None, draft: Policy | RouterError) -> None:
    """The draft's changes or its error, and the button to save."""
    policies = host.router.policies
    ids = [model.id for model in host.router.catalog.models]
    with st.container(border=True), widgets.errors_shown():
        st.markdown("**Before you save**")
        if isinstance(draft, RouterError):
            raise draft
        if saved is None and not draft.name:
            st.caption("Give the policy a name.")
            return
        if saved is None and any(p.name == draft.name for p in policies.all()):
            st.error(f"A policy “{md(draft.name)}” exists already.", icon=":material/block:")
            return
        validate(draft, ids)
        lines = differences(saved or Policy(name=draft.name), draft)
        for line in lines:
            st.markdown(f"- {md(line)}")
        if not lines:
            defaults = "The defaults: balanced, every model allowed, no budget of its own."
            st.caption("Nothing is changed yet." if saved else defaults)
        if widgets.act("Save", "save", type="primary", disabled=saved is not None and not lines):
            widgets.run(
                host, policies.save(draft, ids), then=lambda kept: st.query_params.update({"policy": kept.name}),
                notice=lambda kept: f"Saved: {kept.name}, version {kept.version}. Its budgets apply from now on.",
            )  # fmt: skip


def history(router: Router, name: str) -> None:
    """Every version with its changes, newest first."""
    versions, zone = router.policies.versions(name), router.policies.zone(name)
    with st.expander(f"Versions ({len(versions)})"):
        for before, (policy, at, deleted) in reversed(list(zip([None, *versions], versions, strict=False))):
            changes = differences(before[0], policy) if before else ["the first version"]
            words = "deleted" if deleted else "; ".join(changes) or "no change"
            st.markdown(f"**{policy.version}** · {md(when(at, zone))} {md(zone)} · {md(words)}")


def delete(host: Host, name: str) -> None:
    """A button that asks for confirmation."""
    with st.popover("Delete", icon=":material/delete:"):
        st.markdown(
            f"Delete **{md(name)}**? Requests that name it will be refused. Its past spending is kept, and counts again"
            " if a policy of this name is created."
        )
        if widgets.act("Delete the policy", type="primary", key=f"delete {name}"):
            said = f"Deleted: {name}. Its past spending is kept."
            widgets.run(host, host.router.policies.delete(name), notice=said, then=lambda _: st.query_params.clear())


def account(host: Host) -> None:
    """The account's budgets, and the form to change them."""
    router = host.router
    now = router.policies.account_zone()
    for state in router.budgets():
        widgets.budget(state, now)
    saved = Policy(name="account", budgets=router.policies.account_budgets(), timezone=now)
    with st.expander("Change the account budget"):
        budgets = _budget_rows(saved.budgets, key=f"account/{hash(saved)}")
        help = "Its days, weeks and months begin at midnight there. Changing it counts their spending anew."
        zone = _zone(st, saved.timezone, key=f"zone account/{hash(saved)}", width=320, help=help)
        if isinstance(budgets, RouterError):
            widgets.show_error(budgets)
        else:
            draft = Policy(name="account", budgets=budgets, timezone=zone)
            lines = differences(saved, draft)
            for line in lines:
                st.markdown(f"- {md(line)}")
            if not budgets:
                words = "Without an account budget, only the policies' own budgets apply."
                st.warning(words, icon=":material/warning:")
            if widgets.act("Save the account budget", "save", disabled=not lines):
                with widgets.errors_shown():
                    validate(draft, ["*"])
                    said = "Saved: the account budget. It applies from the next call on."
                    widgets.run(host, router.policies.set_account_budgets(budgets, zone), notice=said)
