"""The rollups' follower: folds facts into sums by minute, hour, day, user and run.

It follows the sink. What it has folded is read from the rollups themselves (each row carries
the last log offset that it counts, each INSERT lands whole or not at all), so a crash at any
point is finished by folding the rest. Coarse rollups are folded from what the steps added,
not from the facts again.
"""

from __future__ import annotations

from tallystick.analytics.store import COARSE, FOLDED_FROM_FACTS, FactStore, Offsets
from tallystick.clock import HOUR, SECOND, Clock
from tallystick.plumbing.log import Positions
from tallystick.workers.loop import Progress

_OFFSETS_PER_STEP = 400_000
COARSE_EVERY = 5 * SECOND
"""How often the coarser rollups are folded while deliveries keep coming.

Nobody waits for them: what is of this hour is read from the minutes.
"""

_WAITING_MIN, _WAITING_MAX = 20_000, 1_000_000
"""Deliveries between which the rollup of users waits for more, or until nothing more comes.

A step has few events of a user, and a row of a user costs what many of its events would. It is
read for whole days only, so nobody looks at what waits but whoever asks about a day that got
late events a moment ago.
"""

QUIET_SECONDS = 2.0
"""Deliveries keep coming when one came so recently: longer than the sink's steps are apart."""


class Rollups:
    """Keeps every rollup up with the facts."""

    name = "rollups"

    def __init__(self, positions: Positions, facts: FactStore, clock: Clock) -> None:
        self._positions = positions
        self._facts = facts
        self._clock = clock
        self._folded: dict[str, Offsets] | None = None
        self._committed: Offsets = {}
        self._coarse_at = 0
        self._delta_at = 0
        self._deleted_at = clock.now()

    def recover(self) -> None:
        """Read what was folded from the rollups."""
        self._folded = None

    def step(self) -> Progress:
        """Fold what the sink has added."""
        if self._folded is None:
            tables = (*FOLDED_FROM_FACTS, *COARSE)
            self._folded = {table: self._facts.query_watermarks(table) for table in tables}
        landed = {one: found.offset for one, found in self._positions.load("sink").items()}
        begun = self._folded["rollup_delta"]
        ends = {
            partition: min(end, begun.get(partition, 0) + _OFFSETS_PER_STEP)
            for partition, end in landed.items()
        }
        progress = Progress.FULL if ends != landed else Progress.SOME
        if self._fold("rollup_delta", ends):
            self._fold("rollup_minute", ends)
            self._delta_at = self._clock.now()
            if self._delta_at - self._coarse_at < COARSE_EVERY:
                return progress
        elif self._committed == ends:
            return Progress.SOME if self._fold("rollup_user", ends) else Progress.NOTHING
        elif self._clock.now() - self._delta_at < QUIET_SECONDS * SECOND:
            return Progress.NOTHING
        self._fold_coarse(ends)
        return progress

    def _fold_coarse(self, ends: Offsets) -> None:
        for table in (*FOLDED_FROM_FACTS, *COARSE):
            if table != "rollup_user" or not self._may_wait(table, ends):
                self._fold(table, ends)
        self._coarse_at = self._clock.now()
        self._positions.commit(self.name, ends, self._coarse_at)
        self._committed = ends
        self._delete_old(ends)

    def _may_wait(self, table: str, ends: Offsets) -> bool:
        folded = (self._folded or {})[table]
        waiting = sum(end - folded.get(partition, 0) for partition, end in ends.items())
        return _WAITING_MIN < waiting < _WAITING_MAX

    def _fold(self, table: str, ends: Offsets) -> bool:
        folded = (self._folded or {})[table]
        if all(folded.get(partition, 0) >= end for partition, end in ends.items()):
            return False
        fold = self._facts.fold_deltas if table in COARSE else self._facts.fold_facts
        fold(table, folded, ends)
        folded.update(ends)
        return True

    def _delete_old(self, ends: Offsets) -> None:
        if self._clock.now() - self._deleted_at > HOUR:
            self._facts.delete_deltas(ends)
            self._deleted_at = self._clock.now()
