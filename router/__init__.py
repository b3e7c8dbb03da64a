"""Embedding Router: vectors from the cache, a local model or a paid API, by a quality and budget policy.

What stands in `__all__` is the public API; the rest may change from one release to the next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from router.domain.errors import (
    BadInput,
    BadReply,
    BudgetExceeded,
    CallRejected,
    CallTooLarge,
    KeyRejected,
    NotConfigured,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    Refused,
    RouterError,
    StoreBusy,
    StoreError,
    StoreFull,
    Unreachable,
)
from router.domain.values import Budget, Limits, Model, Policy, Price

if TYPE_CHECKING:
    from router.engine import Router
    from router.library import Library
    from router.pipeline.results import Quote, Result
    from router.providers.base import EmbedCall, Provider, Reply

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "BadReply",
    "Budget",
    "BudgetExceeded",
    "CallRejected",
    "CallTooLarge",
    "EmbedCall",
    "KeyRejected",
    "Library",
    "Limits",
    "Model",
    "NotConfigured",
    "OutcomeUnknown",
    "Overloaded",
    "Policy",
    "Price",
    "Provider",
    "ProviderError",
    "QuotaExhausted",
    "Quote",
    "RateLimited",
    "Refused",
    "Reply",
    "Result",
    "Router",
    "RouterError",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "Unreachable",
    "__version__",
]
_ON_FIRST_USE = {
    "EmbedCall": "router.providers.base",
    "Library": "router.library",
    "Provider": "router.providers.base",
    "Quote": "router.pipeline.results",
    "Reply": "router.providers.base",
    "Result": "router.pipeline.results",
    "Router": "router.engine",
}
"""Names whose modules need NumPy, for which `--help` must not wait."""


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return getattr(import_module(_ON_FIRST_USE[name]), name)
    raise AttributeError(f"module 'router' has no attribute '{name}'")
