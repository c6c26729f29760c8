"""The pace of followers whose every step costs ClickHouse something, however little it brings.

A step makes parts that are merged later, and plans queries of fifty columns. So a step rests until
a time since the last one has passed: a short one while little comes, so that it is seen soon, a
longer one the more it took in, so that under load steps are few and large. At 5,000 events a
second a step is made every 0.4 s, from 30,000 on every 1.5 s.
"""

from __future__ import annotations

import time

_EVENTS_PER_SECOND = 40_000
_SECONDS_MAX = 1.5


class Pace:
    """Rests after steps."""

    def __init__(self) -> None:
        self._stepped_at = 0.0

    def rest(self, events: int, *, seconds_min: float) -> None:
        """Rest after a step that took in so many events."""
        seconds = min(seconds_min + events / _EVENTS_PER_SECOND, _SECONDS_MAX)
        left = self._stepped_at + seconds - time.monotonic()
        if left > 0:
            time.sleep(left)
        self._stepped_at = time.monotonic()
