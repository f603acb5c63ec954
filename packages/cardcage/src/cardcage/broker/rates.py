"""How often one plugin may call the host: a bucket of calls for each instance, filled at a steady rate. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cardcage.foundation.limits import SERVICE_BURST_CALLS, SERVICE_CALLS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRate:
    """`per_s` calls a second over time, and `burst` at once."""

    per_s: float = SERVICE_CALLS_PER_S
    burst: float = SERVICE_BURST_CALLS


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float


@dataclass(slots=True)
class CallRates:
    """The buckets of all instances."""

    rate: CallRate
    _buckets: dict[str, _Bucket] = field(default_factory=dict[str, _Bucket])

    def wait_s(self, caller: str, now_s: float) -> float:
        """Take one call of `caller`'s; how many seconds too early it comes, or 0 where it may be made."""
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(left=self.rate.burst, at_s=now_s)
        bucket.left = min(self.rate.burst, bucket.left + max(0.0, now_s - bucket.at_s) * self.rate.per_s)
        bucket.at_s = now_s
        if bucket.left < 1:
            return (1 - bucket.left) / self.rate.per_s
        bucket.left -= 1
        return 0.0

    def forget(self, caller: str) -> None:
        """Let go of an instance that is no more."""
        self._buckets.pop(caller, None)
