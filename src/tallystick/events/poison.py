"""When broken messages are no longer exceptions: a follower stops instead of setting all aside.

A stray broken message is set aside and reading goes on. But when most of what comes is
broken, the schema changed or the topic is the wrong one: setting everything aside would
look like progress while all usage is lost from sight. So the follower stops, the alarm
names the partition, and nothing is skipped: the messages wait in the log.
"""

from __future__ import annotations

from collections import deque

from tallystick.bounds import BROKEN_PERCENT_MAX, BROKEN_WINDOW
from tallystick.errors import TooManyBroken


class BrokenShare:
    """The share of broken messages among the last ones of one partition."""

    def __init__(
        self,
        name: str = "this partition",
        *,
        window: int = BROKEN_WINDOW,
        percent_max: int = BROKEN_PERCENT_MAX,
    ) -> None:
        """`name` says in the alarm which partition it is."""
        self._name = name
        self._window = window
        self._percent_max = percent_max
        self._batches: deque[tuple[int, int]] = deque()
        self.total = 0
        self.broken = 0

    def note(self, total: int, broken: int) -> None:
        """Count a batch of `total` messages; raise TooManyBroken when too many were broken.

        Call it before the batch's position is moved: then a restart reads the batch again.
        Whole batches leave the window, so it holds at least its size once that was reached;
        before that nothing stops.
        """
        self._batches.append((total, broken))
        self.total += total
        self.broken += broken
        while self.total - self._batches[0][0] >= self._window:
            left_total, left_broken = self._batches.popleft()
            self.total -= left_total
            self.broken -= left_broken
        if self.total >= self._window and self.broken * 100 > self.total * self._percent_max:
            raise TooManyBroken(
                f"{self.broken} of the last {self.total} messages of {self._name} are broken; "
                "it is read no further until that is mended (docs/broken-messages.md)"
            )
