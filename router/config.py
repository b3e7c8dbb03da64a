"""Where things are and how fast they may go: the environment, secrets and `router.toml`.

Keys live in memory only. They are read from the environment or `.streamlit/secrets.toml`, or typed into the app
for this process; they are never stored, logged or shown.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.domain.catalog import Catalog, merge, parse_catalog, read_catalog
from router.domain.errors import BadInput

CATALOG_FILE = Path(__file__).with_name("catalog.toml")
CONFIG_FILE = "router.toml"
SECRETS_FILE = Path(".streamlit/secrets.toml")

_VARIABLES = {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "cohere": ("CO_API_KEY", "CO_API_URL", "https://api.cohere.com"),
    "voyage": ("VOYAGE_API_KEY", "VOYAGE_BASE_URL", "https://api.voyageai.com/v1"),
}


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
    max_texts_per_call: int | None = None
    max_in_flight: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is set from outside."""

    data: Path
    catalog: Catalog
    endpoints: Mapping[str, Endpoint]


def load_settings(data: Path | str | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the environment, the secrets file and `router.toml`; make the data folder if it is missing.

    Raises:
        BadInput: `router.toml` or the catalog has a key or a value that cannot be understood.
    """
    env = os.environ if env is None else env
    folder = Path(data or env.get("ROUTER_DATA") or "data")
    folder.mkdir(parents=True, exist_ok=True)
    catalog = parse_catalog(CATALOG_FILE.read_text(encoding="utf-8"), origin=CATALOG_FILE.name)
    config = _read_toml(folder / CONFIG_FILE)
    secrets = _read_toml(SECRETS_FILE)
    limits = dict(config.pop("providers", {}))
    models = config.pop("models", None)
    if config:
        raise BadInput(
            f"{CONFIG_FILE}: unknown key '{next(iter(config))}'.", "Known are [providers.NAME] and [[models]]."
        )
    endpoints = {"local": _apply(Endpoint(name="local", wire="local"), limits.pop("local", {}))}
    for name, (key_variable, url_variable, url) in _VARIABLES.items():
        key = env.get(key_variable) or secrets.get(key_variable)
        endpoint = Endpoint(
            name=name,
            wire=name,
            key_variable=key_variable,
            key=Secret(str(key)) if key else None,
            base_url=env.get(url_variable) or url,
        )
        endpoints[name] = _apply(endpoint, limits.pop(name, {}))
    if limits:
        raise BadInput(
            f"{CONFIG_FILE}: unknown provider '{next(iter(limits))}'.", f"Known are: {', '.join(endpoints)}."
        )
    if models is not None:
        catalog = merge(catalog, read_catalog({"models": models}, origin=CONFIG_FILE))
    return Settings(data=folder, catalog=catalog, endpoints=endpoints)


_LIMITS: dict[str, tuple[type, ...]] = {
    "max_texts_per_call": (int,),
    "max_in_flight": (int,),
    "requests_per_minute": (int,),
    "tokens_per_minute": (int,),
    "timeout_s": (int, float),
}


def _apply(endpoint: Endpoint, limits: Mapping[str, Any]) -> Endpoint:
    for key, value in limits.items():
        place = f"{CONFIG_FILE}: [providers.{endpoint.name}] {key}"
        if key not in _LIMITS:
            raise BadInput(f"{place} is unknown.", f"Known are: {', '.join(_LIMITS)}.")
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
