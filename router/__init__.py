"""Embedding Router: vectors from the cache, a local model or a paid API, by a quality and budget policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.engine import Router as Router

__version__ = "0.1.0"
__all__ = ["Router", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Router":  # imported on first use: `--help` must not wait for NumPy
        from router.engine import Router

        return Router
    raise AttributeError(f"module 'router' has no attribute '{name}'")
