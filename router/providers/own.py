"""Providers that the caller of `Router.open` brings: an endpoint for each, and their models in the catalog."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from router.config import NO_KEY, Endpoint, Secret, Settings, Wire
from router.domain.catalog import merge
from router.domain.errors import BadInput
from router.domain.values import Model

WIRE: Wire = "custom"
"""The wire of an endpoint whose calls are made by the caller's object."""


def with_own(settings: Settings, providers: Collection[str], models: Sequence[Model]) -> Settings:
    """Settings with the caller's providers and models.

    A provider needs no key of ours. What its batch tier is, if it has one, is not known, so its models are not sold by
    batch.

    Raises:
        BadInput: a provider's name, or a model, cannot be used.
    """
    endpoints = dict(settings.endpoints)
    for name in providers:
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            raise BadInput(f"A provider cannot be called '{name}'.", "Use small letters, digits, - and _.")
        there = endpoints.get(name, Endpoint(name=name, wire=WIRE, own=True))
        if name != "local":
            endpoints[name] = replace(there, wire=WIRE, key=there.key or Secret(NO_KEY))
    for model in models:
        if model.provider not in endpoints or not model.id.startswith(f"{model.provider}/"):
            raise BadInput(
                f"The model {model.id} is at '{model.provider}', which is not configured or does not begin its id.",
                f"Give a provider of this name to Router.open, or use one of: {', '.join(endpoints)}.",
            )
    catalog = merge(settings.catalog, replace(settings.catalog, models=tuple(models)))
    sold = tuple(
        replace(model, prices=tuple(replace(price, batch=None) for price in model.prices))
        if model.provider in providers
        else model
        for model in catalog.models
    )
    return replace(settings, endpoints=endpoints, catalog=replace(catalog, models=sold))
