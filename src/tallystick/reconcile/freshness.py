"""Freshness: how far each follower is behind the log, in events and in seconds."""

from __future__ import annotations

from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.analytics.store import FactStore
from tallystick.clock import SECOND, Clock, format_time
from tallystick.plumbing.log import Position, Positions, PostgresLog
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

FOLLOWERS = ("sink", "archiver", "rollups")
STALLED_AFTER_SECONDS = 30
"""A follower with work waiting that has not moved for so long is not progressing."""

ARCHIVER_STALLED_AFTER_SECONDS = 600
"""The archiver moves once a flush, and may wait for a distant store."""

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.reconcile", "freshness.sql").items()
}


class Freshness:
    """Reports lag; reads positions in PostgreSQL and counts in ClickHouse."""

    def __init__(
        self, pool: ConnectionPool, log: PostgresLog, facts: FactStore, clock: Clock
    ) -> None:
        self._pool = pool
        self._log = log
        self._positions = Positions(pool)
        self._facts = facts
        self._clock = clock

    def report(self) -> dict[str, Any]:
        """Return followers with their lag, and accepted minus counted.

        `accepted` counts deliveries in the log, `counted` those that became a fact or were
        set aside as a duplicate or a conflict; when all followers are at the head, the
        difference is zero.
        """
        followers = self.positions()
        followers[-1]["pending_runs"] = self.count_pending_runs()
        counts = self._facts.query_counts()
        accepted = self._log.head()
        counted = sum(int(counts[name]) for name in ("facts", "duplicates", "conflicts"))
        return {
            "at": format_time(self._clock.now()),
            "followers": followers,
            "accepted": accepted,
            "counted": counted,
            "difference": accepted - counted,
            **{name: int(count) for name, count in counts.items()},
        }

    def positions(self) -> list[dict[str, Any]]:
        """Each follower's position and lag."""
        return [self._follower(name) for name in FOLLOWERS]

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

    def count_pending_runs(self) -> int:
        """Runs that wait to be charged."""
        with transaction(self._pool) as connection:
            row = connection.execute(_SQL["count_pending"]).fetchone()
        return int(row[0]) if row else 0

    def _follower(self, name: str) -> dict[str, Any]:
        now = self._clock.now()
        position = self._positions.load(name).get(self._log.partition, Position(0, 0))
        head = self._log.head()
        waiting_since = (
            self._log.oldest_waiting(position.offset) if position.offset < head else None
        )
        lag = (now - waiting_since) / SECOND if waiting_since is not None else 0.0
        return {
            "name": name,
            "position": position.offset,
            "lag_events": max(head - position.offset, 0),
            "lag_seconds": round(max(lag, 0.0), 3),
            "last_progress_at": format_time(position.progressed_at),
            "seconds_since_progress": round((now - position.progressed_at) / SECOND, 3),
        }
