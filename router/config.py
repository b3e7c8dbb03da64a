"""Where things are and how fast they may go: the environment, secrets and `router.toml`.

Keys live in memory only. They are read from the environment or `.streamlit/secrets.toml`, or typed into the app
for this process; they are never stored, logged or shown.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from router.domain.catalog import Catalog, merge, override_prices, parse_catalog, read_catalog
from router.domain.errors import BadInput

CATALOG_FILE = Path(__file__).with_name("catalog.toml")
CONFIG_FILE = "router.toml"
SECRETS_FILE = Path(".streamlit/secrets.toml")

_VARIABLES = {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "cohere": ("CO_API_KEY", "CO_API_URL", "https://api.cohere.com"),
    "voyage": ("VOYAGE_API_KEY", "VOYAGE_BASE_URL", "https://api.voyageai.com/v1"),
}

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
        wire: whose API it speaks: `openai`, `cohere`, `voyage` or `local`.
        encoding: how vectors are asked for on the `openai` wire; some servers refuse `base64`.
        max_texts_per_call: at most so many texts a call, below the model's own limit; None is the model's.
        max_in_flight: calls at once.
        requests_per_minute, tokens_per_minute: ours, below the provider's; None is none.
        timeout_s: the longest that a call may take, seconds on the clock.
    """

    name: str
    wire: str
    key_variable: str = ""
    key: Secret | None = field(default=None, repr=False)
    base_url: str = ""
    encoding: Literal["base64", "float"] = "base64"
    max_texts_per_call: int | None = None
    max_in_flight: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout_s: float = 60.0

    @property
    def url_setting(self) -> str:
        """Where the base URL is set, for messages."""
        known = _VARIABLES.get(self.name)
        return f"base_url of [endpoints.{self.name}] in {CONFIG_FILE}" if known is None else known[1]


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
    catalog = parse_catalog(CATALOG_FILE.read_text(encoding="utf-8"), origin=CATALOG_FILE.name)
    config = _read_toml(folder / CONFIG_FILE)
    secrets = _read_toml(SECRETS_FILE)
    limits, extra = _tables(config, "providers"), _tables(config, "endpoints")
    models, prices = config.pop("models", None), config.pop("prices", None)
    webhook = _webhook(config.pop("alerts", {}), env)
    if config:
        raise BadInput(
            f"{CONFIG_FILE}: unknown key '{next(iter(config))}'.",
            "Known are [providers.NAME], [endpoints.NAME], [alerts], [[models]] and [[prices]].",
        )
    endpoints = {"local": _apply(Endpoint(name="local", wire="local"), "providers", limits.pop("local", {}))}
    for name, (key_variable, url_variable, url) in _VARIABLES.items():
        endpoint = Endpoint(
            name=name,
            wire=name,
            key_variable=key_variable,
            key=_find_key(key_variable, env, secrets),
            base_url=env.get(url_variable) or url,
        )
        endpoints[name] = _apply(endpoint, "providers", limits.pop(name, {}))
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
        endpoints[name] = _read_endpoint(name, table, env, secrets)
    if models is not None:
        catalog = _add_models(catalog, models, endpoints)
    if prices is not None:
        catalog = override_prices(catalog, prices, origin=CONFIG_FILE)
    return Settings(data=folder, catalog=catalog, endpoints=endpoints, webhook=webhook)


def _webhook(alerts: Any, env: Mapping[str, str]) -> Secret | None:
    """The operator's address for alerts: `ROUTER_WEBHOOK`, else `[alerts] webhook`. It is not repeated in messages."""
    if not isinstance(alerts, dict) or set(alerts) - {"webhook"}:
        raise BadInput(f"{CONFIG_FILE}: [alerts] knows one key, webhook.", 'Write webhook = "https://...".')
    url = env.get("ROUTER_WEBHOOK") or alerts.get("webhook", "")
    if not isinstance(url, str) or not re.fullmatch(r"(https?://[^/\s]+\S*)?", url):
        raise BadInput("The webhook for alerts is not a URL.", f"Set ROUTER_WEBHOOK, or webhook in {CONFIG_FILE}.")
    return Secret(url) if url else None


def _tables(config: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    tables = config.pop(key, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise BadInput(f"{CONFIG_FILE}: '{key}' must hold tables, [{key}.NAME].", "Correct it in that file.")
    return tables


def _find_key(variable: str, env: Mapping[str, str], secrets: Mapping[str, Any]) -> Secret | None:
    key = str(env.get(variable) or secrets.get(variable) or "").strip()
    return Secret(key) if key else None


def _read_endpoint(name: str, table: dict[str, Any], env: Mapping[str, str], secrets: Mapping[str, Any]) -> Endpoint:
    """An endpoint of the operator's. One without `key_variable` (a server of one's own) takes any key."""
    left = dict(table)

    def take(key: str, default: str | None, pattern: str, form: str) -> str:
        value = left.pop(key, default)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):  # not repeated: it may be a key
            what = "is missing" if value is None else "is not what it should be"
            raise BadInput(f"{CONFIG_FILE}: [endpoints.{name}] {key} {what}.", f"It is {form}.")
        return value

    variable = take("key_variable", "", r"([A-Za-z_][A-Za-z0-9_]*)?", "the name of an environment variable")
    url = take("base_url", None, r"https?://[^/?#@\s]+[^?#@\s]*", "a URL like https://host/v1, without a user or a key")
    encoding = take("encoding", "base64", "base64|float", "base64 or float")
    endpoint = Endpoint(
        name=name,
        wire=take("wire", "openai", "|".join(_VARIABLES), f"one of {', '.join(_VARIABLES)}"),
        key_variable=variable,
        key=_find_key(variable, env, secrets) if variable else Secret(NO_KEY),
        base_url=url,
        encoding="float" if encoding == "float" else "base64",
    )
    return _apply(endpoint, "endpoints", left)


def _add_models(catalog: Catalog, models: Any, endpoints: Mapping[str, Endpoint]) -> Catalog:
    """The catalog with the operator's models, each at an endpoint that there is."""
    if isinstance(models, list):
        models = [_filled(model, catalog) if isinstance(model, dict) else model for model in models]
    extra = read_catalog({"models": models}, origin=CONFIG_FILE)
    for model in extra.models:
        if model.provider not in endpoints:
            raise BadInput(
                f"{CONFIG_FILE}: the model {model.id} is at '{model.provider}', which is not configured.",
                f"Add [endpoints.{model.provider}], or use one of: {', '.join(endpoints)}.",
            )
        if model.roles and endpoints[model.provider].wire == "openai":
            raise BadInput(
                f"{CONFIG_FILE}: {model.id} has roles, but the openai wire cannot tell a query from a document.",
                "Remove `roles`, or give its endpoint the wire of its vendor.",
            )
    return merge(catalog, extra)


def _filled(table: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """A model's table; `like = "ID"` fills in what it leaves out from a model of the catalog, all but prices."""
    given = dict(table)
    other = given.pop("like", None)
    if other is None:
        return given
    model = asdict(catalog.get(str(other)))
    shared = ("space", "dimensions", "default_dimensions", "sizes", "roles", "tokenizer", "languages", "limits")
    like = {key: model[key] for key in shared}
    if like["sizes"] != "any":
        like["sizes"] = list(like["sizes"])
    like["limits"] = {key: value for key, value in like["limits"].items() if value is not None}
    return {**like, "scores": list(model["scores"]), **given}


_LIMITS: dict[str, tuple[type, ...]] = {
    "max_texts_per_call": (int,),
    "max_in_flight": (int,),
    "requests_per_minute": (int,),
    "tokens_per_minute": (int,),
    "timeout_s": (int, float),
}
_ENDPOINT = ("wire", "base_url", "key_variable", "encoding")


def _apply(endpoint: Endpoint, table: str, limits: Mapping[str, Any]) -> Endpoint:
    for key, value in limits.items():
        place = f"{CONFIG_FILE}: [{table}.{endpoint.name}] {key}"
        if key not in _LIMITS:
            known = [*_ENDPOINT, *_LIMITS] if table == "endpoints" else [*_LIMITS]
            raise BadInput(f"{place} is unknown.", f"Known are: {', '.join(known)}.")
        if type(value) not in _LIMITS[key] or value <= 0:
            raise BadInput(f"{place} = {value!r} is not a number above zero.", "Write it like 8.")
        setattr(endpoint, key, value)
    return endpoint


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path.name} cannot be read: {exc}.", "Mend the file, then start again.") from exc
