"""The backfills' follower: one piece of the oldest open backfill a step, at its pace.

Each minute it also reverses doubles: events that came by two log partitions. To look for them in
other runs reads all facts: that is made more seldom the longer it takes. Several of these
followers may run: a piece that another one did, or that was decided before another correction
landed, is refused by PostgreSQL and decided again.
"""

from __future__ import annotations

from tallystick.backfill import Pieces
from tallystick.clock import DAY, MINUTE, SECOND, Clock, Pace, is_over
from tallystick.reconcile.doubles import Doubles

DOUBLES_EVERY = MINUTE
"""How often new facts are searched for doubles in their runs."""


class BackfillWorker:
    """Advances backfills and reverses doubles."""

    name = "backfills"

    def __init__(self, pieces: Pieces, doubles: Doubles, clock: Clock) -> None:
        self._pieces = pieces
        self._doubles = doubles
        self._clock = clock
        self._rested_at = self._rest = 0
        self._doubles_at = 0
        self._anywhere = Pace(clock, DOUBLES_EVERY, DAY)

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """Do one piece; False when there is nothing to do now."""
        now = self._clock.now()
        if is_over(DOUBLES_EVERY, self._doubles_at, now):
            if self._doubles.step():
                return True
            self._doubles_at = now
        if self._anywhere.is_due():
            self._anywhere.done(has_more=self._doubles.step_anywhere())
        if not is_over(self._rest, self._rested_at, now):
            return False
        backfill = self._pieces.next_open()
        if backfill is None:
            return False
        examined = self._pieces.advance(backfill)
        if examined is None:
            return False
        self._rested_at, self._rest = now, examined * SECOND // backfill.events_per_second_max
        return True
