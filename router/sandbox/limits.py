"""Rate limits as the vendors keep them: buckets that refill all the time, and a cap on calls in flight."""

from __future__ import annotations

NO_LIMIT_REQUESTS = 1_000_000  # what the headers say where the sandbox sets no limit
NO_LIMIT_TOKENS = 1_000_000_000
TOO_LARGE_WAIT = 60.0


class Bucket:
    """`burst_s` seconds' worth at most saved up, refilled at `per_minute` / 60 a second; full at the start."""

    def __init__(self, per_minute: int, now: float, burst_s: float = 60) -> None:
        self.per_minute = per_minute
        self._most = max(1.0, per_minute * burst_s / 60)
        self._level = self._most
        self._at = now

    def refill(self, now: float) -> float:
        """What is there now."""
        self._level = min(self._most, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` is there; 0 if it is; a minute, in vain, where it never can be."""
        if amount > self._most:
            return TOO_LARGE_WAIT
        return max(0.0, (amount - self.refill(now)) * 60 / self.per_minute)

    def take(self, amount: int) -> None:
        """Use what `wait` said is there."""
        self._level -= amount

    def until_full(self) -> float:
        """Seconds until the bucket is full again."""
        return (self._most - self._level) * 60 / self.per_minute


class Limiter:
    """The limits of one provider."""

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        max_in_flight: int | None,
        now: float,
        burst_s: float = 60,
    ) -> None:
        self._requests = Bucket(requests_per_minute, now, burst_s) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, now, burst_s) if tokens_per_minute else None
        self._max_in_flight = max_in_flight
        self.in_flight = 0

    def admit(self, tokens: int, now: float, patience: float) -> float | None:
        """Let a call in (None) or say how many seconds it should wait; `patience` is that for a free place.

        Who was let in takes one from `in_flight` at the end.
        """
        waits = [bucket.wait(n, now) for bucket, n in ((self._requests, 1), (self._tokens, tokens)) if bucket]
        wait = max(waits, default=0.0)
        if self._max_in_flight is not None and self.in_flight >= self._max_in_flight:
            return max(wait, patience)
        if wait > 0:
            return wait
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(tokens)
        self.in_flight += 1
        return None

    def headers(self) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*` headers as of the last call."""
        found = {}
        for name, bucket, free in (
            ("requests", self._requests, NO_LIMIT_REQUESTS),
            ("tokens", self._tokens, NO_LIMIT_TOKENS),
        ):
            found[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute if bucket else free)
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.refill(bucket._at))) if bucket else free)
            found[f"x-ratelimit-reset-{name}"] = duration(bucket.until_full() if bucket else 0.0)
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
