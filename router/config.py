"""Where things are and how fast they may go: the environment, secrets and `router.toml`.

Keys live in memory only. They are read from the environment or `.streamlit/secrets.toml`, or typed into the app
for this process; they are never stored, logged or shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from router.domain.catalog import Catalog, merge, override_prices, parse_toml, read_catalog
from router.domain.errors import BadInput
from router.domain.tables import read, refuse
from router.prompts import prompts_of

CATALOG_FILE = Path(__file__).with_name("catalog.toml")
CONFIG_FILE = "router.toml"
SECRETS_FILE = Path(".streamlit/secrets.toml")

Encoding = Literal["base64", "float"]
Wire = Literal["openai", "cohere", "voyage", "gemini", "local", "custom"]

NO_KEY = "none"
"""What is sent as the key to a server that asks for none: the SDKs insist on one."""


class Secret:
    """A key that cannot be printed by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the SDK alone."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """A provider as this process reaches it. `key` may be set while the process runs.

    Attributes:
        wire: whose API it speaks.
        url_variable: of a built-in one: the environment variable of its base URL.
        encoding: how vectors are asked for on the `openai` wire; some servers refuse `base64`.
        max_texts_per_call: below the model's own limit; None is the model's.
        max_in_flight: calls at once.
        requests_per_minute, tokens_per_minute: ours, below the provider's; None is none.
        device: of `local`: what models run on, a name that torch knows or `auto` (CUDA, then MPS, then the CPU).
        own: an endpoint of the operator's, not a built-in one.
    """

    name: str
    wire: Wire = "openai"
    key_variable: str = ""
    key: Secret | None = field(default=None, repr=False)
    url_variable: str = ""
    base_url: str = ""
    encoding: Encoding = "base64"
    max_texts_per_call: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    max_in_flight: Annotated[int, Meta(ge=1, le=10_000)] = 32
    requests_per_minute: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1, le=1_000_000_000_000)] | None = None
    timeout_s: Annotated[float, Meta(ge=0.1, le=86_400)] = 60.0
    device: str = "auto"
    own: bool = False

    @property
    def url_setting(self) -> str:
        """Where the base URL is set, for messages."""
        return self.url_variable or f"base_url of [endpoints.{self.name}] in {CONFIG_FILE}"


def _built_in(name: str, wire: Wire, key: str, address: str, url: str, encoding: Encoding = "base64") -> Endpoint:
    return Endpoint(name=name, wire=wire, key_variable=key, url_variable=address, base_url=url, encoding=encoding)


# Endpoints that need no configuration but a key.
_BUILT_IN = (
    _built_in("openai", "openai", "OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    _built_in("cohere", "cohere", "CO_API_KEY", "CO_API_URL", "https://api.cohere.com"),
    _built_in("voyage", "voyage", "VOYAGE_API_KEY", "VOYAGE_BASE_URL", "https://api.voyageai.com/v1"),
    _built_in(
        "gemini", "gemini", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"
    ),
    _built_in("mistral", "openai", "MISTRAL_API_KEY", "MISTRAL_BASE_URL", "https://api.mistral.ai/v1", "float"),
    _built_in(
        "openrouter", "openai", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1", "float"
    ),
)
_REPLACEABLE = frozenset({"gemini", "mistral", "openrouter"})
"""Built-in endpoints whose names were free once: one of the operator's takes the place of it and of its models."""
_LIMITS = ("max_texts_per_call", "max_in_flight", "requests_per_minute", "tokens_per_minute", "timeout_s")
_OWN = ("wire", "base_url", "key_variable", "encoding", *_LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alerts:
    webhook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """`router.toml`."""

    providers: dict[str, dict[str, Any]] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: _Alerts = _Alerts()
    models: tuple[dict[str, Any], ...] = ()
    prices: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is set from outside. `webhook` is where alerts are posted; its address may hold a secret."""

    data: Path
    catalog: Catalog
    endpoints: Mapping[str, Endpoint]
    webhook: Secret | None = None


def load_settings(data: Path | str | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment, the secrets file and `router.toml`; make the data folder if it is missing.

    Raises:
        BadInput: `router.toml` or the catalog has a key or a value that cannot be understood.
    """
    env = os.environ if env is None else env
    folder = Path(data or env.get("ROUTER_DATA") or "data")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shipped = parse_toml(CATALOG_FILE.read_text(encoding="utf-8"), CATALOG_FILE.name)
    catalog = read_catalog(shipped, origin=CATALOG_FILE.name)
    config = read(_read_toml(folder / CONFIG_FILE), _File, CONFIG_FILE, secret=True)
    secrets = _read_toml(SECRETS_FILE)
    limits, extra = dict(config.providers), config.endpoints
    local = Endpoint(name="local", wire="local")
    endpoints = {"local": _read_endpoint(limits.pop("local", {}), local, ("device", *_LIMITS))}
    replaced = _REPLACEABLE & set(extra)
    for usual in _BUILT_IN:
        if usual.name in replaced:
            continue
        key, url = _find_key(usual.key_variable, env, secrets), env.get(usual.url_variable) or usual.base_url
        endpoint = replace(usual, key=key, base_url=url)
        endpoints[usual.name] = _read_endpoint(limits.pop(usual.name, {}), endpoint, _LIMITS)
    catalog = replace(catalog, models=tuple(m for m in catalog.models if m.provider not in replaced))
    if limits:
        raise BadInput(
            f"{CONFIG_FILE}: unknown provider '{next(iter(limits))}'.",
            f"Known are: {', '.join(endpoints)}. Limits of an endpoint of yours stand in its own table.",
        )
    for name, table in extra.items():
        if name in endpoints or not re.fullmatch(r"[a-z0-9_-]+", name):
            raise BadInput(
                f"{CONFIG_FILE}: an endpoint cannot be called '{name}'.",
                f"Use small letters, digits, - and _, and none of: {', '.join(endpoints)}.",
            )
        endpoint = _read_endpoint(table, Endpoint(name=name, own=True), _OWN)
        variable = endpoint.key_variable  # a server of one's own, without one, takes any key
        endpoints[name] = replace(endpoint, key=_find_key(variable, env, secrets) if variable else Secret(NO_KEY))
    tables = {table["id"]: table for table in shipped["models"]}
    models = [_prompted(_filled(table, catalog, tables)) for table in config.models]
    catalog = _add_models(catalog, models, endpoints)
    catalog = override_prices(catalog, config.prices, origin=CONFIG_FILE)
    _check_batches(catalog, endpoints)
    return Settings(data=folder, catalog=catalog, endpoints=endpoints, webhook=_webhook(config.alerts, env))


def _check_batches(catalog: Catalog, endpoints: Mapping[str, Endpoint]) -> None:
    """A batch price is a way that work may take, so it must be at a wire that has batches."""
    for model in catalog.models:
        wire = endpoints[model.provider].wire
        if wire not in ("openai", "voyage") and any(price.batch is not None for price in model.prices):
            raise BadInput(
                f"{CONFIG_FILE}: {model.id} has a price for batches, which are not sent on the {wire} wire.",
                "Remove `batch` from its price.",
            )


def _webhook(alerts: _Alerts, env: Mapping[str, str]) -> Secret | None:
    """The operator's address for alerts: `ROUTER_WEBHOOK`, else `[alerts] webhook`. It is not repeated in messages."""
    url = env.get("ROUTER_WEBHOOK") or alerts.webhook
    if not re.fullmatch(r"(https?://[^/\s]+\S*)?", url):
        raise BadInput("The webhook for alerts is not a URL.", f"Set ROUTER_WEBHOOK, or webhook in {CONFIG_FILE}.")
    return Secret(url) if url else None


def _find_key(variable: str, env: Mapping[str, str], secrets: Mapping[str, Any]) -> Secret | None:
    key = str(env.get(variable) or secrets.get(variable) or "").strip()
    return Secret(key) if key else None


def _read_endpoint(table: Mapping[str, Any], usual: Endpoint, keys: tuple[str, ...]) -> Endpoint:
    """The endpoint with what its table says about these `keys`; an operator's may hold a secret by mistake."""
    place = f"{CONFIG_FILE}, [{'endpoints' if usual.own else 'providers'}.{usual.name}]"
    derived = {one.name: getattr(usual, one.name) for one in fields(Endpoint) if one.name not in keys}
    endpoint = read(table, Endpoint, place, derived=derived, secret=usual.own)
    for key, pattern, form in (
        ("base_url", r"https?://[^/?#@\s]+[^?#@\s]*", "a URL like https://host/v1, without a user or a key"),
        ("key_variable", r"([A-Za-z_][A-Za-z0-9_]*)?", "the name of an environment variable"),
        ("wire", "(?!local|custom).*", "the wire of a server: openai, cohere, voyage or gemini"),
        ("device", r"[a-z]+(:\d{1,3})?", "a device: auto, cpu, mps, cuda or cuda:1"),
    ):
        if key in keys and usual.own | (key == "device") and not re.fullmatch(pattern, getattr(endpoint, key)):
            refuse(place, key, f"it must be {form}")
    return endpoint


def _add_models(catalog: Catalog, models: list[dict[str, Any]], endpoints: Mapping[str, Endpoint]) -> Catalog:
    """The catalog with the operator's models, each at an endpoint that there is."""
    extra = read_catalog({"models": models}, origin=CONFIG_FILE)
    for model in extra.models:
        if model.provider not in endpoints:
            raise BadInput(
                f"{CONFIG_FILE}: the model {model.id} is at '{model.provider}', which is not configured.",
                f"Add [endpoints.{model.provider}], or use one of: {', '.join(endpoints)}.",
            )
        told = model.role_key("query").partition("#")[2] != model.role_key("document").partition("#")[2]
        if model.roles and not told and endpoints[model.provider].wire in ("openai", "gemini"):
            raise BadInput(
                f"{CONFIG_FILE}: {model.id} has roles, but nothing tells its endpoint a query from a document.",
                "Give `prefix` or `extra`, remove `roles`, or give its endpoint the wire of its vendor.",
            )
    return merge(catalog, extra)


def _filled(table: dict[str, Any], catalog: Catalog, shipped: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A model's table; `like = "ID"` fills in what it leaves out from a model of the catalog, all but prices."""
    if "like" not in table:
        return table
    given = {key: value for key, value in table.items() if key != "like"}
    like = shipped[catalog.get(str(table["like"])).id]
    told = {"roles"} if "prefix" in given or "extra" in given else set()
    return {**{key: like[key] for key in _SHARED if key in like and key not in told}, **given}


def _prompted(table: dict[str, Any]) -> dict[str, Any]:
    """A local model's table, with the prompts of its own configuration unless it gives a `prefix`."""
    name = table.get("id")
    if not isinstance(name, str) or not name.startswith("local/"):
        return table
    prompts, two_ways = prompts_of(str(table.get("name") or name.removeprefix("local/")))
    return {**({"roles": True} if two_ways else {}), **({"prefix": prompts} if prompts else {}), **table}


_SHARED = (
    "space", "dimensions", "default_dimensions", "sizes", "roles", "tokenizer", "languages", "limits",
    "prefix", "extra", "usage", "scores",
)  # fmt: skip


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path.name} cannot be read: {exc}.", "Correct the file, then start again.") from exc
    return parse_toml(text, path.name)
