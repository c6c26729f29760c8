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
from tallystick.workers.pacing import Pace

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

_STEP_SECONDS_MIN = 0.35


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
        self._pace = Pace()
        self._deleted_at = clock.now()

    def recover(self) -> None:
        """Read what was folded from the rollups."""
        self._folded = None

    def step(self) -> bool:
        """Fold what the sink has added; False when there is nothing to fold."""
        if self._folded is None:
            tables = (*FOLDED_FROM_FACTS, *COARSE)
            self._folded = {table: self._facts.query_watermarks(table) for table in tables}
        stored = self._positions.load("sink")
        begun = self._folded["rollup_delta"]
        ends = {
            partition: min(stored[partition].offset, begun.get(partition, 0) + _OFFSETS_PER_STEP)
            for partition in stored
        }
        added = sum(end - begun.get(partition, 0) for partition, end in ends.items())
        if self._fold("rollup_delta", ends):
            self._fold("rollup_minute", ends)
            self._pace.rest(added, seconds_min=_STEP_SECONDS_MIN)
            if self._clock.now() - self._coarse_at < COARSE_EVERY:
                return True
        elif self._committed == ends:
            return self._fold("rollup_user", ends)
        for table in (*FOLDED_FROM_FACTS, *COARSE):
            if table != "rollup_user" or not self._may_wait(table, ends):
                self._fold(table, ends)
        self._coarse_at = self._clock.now()
        self._positions.commit(self.name, ends, self._coarse_at)
        self._committed = ends
        self._delete_old(ends)
        return True

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
