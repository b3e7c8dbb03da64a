"""The models that the router knows, read from TOML text that says where every price and score comes from.

The reader is strict because a misspelt key here would be wrong money or mixed vectors later: every key that it does
not know, every type that is not the expected one and every contradiction is a `BadInput` that names the place.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NoReturn, TypeVar

from router.domain.errors import BadInput
from router.domain.kinds import KINDS
from router.domain.ratios import ALIKE, Ratios
from router.domain.values import Limits, Model, Price, Role, Score, Tokenizer, Usage

T = TypeVar("T")

_TOKENIZERS: dict[str, Tokenizer] = {"cl100k_base": "cl100k_base", "wordpiece": "wordpiece", "bytes": "bytes"}
_USAGES: dict[str, Usage] = {"stated": "stated", "absent": "absent"}
_ROLES: tuple[Role, ...] = ("query", "document")
_LANGUAGES: dict[str, Literal["en", "multi"]] = {"en": "en", "multi": "multi"}
_ID = re.compile(r"[a-z0-9_-]+/[^\s/][^\s]*")
_RESERVED = frozenset({"model", "input", "texts", "requests", "encoding_format", "embedding_types", "truncation"})
"""Fields of a call that `extra` may not take the place of."""
MOST_COUNT = 10**9
"""The most that a count in a file may be: of texts, tokens, dimensions or tokens a second."""
MOST_USD = 1_000_000
"""The highest price of a million tokens, a dollar a token."""
FINEST_USD = 12
"""Decimals that a price may have: with them every cost is exact in Decimal's 28 digits."""
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", date: "a date (2026-11-01)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All models, the scale that `min_quality` is on, and what to know about that scale in one line."""

    models: tuple[Model, ...]
    scale: str
    note: str
    ratios: tuple[Ratios, ...] = ()

    def get(self, model_id: str) -> Model:
        """The model of this id.

        Raises:
            BadInput: there is none; the hint names the closest ones.
        """
        for model in self.models:
            if model.id == model_id:
                return model
        ids = [model.id for model in self.models]
        same_name = [model.id for model in self.models if model.name == model_id]
        close = same_name or difflib.get_close_matches(model_id, ids, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"The catalog has {', '.join(ids)}."
        raise BadInput(f"There is no model '{model_id}'.", hint)

    def ratios_of(self, model: Model) -> Ratios:
        """How the tokens of a model whose tokenizer is not at hand relate to those of one that is."""
        fit = [r for r in self.ratios if any(fnmatch.fnmatchcase(model.id, pattern) for pattern in r.models)]
        return fit[-1] if fit else ALIKE

    def in_space(self, space: str) -> tuple[Model, ...]:
        """The models whose vectors are of this space, in the catalog's order; empty for an unknown space."""
        return tuple(model for model in self.models if model.space == space)

    def spaces(self) -> tuple[str, ...]:
        """Every space once, in the catalog's order."""
        return tuple(dict.fromkeys(model.space for model in self.models))


def quality(model: Model, scale: str) -> float | None:
    """The model's score on this scale, 0 to 100, or None where it has none."""
    return next((score.value for score in model.scores if score.scale == scale), None)


def parse_catalog(text: str, *, origin: str) -> Catalog:
    """Read a catalog from TOML text; `origin` names the file in messages.

    Raises:
        BadInput: not TOML, or anything that `read_catalog` refuses.
    """
    return read_catalog(parse_toml(text, origin), origin=origin)


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        BadInput: it is not TOML, or has a number or a depth that cannot be read.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib lets a number of 5,000 digits out as a plain ValueError
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"{origin} is not valid TOML: {why}.", "Correct the line that it names.") from error


def read_catalog(data: Mapping[str, object], *, origin: str) -> Catalog:
    """Read a catalog from parsed TOML, `{"meta": {...}, "models": [...]}`; `meta` may be missing (operator's models).

    Raises:
        BadInput: an unknown or missing key, a wrong type or value, an id given twice, or members of one space that
            differ in dimensions or roles. The message names file, table and key.
    """
    top = _Table(data, origin)
    scale = note = ""
    if (meta_data := top.maybe("meta", dict)) is not None:
        meta = _Table(meta_data, f"{origin}, [meta]")
        scale, note = meta.need("scale", str), meta.need("note", str)
        meta.done()
    models = tuple(_read_model(table) for table in top.tables("models"))
    ratios = tuple(_read_ratios(table) for table in top.tables("ratios"))
    top.done()
    _check_together(models, origin)
    return Catalog(models=models, scale=scale, note=note, ratios=ratios)


def merge(catalog: Catalog, extra: Catalog) -> Catalog:
    """The catalog with the operator's models appended; scale and note stay the catalog's.

    Raises:
        BadInput: an id that the catalog has already, or a model that does not fit the space it claims.
    """
    known = {model.id for model in catalog.models}
    for model in extra.models:
        if model.id in known:
            raise BadInput(
                f"The model {model.id} is in the catalog already and cannot be given again.",
                "Give your model another name, or remove it from router.toml.",
            )
    models = catalog.models + extra.models
    _check_together(models, "router.toml")
    return replace(catalog, models=tuple(replace(model, others=_others(model, models)) for model in models))


def _others(model: Model, models: tuple[Model, ...]) -> frozenset[str]:
    """The bare names of its provider's models of other spaces."""
    others = (one.bare_names for one in models if one.provider == model.provider and one.space != model.space)
    return frozenset[str]().union(*others) - model.bare_names


def override_prices(catalog: Catalog, tables: object, *, origin: str) -> Catalog:
    """The catalog with the operator's own prices, `[[prices]]` of `model`, `since`, `now`, `batch` and `source`.

    A price holds from its day on, also against a later one of the catalog; what held before it stays.

    Raises:
        BadInput: an unknown model, or anything that a price of the catalog would be refused for.
    """
    given: dict[str, list[dict[str, object]]] = {}
    for table in _Table({"prices": tables}, origin).tables("prices"):
        name, price = table.split("model")
        if catalog.get(name).local:
            table.refuse("model", f"{name} is made on this machine and costs nothing")
        if "source" in price:
            price["source"] = f"{origin}: {price['source']}"
        given.setdefault(name, []).append({"checked": price.get("since"), **price})
    models = []
    for model in catalog.models:
        ours = _read_prices(_Table({"prices": given.get(model.id, [])}, f"{origin}, prices of {model.id}"))
        before = tuple(price for price in model.prices if not ours or price.since < ours[0].since)
        models.append(replace(model, prices=(*before, *ours)))
    return replace(catalog, models=tuple(models))


def _check_together(models: tuple[Model, ...], origin: str) -> None:
    by_id: set[str] = set()
    by_space: dict[str, Model] = {}
    for model in models:
        if model.id in by_id:
            raise BadInput(f"{origin}: the model {model.id} is given twice (key `id`).", "Remove one of the two.")
        by_id.add(model.id)
        first = by_space.setdefault(model.space, model)
        for key, mine, theirs in (
            ("dimensions", model.dimensions, first.dimensions),
            ("roles", model.roles, first.roles),
        ):
            if mine != theirs:
                raise BadInput(
                    f"{origin}: {model.id} and {first.id} are both of the space '{model.space}' but differ in "
                    f"`{key}`: {mine} and {theirs}.",
                    "Vectors of one space must be alike: correct the key, or give the model a space of its own.",
                )


def _read_model(table: _Table) -> Model:
    model_id = table.need("id", str)
    if not _ID.fullmatch(model_id):
        table.refuse("id", f"'{model_id}' is not of the form provider/name")
    table.place += f" ({model_id})"
    provider, name = model_id.split("/", 1)
    dimensions = table.positive("dimensions")
    default = table.maybe("default_dimensions", int)
    prefix, extra = _read_prefix(table), _read_extra(table)
    model = Model(
        id=model_id,
        provider=provider,
        name=table.maybe("name", str) or name,
        space=table.need("space", str),
        dimensions=dimensions,
        default_dimensions=dimensions if default is None else default,
        sizes=_read_sizes(table, dimensions),
        roles=_read_roles(table, prefix, extra),
        tokenizer=table.one_of("tokenizer", _TOKENIZERS),
        limits=_read_limits(table),
        prices=_read_prices(table),
        scores=_read_scores(table),
        languages=table.one_of("languages", _LANGUAGES, "multi"),
        tokens_per_second=table.number("tokens_per_second", 1.0, MOST_COUNT, 50_000.0),
        source=table.maybe("source", str) or "",
        prefix=prefix,
        extra=extra,
        usage=table.one_of("usage", _USAGES, "stated"),
        legacy=table.maybe("legacy", bool) or False,
        retires=table.day("retires") if "retires" in table else None,
    )
    table.done()
    if model.local and any(extra.values()):
        table.refuse("extra", "a local model is called without a body that it could be added to")
    if not model.space:
        table.refuse("space", "it is empty; give the model's id if it shares its space with no other")
    if not model.serves(model.default_dimensions):
        size = shown(model.default_dimensions)
        table.refuse("default_dimensions", f"{size} is neither `dimensions` nor one of `sizes`")
    if model.local and model.prices:
        table.refuse("prices", "a local model costs nothing and has no prices")
    return model


def _read_sizes(table: _Table, dimensions: int) -> tuple[int, ...] | Literal["any"]:
    sizes = table.pop("sizes", [])
    if sizes == "any":
        return "any"
    if not isinstance(sizes, list) or any(type(size) is not int for size in sizes):
        table.refuse("sizes", 'it must be a list of whole numbers, or "any"')
    for size in sizes:
        if not 0 < size < dimensions:
            table.refuse("sizes", f"{shown(size)} is not smaller than the full {dimensions} dimensions and above zero")
    if len(set(sizes)) != len(sizes):
        table.refuse("sizes", "a size is given twice")
    return tuple(sizes)


def _read_prefix(table: _Table) -> dict[Role, str]:
    """What is put before texts, `{ query = "...", document = "..." }`; a role that is not named is left out."""
    found: dict[Role, str] = {}
    inner = _Table(table.maybe("prefix", dict) or {}, f"{table.place}, prefix")
    for role in _ROLES:
        if role in inner:
            found[role] = inner.need(role, str)
    inner.done()
    return found


def _read_extra(table: _Table) -> dict[Role, dict[str, Any]]:
    """Fields for the body of a call, `{ query = { ... }, document = { ... } }`."""
    found: dict[Role, dict[str, Any]] = {}
    inner = _Table(table.maybe("extra", dict) or {}, f"{table.place}, extra")
    for role in _ROLES:
        if role in inner:
            found[role] = inner.need(role, dict)
            if taken := sorted(_RESERVED & set(found[role])):
                inner.refuse(role, f"`{taken[0]}` is set by the router itself")
            if not _is_json(found[role]):
                inner.refuse(role, "it has a date, or a number that JSON does not carry exactly")
    inner.done()
    return found


def _is_json(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_json, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) <= 2**53)


def _read_roles(table: _Table, prefix: Mapping[Role, str], extra: Mapping[Role, Mapping[str, Any]]) -> bool:
    """Whether the model tells queries from documents: it does where something else is added to the one."""
    differs = prefix.get("query", "") != prefix.get("document", "") or (
        (extra.get("query") or {}) != (extra.get("document") or {})
    )
    roles = table.maybe("roles", bool)
    if roles is False and differs:
        table.refuse("roles", "it is false, but `prefix` or `extra` is not the same for queries and documents")
    return differs if roles is None else roles


def _read_limits(table: _Table) -> Limits:
    inner = _Table(table.need("limits", dict), f"{table.place}, limits")
    limits = Limits(
        texts_per_call=inner.positive("texts_per_call"),
        tokens_per_text=inner.positive("tokens_per_text") if "tokens_per_text" in inner else None,
        tokens_per_call=inner.positive("tokens_per_call") if "tokens_per_call" in inner else None,
    )
    inner.done()
    return limits


def _read_prices(table: _Table) -> tuple[Price, ...]:
    prices: list[Price] = []
    for inner in table.tables("prices"):
        price = Price(
            since=inner.day("since"),
            now=inner.usd("now"),
            batch=inner.usd("batch") if "batch" in inner else None,
            source=inner.need("source", str),
            checked=inner.day("checked"),
            second_hand=inner.maybe("second_hand", bool) or False,
            batch_second_hand=inner.maybe("batch_second_hand", bool) or False,
        )
        inner.done()
        if prices and price.since <= prices[-1].since:
            inner.refuse("since", f"{price.since} is not after {prices[-1].since} of the price before it")
        prices.append(price)
    return tuple(prices)


def _read_scores(table: _Table) -> tuple[Score, ...]:
    scores: list[Score] = []
    for inner in table.tables("scores"):
        score = Score(
            scale=inner.need("scale", str),
            value=inner.need("value", float),
            source=inner.need("source", str),
            checked=inner.day("checked"),
            second_hand=inner.maybe("second_hand", bool) or False,
        )
        inner.done()
        if not 0 <= score.value <= 100:
            inner.refuse("value", f"{score.value} is not between 0 and 100")
        if any(other.scale == score.scale for other in scores):
            inner.refuse("scale", f"there is a score on {score.scale} already")
        scores.append(score)
    return tuple(scores)


def _read_ratios(table: _Table) -> Ratios:
    patterns = table.need("models", list)
    if not patterns or any(not isinstance(pattern, str) for pattern in patterns):
        table.refuse("models", "it must be a list of patterns over model ids")
    ratios = Ratios(
        models=tuple(patterns),
        base=table.one_of("base", _TOKENIZERS),
        by_kind={kind: table.number(kind, 0.01, 100.0, 1.0) for kind in KINDS},
        per_text=table.number("per_text", 0.0, 1_000.0, 0.0),
        source=table.need("source", str),
        checked=table.day("checked"),
    )
    table.done()
    if ratios.base == "bytes":
        table.refuse("base", "it must be a tokenizer that is at hand")
    return ratios


def shown(value: object) -> str:
    """A value of a file for a message, cut to a line: a number may have thousands of digits."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class _Table:
    """One TOML table that is emptied key by key, so that what is left over is what nobody knows."""

    def __init__(self, data: Mapping[str, Any], place: str) -> None:
        self._left = dict(data)
        self.place = place

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def refuse(self, key: str, why: str) -> NoReturn:
        raise BadInput(f"{self.place}, key `{key}`: {why}.", "Correct it in that file.")

    def pop(self, key: str, default: Any = None) -> Any:
        return self._left.pop(key, default)

    def need(self, key: str, kind: type[T]) -> T:
        if key not in self._left:
            self.refuse(key, "it is missing")
        value = self._left.pop(key)
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        # To Python true is a whole number and a time of day a date; to a catalog they are mistakes.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or isinstance(value, datetime):
            self.refuse(key, f"it must be {_KINDS.get(kind, 'a table')}, not {shown(value)}")
        return value

    def maybe(self, key: str, kind: type[T]) -> T | None:
        return self.need(key, kind) if key in self._left else None

    def split(self, key: str) -> tuple[str, dict[str, Any]]:
        """A string, and all that is left beside it."""
        return self.need(key, str), self._left

    def positive(self, key: str) -> int:
        value = self.need(key, int)
        if not 0 < value <= MOST_COUNT:
            self.refuse(key, f"{shown(value)} is not above zero and at most {MOST_COUNT:,}")
        return value

    def number(self, key: str, least: float, most: float, default: float) -> float:
        value = self.maybe(key, float)
        if value is None:
            return default
        if not least <= value <= most:  # nor is NaN
            self.refuse(key, f"{value} is not a number from {least:g} to {most:g}")
        return value

    def day(self, key: str) -> date:
        day = self.need(key, date)
        if not FIRST_DAY <= day <= LAST_DAY:
            self.refuse(key, f"{day} is not between {FIRST_DAY} and {LAST_DAY}")
        return day

    def one_of(self, key: str, choices: Mapping[str, T], default: T | None = None) -> T:
        if default is not None and key not in self._left:
            return default
        value = self.need(key, str)
        if value not in choices:
            self.refuse(key, f"'{value}' is not one of {', '.join(choices)}")
        return choices[value]

    def usd(self, key: str) -> Decimal:
        text = self.need(key, str)
        try:
            price = Decimal(text)
        except InvalidOperation:
            self.refuse(key, f"'{text[:40]}' is not a number of dollars")
        if not price.is_finite() or not 0 <= price <= MOST_USD:
            self.refuse(key, f"'{text[:40]}' is not a price from zero to {MOST_USD:,} dollars")
        if price and int(price.as_tuple().exponent) < -FINEST_USD:
            self.refuse(key, f"'{text[:40]}' has more than {FINEST_USD} decimals")
        return price

    def tables(self, key: str) -> list[_Table]:
        """The tables of an array, `[[key]]`; none where the key is missing. Counted from one in messages."""
        items = self._left.pop(key, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self.refuse(key, f"it must be an array of tables, [[{key}]]")
        return [_Table(item, f"{self.place}, {key} {number}") for number, item in enumerate(items, 1)]

    def done(self) -> None:
        for key in self._left:
            self.refuse(key, "nobody knows this key")
