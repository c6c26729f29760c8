"""Freshness: how far each follower is behind the log, in events and in seconds."""

from __future__ import annotations

from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.analytics.store import FactStore
from tallystick.clock import SECOND, Clock, format_time
from tallystick.plumbing.log import CORRECTIONS, Position, Positions
from tallystick.plumbing.log.heads import Heads
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

FOLLOWERS = ("sink", "vault", "archiver", "rollups")
STALLED_AFTER_SECONDS = 30
"""A follower with work waiting that has not moved for so long is not progressing."""

ARCHIVER_STALLED_AFTER_SECONDS = 600
"""The archiver moves once a flush, and may wait for a distant store."""

_COUNTED = ("facts", "duplicates", "conflicts", "markers")

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.reconcile", "freshness.sql").items()
}


class Freshness:
    """Reports lag; reads positions in PostgreSQL and counts in ClickHouse."""

    def __init__(self, pool: ConnectionPool, heads: Heads, facts: FactStore, clock: Clock) -> None:
        self._pool = pool
        self._heads = heads
        self._positions = Positions(pool)
        self._facts = facts
        self._clock = clock

    def report(self) -> dict[str, Any]:
        """Return followers with their lag, and accepted minus counted.

        `accepted` counts offsets of the log from where the sink began, `counted` those that
        became a fact, were set aside as a duplicate or a conflict, or hold no message (`markers`
        of Kafka's transactions); when all followers are at the head, the difference is zero.
        `refused_runs` could not be charged: they are set aside and stand in `refused` (ten of
        them) with the reason.
        """
        followers = self.positions()
        pending, refused = self.count_runs()
        followers[-1]["pending_runs"] = pending
        counts = self._facts.query_counts()
        heads = self._heads.heads()
        begun = self._positions.beginnings("sink")
        accepted = sum(
            head - begun.get(partition, 0)
            for partition, head in heads.items()
            if partition != CORRECTIONS
        )
        counted = sum(int(counts[name]) for name in _COUNTED)
        return {
            "at": format_time(self._clock.now()),
            "followers": followers,
            "refused_runs": refused,
            "refused": self._load_refused() if refused else [],
            "accepted": accepted,
            "counted": counted,
            "difference": accepted - counted,
            **{name: int(count) for name, count in counts.items()},
        }

    def positions(self) -> list[dict[str, Any]]:
        """Each follower's position and lag."""
        heads = self._heads.heads()
        return [self._follower(name, heads) for name in FOLLOWERS]

    def stalled(self) -> list[str]:
        """Names of followers that have work waiting and do not move."""
        return [
            lag["name"]
            for lag in self.positions()
            if lag["lag_events"]
            and min(lag["lag_seconds"], lag["seconds_since_progress"])
            > (
                ARCHIVER_STALLED_AFTER_SECONDS
                if lag["name"] == "archiver"
                else STALLED_AFTER_SECONDS
            )
        ]

    def count_runs(self) -> tuple[int, int]:
        """Runs that wait to be charged, and runs that could not be."""
        with transaction(self._pool) as connection:
            row = connection.execute(_SQL["count_pending"]).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def _load_refused(self) -> list[dict[str, Any]]:
        with transaction(self._pool) as connection:
            rows = connection.execute(_SQL["load_refused"]).fetchall()
        return [
            {"tenant_id": tenant, "run_id": key, "reason": why, "refused_at": format_time(at)}
            for tenant, key, why, at in rows
        ]

    def _follower(self, name: str, heads: dict[int, int]) -> dict[str, Any]:
        now = self._clock.now()
        stored = self._positions.load(name)
        positions = {partition: stored.get(partition, Position(0, 0)) for partition in heads}
        behind = {
            partition: head - positions[partition].offset
            for partition, head in heads.items()
            if head > positions[partition].offset
        }
        progressed_at = max((one.progressed_at for one in positions.values()), default=0)
        since = [
            self._heads.waiting_since(partition, positions[partition].offset)
            or positions[partition].progressed_at
            for partition in behind
        ]
        lag = max((now - moment for moment in since), default=0) / SECOND
        return {
            "name": name,
            "position": sum(
                one.offset for partition, one in positions.items() if partition != CORRECTIONS
            ),
            "lag_events": sum(behind.values()),
            "lag_seconds": round(max(lag, 0.0), 3),
            "last_progress_at": format_time(progressed_at),
            "seconds_since_progress": round((now - progressed_at) / SECOND, 3),
        }
