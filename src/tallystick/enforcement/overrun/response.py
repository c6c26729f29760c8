"""Overrun response as one thing, for the composition root and the routes."""

from __future__ import annotations

from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.enforcement.alerts import SignalSink
from tallystick.enforcement.overrun.causes import Causes
from tallystick.enforcement.overrun.guard import MitigationGuard
from tallystick.enforcement.overrun.service import Launches, Mitigations
from tallystick.ids import IdSource
from tallystick.plumbing.clickhouse import ClickHouse


class OverrunResponse:
    """Mitigations, planned launches, causes, and the guard of this process."""

    def __init__(
        self,
        pool: ConnectionPool,
        clickhouse: ClickHouse,
        clock: Clock,
        ids: IdSource,
        signals: SignalSink | None = None,
    ) -> None:
        self.mitigations = Mitigations(pool, clock, ids, signals)
        self.launches = Launches(pool, clock, ids)
        self.causes = Causes(clickhouse)
        self.guard = MitigationGuard(pool, clock)
