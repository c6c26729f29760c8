"""What each role of the distributed form runs, and how processes of one role share the work.

`serve` runs every role in its engine. `tallystick worker ROLE` runs one, in as many processes
as wanted: Kafka's partitions are spread by its consumer group, shards of runs and single
lanes by leases; a process that dies loses its share when its leases end.

parts        what a process holds open
sources      where its followers read
sharing      how a lane runs in one process at a time
pipeline     sink, rollups, archiver, charger, backfills, expiry
enforcement  vault, holds, seals, budgets, calls, alerts, overrun
"""

from __future__ import annotations

from pathlib import Path

from tallystick.clock import Clock
from tallystick.plumbing.log import Positions, PostgresLog
from tallystick.shapes import prepare_shapes
from tallystick.workers import setback
from tallystick.workers.loop import Follower, FollowerLoop
from tallystick.workers.options import EngineOptions
from tallystick.workers.roles import enforcement, pipeline
from tallystick.workers.roles.parts import Parts
from tallystick.workers.roles.sharing import Alone

_KEEPER = (
    enforcement.holds,
    enforcement.seals,
    pipeline.backfills,
    pipeline.expiry,
    enforcement.budgets,
    enforcement.calls,
    enforcement.alerts,
    enforcement.overrun,
)
_IDLE_SECONDS = {"sink": 0.2, "archiver": 1.0, "overrun": 2.0, "expiry": 60.0}
_IDLE_SECONDS_ELSE = 0.5
EVERY_SECONDS = {"sink": 0.5, "rollups": 0.25, "vault": 0.5, "charger": 2.0, "archiver": 1.0}
"""How far apart steps begin: each has a cost of its own, whatever it takes in. An event waits for
the sink most of the time until it is seen; rollups go when the sink wakes them."""


class Roles:
    """Builds the followers of this process; `close` lets everything go."""

    def __init__(self, options: EngineOptions, clock: Clock) -> None:
        prepare_shapes()
        self._parts = Parts(options, clock)

    @property
    def positions(self) -> Positions:
        """How far each follower has come."""
        return self._parts.positions

    def sink(self) -> list[FollowerLoop]:
        """Facts, and their rollups."""
        rollups = _loop(pipeline.rollups(self._parts))
        return [_loop(pipeline.sink(self._parts), wakes=rollups), rollups]

    def archiver(self) -> list[FollowerLoop]:
        """Parquet objects of every delivery."""
        return [_loop(pipeline.archiver(self._parts))]

    def vault(self) -> list[FollowerLoop]:
        """What was spent, for quotas."""
        return [_loop(enforcement.vault(self._parts))]

    def charger(self) -> list[FollowerLoop]:
        """Charges, for a share of the runs."""
        return [_loop(pipeline.charger(self._parts))]

    def keeper(self) -> list[FollowerLoop]:
        """Ends of holds, of calls and of facts; seals, backfills, budgets, overruns, alerts."""
        lanes = [build(self._parts) for build in _KEEPER]
        if self._parts.options.is_shared:
            lanes = [Alone(lane, self._parts.leases(lane.name)) for lane in lanes]
        return [_loop(lane) for lane in lanes]

    def require_archive_within(self) -> None:
        """Raise InvariantBroken when the archive is of a log that went further."""
        setback.require_archive_within(self._parts.logs(), self._parts.archive())

    def require_facts_within(self) -> None:
        """The same of the facts; indexes that know more are made anew from the log."""
        parts = self._parts
        setback.require_facts_within(parts.logs(), parts.facts())
        if parts.options.kafka is None:
            setback.keep_indexes_within(Path(parts.options.data), PostgresLog(parts.pool))

    def close(self) -> None:
        """Let sources, leases and connections go; the loops have stopped before."""
        self._parts.close()


def _loop(follower: Follower, *, wakes: FollowerLoop | None = None) -> FollowerLoop:
    return FollowerLoop(
        follower,
        idle_seconds=_IDLE_SECONDS.get(follower.name, _IDLE_SECONDS_ELSE),
        every_seconds=EVERY_SECONDS.get(follower.name, 0.0),
        wakes=wakes,
    )
