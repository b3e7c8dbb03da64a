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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.domain.errors import BadInput
from router.domain.kinds import KINDS
from router.domain.ratios import ALIKE, Ratios
from router.domain.tables import read, refuse, shown
from router.domain.values import Model, Price

_ID = re.compile(r"[a-z0-9_-]+/[^\s/][^\s]*")
_RESERVED = frozenset({"model", "input", "texts", "requests", "encoding_format", "embedding_types", "truncation"})
"""Fields of a call that `extra` may not take the place of."""
MOST_USD = 1_000_000
"""The highest price of a million tokens, a dollar a token."""
FINEST_USD = 12
"""Decimals that a price may have: with them every cost is exact in Decimal's 28 digits."""


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
        by_id = {model.id: model for model in self.models}
        if model_id in by_id:
            return by_id[model_id]
        same_name = [model.id for model in self.models if model.name == model_id]
        close = same_name or difflib.get_close_matches(model_id, by_id, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"The catalog has {', '.join(by_id)}."
        raise BadInput(f"There is no model '{model_id}'.", hint)

    def ratios_of(self, model: Model) -> Ratios:
        """How the tokens of a model whose tokenizer is not at hand relate to those of one that is."""
        fit = [r for r in self.ratios if any(fnmatch.fnmatchcase(model.id, pattern) for pattern in r.models)]
        return fit[-1] if fit else ALIKE


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


def read_catalog(data: Mapping[str, Any], *, origin: str) -> Catalog:
    """Read a catalog from parsed TOML, `{"meta": {...}, "models": [...]}`; `meta` may be missing (operator's models).

    Raises:
        BadInput: an unknown or missing key, a wrong type or value, an id given twice, or members of one space that
            differ in dimensions or roles. The message names file, table and key.
    """
    top = read(data, _File, origin)
    models = tuple(_read_model(table, f"{origin}, models {number}") for number, table in enumerate(top.models, 1))
    ratios = tuple(_read_ratios(table, f"{origin}, ratios {number}") for number, table in enumerate(top.ratios, 1))
    _check_together(models, origin)
    return Catalog(models=models, scale=top.meta.scale, note=top.meta.note, ratios=ratios)


def merge(catalog: Catalog, extra: Catalog) -> Catalog:
    """The catalog with the operator's models appended; scale and note stay the catalog's.

    Raises:
        BadInput: an id that the catalog has already, or a model that does not fit the space it claims.
    """
    if known := {model.id for model in catalog.models} & {model.id for model in extra.models}:
        raise BadInput(
            f"The model {min(known)} is in the catalog already and cannot be given again.",
            "Give your model another name, or remove it from router.toml.",
        )
    models = catalog.models + extra.models
    _check_together(models, "router.toml")
    return replace(catalog, models=tuple(replace(model, others=_others(model, models)) for model in models))


def _others(model: Model, models: tuple[Model, ...]) -> frozenset[str]:
    """The bare names of its provider's models of other spaces."""
    others = (one.bare_names for one in models if one.provider == model.provider and one.space != model.space)
    return frozenset[str]().union(*others) - model.bare_names


def override_prices(catalog: Catalog, tables: Sequence[dict[str, Any]], *, origin: str) -> Catalog:
    """The catalog with the operator's own prices, `[[prices]]` of `model`, `since`, `now`, `batch` and `source`.

    A price holds from its day on, also against a later one of the catalog; what held before it stays.

    Raises:
        BadInput: an unknown model, or anything that a price of the catalog would be refused for.
    """
    given: dict[str, list[dict[str, Any]]] = {}
    for number, table in enumerate(map(dict, tables), 1):
        place = f"{origin}, prices {number}"
        if not isinstance(name := table.pop("model", None), str):
            refuse(place, "model", "it is missing" if name is None else f"it must be a string, not {shown(name)}")
        if catalog.get(name).local:
            refuse(place, "model", f"{name} is made on this machine and costs nothing")
        if isinstance(table.get("source"), str):
            table["source"] = f"{origin}: {table['source']}"
        if "since" in table:
            table.setdefault("checked", table["since"])
        given.setdefault(name, []).append(table)
    models = []
    for model in catalog.models:
        place = f"{origin}, prices of {model.id}"
        ours = read({"prices": given.get(model.id, [])}, _Prices, place).prices
        _check_prices(ours, place)
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
        for key in ("dimensions", "roles"):
            mine, theirs = getattr(model, key), getattr(first, key)
            if mine != theirs:
                raise BadInput(
                    f"{origin}: {model.id} and {first.id} are both of the space '{model.space}' but differ in "
                    f"`{key}`: {mine} and {theirs}.",
                    "Vectors of one space must be alike: correct the key, or give the model a space of its own.",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    scale: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    meta: _Meta = _Meta(scale="", note="")
    models: tuple[dict[str, Any], ...] = ()
    ratios: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    prices: tuple[Price, ...]


def _read_model(table: Mapping[str, Any], place: str) -> Model:
    model_id = table.get("id")
    if isinstance(model_id, str):
        if not _ID.fullmatch(model_id):
            refuse(place, "id", f"{shown(model_id)} is not of the form provider/name")
        place += f" ({model_id})"
    provider, _, name = str(model_id).partition("/")
    usual = {"name": name} if name else {}
    if "dimensions" in table:
        usual["default_dimensions"] = table["dimensions"]
    usual = {key: value for key, value in usual.items() if key not in table}
    model = read({**table, **usual}, Model, place, derived={"provider": provider, "others": ()})
    extra = model.extra
    differs = model.before("query") != model.before("document")
    differs |= (extra.get("query") or {}) != (extra.get("document") or {})
    for role, body in extra.items():
        if taken := sorted(_RESERVED & set(body)):
            refuse(f"{place}, extra", role, f"`{taken[0]}` is set by the router itself")
        if not _is_json(body):
            refuse(f"{place}, extra", role, "it has a date, or a number that JSON does not carry exactly")
    sizes = () if model.sizes == "any" else model.sizes
    for size in sizes:
        if not 0 < size < model.dimensions:
            why = f"{shown(size)} is not smaller than the full {model.dimensions} dimensions and above zero"
            refuse(place, "sizes", why)
        if sizes.count(size) > 1:
            refuse(place, "sizes", f"{size} is given twice")
    for number, score in enumerate(model.scores):
        if any(other.scale == score.scale for other in model.scores[:number]):
            refuse(f"{place}, scores {number + 1}", "scale", f"there is a score on {score.scale} already")
    if not model.serves(model.default_dimensions):
        refuse(place, "default_dimensions", f"{model.default_dimensions} is neither `dimensions` nor one of `sizes`")
    if differs and table.get("roles") is False:
        refuse(place, "roles", "it is false, but `prefix` or `extra` is not the same for queries and documents")
    if model.local and any(extra.values()):
        refuse(place, "extra", "a local model is called without a body that it could be added to")
    if model.local and model.prices:
        refuse(place, "prices", "a local model costs nothing and has no prices")
    _check_prices(model.prices, place)
    return replace(model, roles=table.get("roles", differs))


def _check_prices(prices: tuple[Price, ...], place: str) -> None:
    for number, price in enumerate(prices, 1):
        where = f"{place}, prices {number}"
        for key, usd in (("now", price.now), ("batch", price.batch)):
            if usd is None:
                continue
            if not usd.is_finite() or not 0 <= usd <= MOST_USD:
                refuse(where, key, f"'{str(usd)[:40]}' is not a price from zero to {MOST_USD:,} dollars")
            if usd and int(usd.as_tuple().exponent) < -FINEST_USD:
                refuse(where, key, f"'{str(usd)[:40]}' has more than {FINEST_USD} decimals")
        if number > 1 and price.since <= prices[number - 2].since:
            refuse(where, "since", f"{price.since} is not after {prices[number - 2].since} of the price before it")


def _read_ratios(table: Mapping[str, Any], place: str) -> Ratios:
    by_kind = {kind: table.get(kind, 1.0) for kind in KINDS}
    if missing := [key for key in ("source", "checked") if key not in table]:
        refuse(place, missing[0], "it is missing")
    rest = {key: value for key, value in table.items() if key not in by_kind}
    ratios = read(rest, Ratios, place, derived={"by_kind": by_kind})
    if ratios.base == "bytes":
        refuse(place, "base", "it must be a tokenizer that is at hand")
    return ratios


def _is_json(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_json, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | bool) or (isinstance(value, int) and abs(value) <= 2**53)
