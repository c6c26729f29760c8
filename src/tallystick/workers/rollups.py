"""The rollups' follower: folds facts into sums by minute, hour, day, user and run.

It follows the sink. What it has folded is read from the rollups themselves (each row carries
the last log offset that it counts, each INSERT lands whole or not at all), so a crash at any
point is finished by folding the rest.

A statement costs much by itself and little more for each fact, so a step folds only what
somebody waits for: the minutes, from which this hour is read. Runs follow every few seconds.
Everything else is folded seldom, and at once when nothing more comes or when an event of an
hour that is over came: that is read from the hours and days. Those are folded from deltas
(`rollup_delta`, made of the facts just before), not from the facts again. Of many facts a step
makes the delta at once and copies the minutes from it: then it is the facts that cost.
"""

from __future__ import annotations

from tallystick.analytics.store import FOLDED_FROM_DELTAS, FOLDED_FROM_FACTS, FactStore, Offsets
from tallystick.clock import HOUR, SECOND, Clock, is_over
from tallystick.plumbing.log import Positions
from tallystick.workers.loop import Progress

_OFFSETS_PER_STEP = 400_000
_MANY = 10_000
"""Deliveries in a step of which to fold the facts twice costs more than one statement more."""

RUNS_EVERY = 5 * SECOND
"""How often the runs are folded, and hours that are over looked after."""

COARSE_EVERY = 20 * SECOND
"""How often all rollups are folded while deliveries keep coming: the position is then moved, too,
and a follower that does not move for 30 s counts as stalled."""

QUIET_SECONDS = 2.0
"""Deliveries keep coming when one came so recently: longer than the sink's steps are apart."""


class Rollups:
    """Keeps every rollup up with the facts."""

    name = "rollups"

    def __init__(self, positions: Positions, facts: FactStore, clock: Clock) -> None:
        self._positions = positions
        self._facts = facts
        self._clock = clock
        self._folded: dict[str, Offsets] = {}
        self._committed: Offsets = {}
        self._minutes_at = 0
        self._runs_at = 0
        self._coarse_at = 0
        self._deleted_at = clock.now()

    def recover(self) -> None:
        """Read what was folded from the rollups."""
        self._folded = {}

    def step(self) -> Progress:
        """Fold what the sink has added."""
        if not self._folded:
            tables = (*FOLDED_FROM_FACTS, *FOLDED_FROM_DELTAS)
            self._folded = {table: self._facts.query_watermarks(table) for table in tables}
        landed = {one: found.offset for one, found in self._positions.load("sink").items()}
        begun = self._folded["rollup_minute"]
        ends = {
            partition: min(end, begun.get(partition, 0) + _OFFSETS_PER_STEP)
            for partition, end in landed.items()
        }
        now = self._clock.now()
        if self._fold_minutes(ends):
            self._minutes_at = now
            if is_over(RUNS_EVERY, self._runs_at, now):
                self._follow(ends, now)
            return Progress.FULL if ends != landed else Progress.SOME
        is_quiet = is_over(int(QUIET_SECONDS * SECOND), self._minutes_at, now)
        if self._committed == ends or not is_quiet:
            return Progress.NOTHING
        self._fold_all(ends, now)
        return Progress.SOME

    def _fold_minutes(self, ends: Offsets) -> bool:
        begun = dict(self._folded["rollup_minute"])
        count = sum(max(end - begun.get(one, 0), 0) for one, end in ends.items())
        if count < _MANY:
            return self._fold("rollup_minute", ends)
        self._fold("rollup_delta", begun)  # apart: deltas of before must not be copied again
        self._fold("rollup_delta", ends)
        self._facts.fold_deltas("rollup_minute", begun, ends)
        self._folded["rollup_minute"].update(ends)
        return True

    def _follow(self, ends: Offsets, now: int) -> None:
        """While deliveries keep coming: the runs, and of the others what somebody waits for."""
        if is_over(COARSE_EVERY, self._coarse_at, now):
            self._fold_all(ends, now)
            return
        self._fold("runs", ends)
        self._runs_at = now
        this_hour = now // HOUR * HOUR
        if self._facts.has_before(this_hour, self._folded["rollup_hour"], ends):
            self._fold_coarse(ends)

    def _fold_all(self, ends: Offsets, now: int) -> None:
        self._fold("runs", ends)
        self._fold("rollup_user", ends)
        self._fold_coarse(ends)
        self._runs_at = self._coarse_at = now
        self._positions.commit(self.name, ends, now)
        self._committed = ends
        self._delete_old(ends)

    def _fold_coarse(self, ends: Offsets) -> None:
        for table in ("rollup_delta", *FOLDED_FROM_DELTAS):
            self._fold(table, ends)

    def _fold(self, table: str, ends: Offsets) -> bool:
        folded = self._folded[table]
        if all(folded.get(partition, 0) >= end for partition, end in ends.items()):
            return False
        is_of_deltas = table in FOLDED_FROM_DELTAS
        fold = self._facts.fold_deltas if is_of_deltas else self._facts.fold_facts
        fold(table, folded, ends)
        folded.update(ends)
        return True

    def _delete_old(self, ends: Offsets) -> None:
        if is_over(HOUR, self._deleted_at, self._clock.now()):
            self._facts.delete_deltas(ends)
            self._deleted_at = self._clock.now()
