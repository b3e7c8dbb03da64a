"""Rows for the tables of the Models page: catalog, price overrides, estimates, providers. No Streamlit here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal

from pages.components.format import count, percent, quality, when
from pages.components.tables import Record
from router.config import Endpoint
from router.dispatch.limiter import Health
from router.domain.pricing import price_on
from router.domain.ratios import Errors
from router.domain.values import Model
from router.reporting.price_check import Checked, Override

STATES = {
    "ready": ("ready", "green"), "key": ("no key", "gray"), "weights": ("not installed", "gray"),
    "legacy": ("legacy", "orange"), "retiring": ("retires soon", "red"), "retired": ("retired", "red"),
}  # fmt: skip
OTHER_SCALE = "MTEB-v2-en"


def models(
    shown: Sequence[Model],
    *,
    today: date,
    configured: Callable[[Model], bool],
    scale: str,
    overrides: Iterable[Override] = (),
) -> list[Record]:
    """The catalog: state, price and its source, scores, limits; a column "was" where a price is overridden."""
    old = {o.model: per_million(o.old and o.old.now) for o in overrides if o.new.since <= today}
    was = {model.id: {"was": old.get(model.id, "")} if old else {} for model in shown}
    return [_model(model, configured(model), today, scale, was[model.id]) for model in shown]


def _model(model: Model, ready: bool, today: date, scale: str, was: Record) -> Record:

    def limit(number: int | None) -> str:
        return "–" if number is None else f"{number:,}"

    price, hand = price_on(model, today), " *"
    sizes = ", any lower" if model.sizes == "any" else "".join(f", {n:,}" for n in sorted(model.sizes, reverse=True))
    end = "retired" if model.retired(today) else "retiring" if model.retiring(today) else "legacy"
    states = ["ready" if ready else "weights" if model.local else "key", *[end] * (end != "legacy" or model.legacy)]
    return {
        "model": model.id,
        "state": [STATES[name][0] for name in states],
        "now": per_million(price and price.now) + (hand if price and price.second_hand else ""),
        **was,
        "batch": "–" if model.local or price is None or price.batch is None
        else per_million(price.batch) + (hand if price.batch_second_hand else ""),
        "read": "–" if model.local or price is None else f"{price.checked:%-d %b %Y}",
        scale: _score(model, scale),
        OTHER_SCALE: _score(model, OTHER_SCALE),
        "dimensions": f"{model.dimensions:,}{sizes}",
        "space": model.space,
        "languages": "English" if model.languages == "en" else "many",
        "tokens a text": limit(model.limits.tokens_per_text),
        "texts a call": limit(model.limits.texts_per_call),
        "tokens a call": limit(model.limits.tokens_per_call),
        "served until": "" if model.retires is None else f"{model.retires:%-d %b %Y}",
        "price from": price.source if price else "unknown, so never used",
    }  # fmt: skip


def overrides(rows: Iterable[Override]) -> list[Record]:
    """The prices that router.toml overrides."""

    def change(old: Decimal | None, new: Decimal | None) -> str:
        return " → ".join("not sold" if price is None else per_million(price) for price in (old, new))

    return [
        {
            "model": o.model,
            "from": f"{o.new.since:%-d %b %Y}",
            "now": change(o.old and o.old.now, o.new.now),
            "batch": change(o.old and o.old.batch, o.new.batch),
            "price from": o.new.source,
        }
        for o in rows
    ]


def expected(errors: Mapping[str, Errors]) -> list[Record]:
    """How far off the expected tokens were, for models whose tokenizer is not at hand."""
    return [
        {
            "model": model,
            "calls": one.calls,
            "off by": percent(one.off),
            "a call within": percent(one.spread),
            "expected": f"{count(one.expected)} tokens",
            "billed": f"{count(one.billed)} tokens",
        }
        for model, one in errors.items()
    ]


def crosschecked(rows: Iterable[Checked], overrides: Iterable[Override]) -> list[Record]:
    """Our prices beside those of genai-prices; those that differ come first."""
    words = {"same": "agrees", "unknown to them": "not in genai-prices", "unknown to us": "we have no price"}
    ours = {o.model for o in overrides}
    return [
        {
            "model": c.model,
            "ours": per_million(c.ours),
            "genai-prices": "–" if c.theirs is None else per_million(c.ours if c.verdict == "same" else c.theirs),
            "": words.get(c.verdict, "differs: set in router.toml" if c.model in ours else "differs: check it"),
        }
        for c in sorted(rows, key=lambda c: c.verdict != "differs")
    ]


def per_million(price: Decimal | None) -> str:
    """A price in dollars per million tokens, with the source's digits: `$0.02`, `free`; None is `unknown`."""
    if price is None:
        return "unknown"
    return f"${price:f}" if price else "free"


def _score(model: Model, scale: str) -> str:
    score = next((s for s in model.scores if s.scale == scale), None)
    return "–" if score is None else quality(score.value) + (" *" if score.second_hand else "")


def providers(limiters: Iterable[Health], endpoints: Iterable[Endpoint], *, now: float, zone: str) -> list[Record]:
    """Each paid provider: whether it has a key, whether it is temporarily unavailable, and its last error."""
    keyed = {endpoint.name for endpoint in endpoints if endpoint.key is not None}
    return [
        {
            "provider": limiter.provider,
            "state": state_of(limiter, configured=limiter.provider in keyed, now=now, zone=zone),
            "calls at once": f"{limiter.in_flight:,} of {limiter.width:,}",
            "failures in a row": limiter.failures_in_row,
            "last error": limiter.last_error or "–",
        }
        for limiter in limiters
    ]


def state_of(limiter: Health, *, configured: bool, now: float, zone: str) -> str:
    """A provider's state in words; `now` in epoch seconds."""
    if not configured:
        return "no key"
    if limiter.open_until > now:
        return f"temporarily unavailable, until {when(limiter.open_until, zone)}"
    if limiter.failures_in_row:
        return "failing, still in use"
    return "ready"
