"""Token buckets and fair shares: pure, exact integers, time passed in.

A level is in units times 60 million, so a microsecond refills `per_minute` of it and nothing is
rounded. A request larger than the burst waits for a full bucket and leaves a debt.

Fairness: half of a pool's burst is a reserve. While the pool is above it, anyone may take. In
the reserve a key takes at its weighted share of the rate, saved up to its share of the reserve,
where one share is always kept free. So one noisy key lives on its share, and who comes later
finds something.
"""

from __future__ import annotations

SCALE = 60_000_000


class Bucket:
    """A level that refills; starts full."""

    __slots__ = ("at", "burst", "full", "level", "per_minute")

    def __init__(self, per_minute: int, burst: int, now: int) -> None:
        self.per_minute = per_minute
        self.burst = burst
        self.full = burst * SCALE
        self.level = self.full
        self.at = now

    def refill(self, now: int) -> int:
        """Bring the level up to `now` (micros) and return it; time never goes back."""
        elapsed = now - self.at
        if elapsed > 0:
            level = self.level + elapsed * self.per_minute
            self.level = level if level < self.full else self.full
            self.at = now
        return self.level

    def lacks(self, units: int) -> int:
        """How much level is missing for this many units, refilled before; 0: they fit."""
        lacking = (units if units < self.burst else self.burst) * SCALE - self.level
        return lacking if lacking > 0 else 0

    def add(self, units: int) -> None:
        """Give back, or take away what is negative; a debt is possible."""
        level = self.level + units * SCALE
        self.level = level if level < self.full else self.full


class Share:
    """What one key has saved of its share of a pool's reserve."""

    __slots__ = ("at", "level", "weight")

    def __init__(self, weight: int, now: int) -> None:
        self.weight = weight
        self.level: int | None = None
        self.at = now

    def refill(self, now: int, per_minute: int, burst: int, weights: int) -> int:
        """Bring the share up to `now`, among keys of these weights in all; return what it holds."""
        most = share_most(self.weight, burst, weights)
        if self.level is None:
            self.level = most
        if now > self.at:
            self.level += (now - self.at) * per_minute * self.weight // weights
            self.at = now
        if self.level > most:
            self.level = most
        return self.level


def share_most(weight: int, burst: int, weights: int) -> int:
    """The level that a key can save: its share of half the burst, one share kept free."""
    return burst * SCALE * weight // (2 * (weights + 1))


def seconds_until(level_missing: int, per_minute: int) -> int:
    """Whole seconds, rounded up, until a level has grown by so much; at least 1 if any.

    >>> seconds_until(SCALE, 60), seconds_until(0, 60), seconds_until(1, 60)
    (1, 0, 1)
    """
    return -(-level_missing // (per_minute * 1_000_000))
