"""Rate limits as the vendors keep them: buckets that refill all the time, and a cap on calls in flight."""

from __future__ import annotations

NO_LIMIT = {"requests": 1_000_000, "tokens": 1_000_000_000}
"""What the headers say where the sandbox sets no limit."""
TOO_LARGE_WAIT = 60.0


class Bucket:
    """`burst_s` seconds' worth at most saved up, refilled at `per_minute` / 60 a second; full at the start."""

    def __init__(self, per_minute: int, now: float, burst_s: float) -> None:
        self.per_minute = per_minute
        self.level = self.most = max(1.0, per_minute * burst_s / 60)
        self._at = now

    def wait(self, amount: int, now: float) -> float:
        """Refill, and say in how many seconds `amount` is there; a minute, in vain, where it never can be."""
        self.level = min(self.most, self.level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return TOO_LARGE_WAIT if amount > self.most else max(0.0, (amount - self.level) * 60 / self.per_minute)


class Limiter:
    """The limits of one provider."""

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        max_in_flight: int | None,
        now: float,
        burst_s: float,
    ) -> None:
        limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._buckets = {name: Bucket(limit, now, burst_s) for name, limit in limits.items() if limit}
        self._max_in_flight = max_in_flight
        self.in_flight = 0

    def admit(self, tokens: int, now: float, patience: float) -> float | None:
        """Let a call in (None) or say how many seconds it should wait; `patience` is that for a free place.

        Who was let in takes one from `in_flight` at the end.
        """
        amounts = {"requests": 1, "tokens": tokens}
        wait = max((bucket.wait(amounts[name], now) for name, bucket in self._buckets.items()), default=0.0)
        if self._max_in_flight is not None and self.in_flight >= self._max_in_flight:
            return max(wait, patience)
        if wait > 0:
            return wait
        for name, bucket in self._buckets.items():
            bucket.level -= amounts[name]
        self.in_flight += 1
        return None

    def headers(self) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` headers as of the last call."""
        found = {}
        for name, free in NO_LIMIT.items():
            limit, left, full_in_s = free, free, 0.0
            if bucket := self._buckets.get(name):
                limit, left = bucket.per_minute, int(bucket.level)
                full_in_s = (bucket.most - bucket.level) * 60 / bucket.per_minute
            found[f"x-ratelimit-limit-{name}"] = str(limit)
            found[f"x-ratelimit-remaining-{name}"] = str(left)
            found[f"x-ratelimit-reset-{name}"] = duration(full_in_s)
        return found


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: `12ms`, `8.64s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    if minutes < 1:
        return f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{int(rest)}s"
