"""A request on its way, and what was planned for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from router.domain.values import Ask, Facts, Plan, Policy, Role
from router.pipeline.lookup import Lookup
from router.providers.base import Floats


@dataclass(slots=True, kw_only=True)
class Request:
    """Who asks for what. `number` is its row in the usage, once it has one."""

    policy: Policy
    role: Role
    ask: Ask
    progress: Callable[[int, int], None] = lambda done, total: None
    collection: str = ""
    started: float = field(default_factory=time.perf_counter)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    number: int | None = None

    @property
    def milliseconds(self) -> float:
        """Since it came."""
        return (time.perf_counter() - self.started) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A request that was decided.

    Attributes:
        decision: the plan in sentences.
        cached: full vectors of the distinct texts that the cache has, `(n, full)` float32, in their order.
    """

    lookup: Lookup
    facts: Facts
    plan: Plan
    decision: str
    cached: Floats = field(repr=False)
