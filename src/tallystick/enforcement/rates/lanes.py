"""Lanes: what is left of one limit, in memory or lent in blocks from a shared store.

A lent block was taken from the shared bucket before anything is granted from it, so what all
processes grant is never more than the limit. A block that is not used within its short life is
forgotten, never saved up: it cannot be granted on top of a later burst.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tallystick.enforcement.rates.model import RateLimit
from tallystick.enforcement.rates.rules import SCALE, Bucket, Share, seconds_until, share_most

BLOCK_LIFE = 500_000
"""Micros for which a lent block may be granted."""
_ACTIVE_FOR = 10_000_000
"""Micros after its last request for which a key counts as active in a pool."""


class Lent(NamedTuple):
    """A block: units that may be granted, and the level that is left in the shared bucket."""

    units: int
    level: int


class Lender(Protocol):
    """Where blocks come from."""

    async def lend(self, bucket_id: str, limit: RateLimit, need: int, block: int) -> Lent:
        """Take a block of at least `need` units, or nothing."""
        ...

    async def give_back(self, bucket_id: str, limit: RateLimit, units: int) -> None:
        """Correct the shared bucket; negative takes more."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...


class Lane:
    """One limit in this process alone."""

    is_shared = False

    def __init__(self, bucket_id: str, limit: RateLimit, now: int) -> None:
        self.bucket_id = bucket_id
        self.limit = limit
        self.decided_by = f"rate_limit:{limit.limit_id}"
        self.bucket = Bucket(limit.per_minute, limit.burst, now)
        self.pool = Pool(limit) if limit.kind in ("global", "tenant") else None

    def missing(self, units: int, who: str, weight: int, now: int) -> int:
        """The level that is missing for these units of a caller; 0: they fit."""
        bucket = self.bucket
        level = bucket.refill(now)
        lacking = bucket.lacks(units)
        if lacking or self.pool is None:
            return lacking
        return self.pool.missing(units, level, who, weight, now)

    def take(self, units: int, who: str, now: int) -> None:
        """Take what fitted."""
        if self.pool is not None:
            self.pool.take(units, self.bucket.level, who)
        self.bucket.add(-units)

    def seconds_until(self, level_missing: int) -> int:
        """Until this much has come back."""
        return seconds_until(level_missing, self.limit.per_minute)

    def remaining(self) -> int:
        """Whole units that are left, as of the last look."""
        return max(0, self.bucket.level // SCALE)


class SharedLane(Lane):
    """One limit that other processes share: grants from lent blocks."""

    is_shared = True

    def __init__(self, bucket_id: str, limit: RateLimit, now: int) -> None:
        super().__init__(bucket_id, limit, now)
        self.units = 0
        self.until = 0

    def missing(self, units: int, who: str, weight: int, now: int) -> int:
        """The level that is missing: of the lent block first, then of the caller's share."""
        if now >= self.until:
            self.units = 0
        if self.units < units:
            return max(1, self.bucket.lacks(units))
        if self.pool is None:
            return 0
        return self.pool.missing(units, self.bucket.level, who, weight, now)

    def receive(self, lent: Lent, asked_at: int) -> None:
        """Add a block; its life began before it was asked for."""
        self.units += lent.units
        self.until = asked_at + BLOCK_LIFE
        self.bucket.level = lent.level + self.units * SCALE

    def take(self, units: int, who: str, now: int) -> None:
        """Take what fitted."""
        super().take(units, who, now)
        self.units -= units


class Pool:
    """Who takes from a limit that many keys share."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._reserve = limit.burst * SCALE // 2
        self._shares: dict[str, Share] = {}
        self._weights = 0
        self._pruned_at = 0

    def missing(self, units: int, level: int, who: str, weight: int, now: int) -> int:
        """The level that is missing of a key's share, when the pool is in its reserve."""
        share = self._share(who, weight, now)
        limit = self._limit
        saved = share.refill(now, limit.per_minute, limit.burst, self._weights)
        if level - units * SCALE >= self._reserve:
            return 0
        most = share_most(share.weight, limit.burst, self._weights)
        return max(0, min(units * SCALE, most) - saved) * self._weights // share.weight

    def take(self, units: int, level: int, who: str) -> None:
        """Count what a key took; above the reserve it makes no debt."""
        share = self._shares[who]
        saved = share.level or 0
        left = saved - units * SCALE
        if left < 0 and level - units * SCALE >= self._reserve:
            left = saved if saved < 0 else 0
        share.level = left

    def _share(self, who: str, weight: int, now: int) -> Share:
        if now - self._pruned_at > 1_000_000:
            self._prune(now)
        share = self._shares.get(who)
        if share is None:
            share = self._shares[who] = Share(weight, now)
            self._weights += weight
        return share

    def _prune(self, now: int) -> None:
        self._pruned_at = now
        for who in [who for who, one in self._shares.items() if now - one.at > _ACTIVE_FOR]:
            self._weights -= self._shares.pop(who).weight
