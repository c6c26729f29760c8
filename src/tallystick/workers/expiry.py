"""Expiry: facts older than the days set go, a month at a time, and no charge with them.

Money is computed from facts, so nothing may go that still decides one. Each stage is stored before
the next begins, and asks the setting and the clock again; a crash repeats its stage.

1. A horizon is recorded (PostgreSQL). An hour later doors and followers refuse events of before it.
2. Another hour later, where the log ends is noted, and corrections of before it are refused.
3. When facts and rollups go as far and lack nothing, and every run with facts of before it has been
   charged, the horizon is announced (ClickHouse): readers stop there, what was charged is final.
4. An hour after that, the months of before it are dropped.

A rebuild from the log lands them again, for the rollups; they are dropped again when it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from tallystick.analytics.horizon import Announced, KeptFacts
from tallystick.analytics.store import Offsets
from tallystick.clock import DAY, HOUR, MINUTE, Clock, is_over
from tallystick.plumbing.log import Horizon, Horizons, Positions
from tallystick.plumbing.log.horizons import month_of
from tallystick.workers.pending import PendingRuns

LOOK_EVERY = 10 * MINUTE
NOTICE = HOUR
"""Between the stages: longer than any process goes on with what it knew before."""

_PENDING_MAX = 20_000
"""With more runs waiting to be charged there are other things to do."""


_log = logging.getLogger(__name__)


class Expiry:
    """Moves the horizon, and drops what lies before it."""

    name = "expiry"

    def __init__(
        self,
        horizons: Horizons,
        heads: Callable[[], Mapping[int, int]],
        positions: Positions,
        pending: PendingRuns,
        facts: KeptFacts,
        clock: Clock,
        *,
        days: int,
    ) -> None:
        """`heads` tells the ends of every partition of the log; `days` is 0 to keep facts."""
        self._horizons = horizons
        self._heads = heads
        self._positions = positions
        self._pending = pending
        self._facts = facts
        self._clock = clock
        self._days = days
        self._looked_at = 0

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """Take the next stage when it is time; False when there is none."""
        now = self._clock.now()
        if not is_over(LOOK_EVERY, self._looked_at, now):
            return False
        self._looked_at = now
        kept = self._facts.query_horizon()
        horizons = self._horizons.load()
        latest = max((one.horizon_at for one in horizons), default=0)
        goal = month_of(now - self._days * DAY) if self._days else 0
        if latest < kept.horizon_at:  # PostgreSQL was restored to an earlier point
            self._horizons.append(kept.horizon_at, kept.announced_at - NOTICE)
        elif latest < goal:
            self._horizons.append(goal, now + NOTICE)
        else:
            return bool(goal) and self._go_on(horizons, kept, goal, now)
        return True

    def _go_on(self, horizons: Sequence[Horizon], kept: Announced, goal: int, now: int) -> bool:
        """Bring the last horizon that the setting still asks for a stage further."""
        wanted = [one for one in horizons if one.horizon_at <= goal]
        if not wanted:
            return False
        last = wanted[-1]
        if last.ends is None:
            if now - last.closes_at < NOTICE:
                return False
            self._horizons.store_ends(last.horizon_at, self._heads)
            return True
        ends = last.ends
        if not all(self._positions.has_reached(one, ends) for one in ("sink", "rollups")):
            return False
        if kept.horizon_at < last.horizon_at:
            return self._announce(last.horizon_at, dict(ends), now)
        if now - kept.announced_at < NOTICE:
            return False
        return self._drop(min(kept.horizon_at, goal))

    def _announce(self, horizon_at: int, ends: Offsets, now: int) -> bool:
        """Announce it, unless runs are to be charged for what lies before: those come first.

        A ClickHouse that lost facts lost charge lines: their word must not become final.
        """
        if missing := self._facts.query_missing(self._positions.beginnings("sink"), ends):
            _log.error(
                "no facts expire while some are missing (partition: how many): %s; rebuild them: "
                "tallystick replay (docs/expiry.md)",
                missing,
            )
            return False
        waiting = self._pending.load_waiting(_PENDING_MAX)
        if len(waiting) == _PENDING_MAX:
            _log.warning("no facts expire while %d runs or more are to be charged", _PENDING_MAX)
            return False
        if uncharged := self._facts.query_runs_before(waiting, horizon_at):
            _log.warning(
                "no facts expire before %d runs with some are charged, such as %s of tenant %s",
                len(uncharged), uncharged[0][1], uncharged[0][0],
            )  # fmt: skip
            self._pending.mark_now(dict.fromkeys(uncharged, True), now)
            return False
        self._facts.announce(horizon_at, now)
        return True

    def _drop(self, horizon_at: int) -> bool:
        months = self._facts.query_months(horizon_at)
        for month in months:
            self._facts.drop(month)
        return bool(months)
