"""Expiry on a test world: the clock is moved by hand, the worker stepped through its stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tallystick.analytics.horizon import KeptFacts
from tallystick.clock import HOUR, FixedClock, format_time, from_datetime
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import Horizons, KnownHorizons
from tallystick.plumbing.log.heads import PostgresHeads
from tallystick.workers.expiry import Expiry
from tallystick.workers.pending import PendingRuns
from tests.world import World

DAYS = 90


def month(year: int, number: int) -> int:
    """The first of a month, in micros."""
    return from_datetime(datetime(year, number, 1, tzinfo=UTC))


class ExpiryWorld:
    """A world whose facts expire."""

    def __init__(self, world: World) -> None:
        assert isinstance(world.clock, FixedClock)
        self.world = world
        self.clock = world.clock
        self.store = world.facts._store
        self.facts = KeptFacts(self.store)
        self.horizons = Horizons(world.pool)
        self.worker = self.new_worker()
        world.door.closed_before = KnownHorizons(world.pool, world.clock).closed_before

    def new_worker(self, days: int = DAYS) -> Expiry:
        """A worker that knows nothing, as after a crash."""
        world = self.world
        return Expiry(
            self.horizons,
            PostgresHeads([world.log, world.corrections]).heads,
            world.positions,
            PendingRuns(world.pool),
            self.facts,
            world.clock,
            days=days,
        )

    def look(self, worker: Expiry | None = None) -> bool:
        """One look of the worker, an hour later."""
        self.clock.micros += HOUR
        return (worker or self.worker).step()

    def expire(self) -> int:
        """Until there is nothing more to do; returns from when on facts are kept."""
        idle = 0
        while idle < 3:
            self.world.settle()
            idle = 0 if self.look() else idle + 1
        return self.kept_from()

    def kept_from(self) -> int:
        return self.facts.query_horizon().horizon_at

    def count(self, condition: str = "1") -> int:
        rows = self.store.query_rows(f"SELECT count() AS n FROM tallystick.facts WHERE {condition}")
        return int(rows[0]["n"])

    def charged(self, tenant: str) -> dict[str, int]:
        """What the ledger charges each run of a tenant."""
        targets = self.world.ledger.load_run_targets()
        return {run: units for (owner, run), units in targets.items() if owner == tenant}

    def refunds(self) -> int:
        """Operations of the ledger that gave something back."""
        with self.world.pool.connection() as connection:
            rows = connection.execute(
                "SELECT count(*) FROM ledger.operation WHERE kind = 'refund'"
            ).fetchone()
        return int(rows[0]) if rows else 0

    def lines(self, tenant: str) -> dict[str, int]:
        """What the charge lines say of each run."""
        rows = self.store.query_rows(
            "SELECT charge_key, toString(sum(c.credit_units)) AS units FROM tallystick.charges "
            "AS c WHERE tenant_id = {tenant:String} GROUP BY charge_key HAVING units != '0'",
            {"tenant": tenant},
        )
        return {row["charge_key"]: int(row["units"]) for row in rows}


@contextmanager
def expiring(url: str, clickhouse: ClickHouse, folder: Path, now: int) -> Iterator[ExpiryWorld]:
    """A world of its own; the ClickHouse that others use too knows no horizon afterwards."""
    clickhouse.command("TRUNCATE TABLE tallystick.horizon")
    world = World(url, clickhouse, folder, FixedClock(now))
    world.facts.wipe()
    try:
        yield ExpiryWorld(world)
    finally:
        world.close()
        clickhouse.command("TRUNCATE TABLE tallystick.horizon")
        world.facts.wipe()


def tool_call(
    tenant: str, event_id: str, at: int, run: str, attempt: int = 1, **more: Any
) -> dict[str, Any]:
    """Usage of 0.05 credits."""
    return {
        "event_id": event_id,
        "event_type": "tool_call_finished",
        "event_time": format_time(at),
        "tenant_id": tenant,
        "run_id": run,
        "attempt": attempt,
        "tool": "search",
        "user_id": "u1",
    } | more
