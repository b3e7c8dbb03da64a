"""What can be set about the sandbox, at the start or while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from router.sandbox.vectors import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """How the sandbox behaves where no fault is in play.

    Attributes:
        latency_ms: least time from the arrival of a call to its answer.
        max_in_flight, requests_per_minute, tokens_per_minute: limits of each provider by itself; None is no limit.
            The minute limits are buckets, full at the start and refilled all the time.
        burst_seconds: how much of a minute limit can be saved up, in seconds' worth: 60 is a whole minute's.
        vectors: `hash` (from the text's digest, fast) or `model` (the packaged MiniLM behind a projection).
        key: the only key accepted; None accepts every one that is not empty.
        batch_seconds: how long a batch takes from its creation to its end; infinite leaves it to `advance`.
        seed: of the order in which batch results are written.
    """

    latency_ms: float = 0
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    burst_seconds: float = 60
    vectors: Mode = "hash"
    key: str | None = None
    batch_seconds: float = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.vectors not in {"hash", "model"}:
            raise ValueError(f"vectors must be 'hash' or 'model', not '{self.vectors}'")
        for name in ("max_in_flight", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None for no limit; not {value}")
        if not 0 < self.burst_seconds <= 60:
            raise ValueError("burst_seconds must be above 0 and at most 60")
        if self.latency_ms < 0 or self.batch_seconds < 0:
            raise ValueError("latency_ms and batch_seconds must not be negative")
