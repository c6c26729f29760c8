"""The usage log in PostgreSQL: one row a batch, dense offsets, one lock that orders appends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from tallystick.errors import StoreUnavailable
from tallystick.plumbing.log.model import LogBatch, encode_payload
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.plumbing.log", "log.sql").items()
}


class Position(NamedTuple):
    """Where a follower is: the next offset to read, and when it last moved (micros)."""

    offset: int
    progressed_at: int


class PostgresLog:
    """One partition of the usage log."""

    def __init__(self, pool: ConnectionPool, partition: int = 0) -> None:
        self._pool = pool
        self.partition = partition

    def append(
        self,
        events: list[Any],
        received_at: int,
        judge: Callable[[int], bytes],
    ) -> int:
        """Append one batch durably; return the offset of its first event.

        `judge(offset_start)` is called once the offsets are known and locked, and returns
        one verdict byte an event. Raises StoreUnavailable; then nothing was appended, or
        (a lost answer) the batch stands and a resend of it is judged a duplicate.
        """
        with transaction(self._pool) as connection:
            offset_start = self._one(connection, "lock_head", {})
            verdicts = judge(offset_start)
            arguments = {
                "partition": self.partition,
                "offset_start": offset_start,
                "event_count": len(events),
                "received_at": received_at,
                "payload": encode_payload(events, verdicts),
            }
            connection.execute(_SQL["append_batch"], arguments)
        return offset_start

    def head(self) -> int:
        """The offset that the next event will get."""
        with transaction(self._pool) as connection:
            return self._one(connection, "load_head", {})

    def read(self, position: int, *, batches_max: int) -> list[LogBatch]:
        """Return batches in order, from the one that holds `position` on."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(LogBatch), binary=True)
            arguments = {
                "partition": self.partition,
                "position": position,
                "batches_max": batches_max,
            }
            return cursor.execute(_SQL["load_batches"], arguments).fetchall()

    def oldest_waiting(self, position: int) -> int | None:
        """When (micros) the first event at or after `position` arrived; None when none did."""
        with transaction(self._pool) as connection:
            return self._maybe(connection, "load_oldest_waiting", {"position": position})

    def position(self, follower: str) -> Position:
        """Where a follower is; a new one is at the beginning."""
        arguments = {"follower": follower, "partition": self.partition}
        with transaction(self._pool) as connection:
            row = connection.execute(_SQL["load_position"], arguments).fetchone()
        return Position(*row) if row else Position(0, 0)

    def store_position(
        self, connection: psycopg.Connection[Any], follower: str, offset: int, now: int
    ) -> None:
        """Move a follower inside a transaction of the caller."""
        arguments = {
            "follower": follower,
            "partition": self.partition,
            "position": offset,
            "progressed_at": now,
        }
        connection.execute(_SQL["store_position"], arguments)

    def commit_position(self, follower: str, offset: int, now: int) -> None:
        """Move a follower in a transaction of its own."""
        with transaction(self._pool) as connection:
            self.store_position(connection, follower, offset, now)

    def _one(self, connection: psycopg.Connection[Any], name: str, more: dict[str, Any]) -> int:
        found = self._maybe(connection, name, more)
        if found is None:
            raise StoreUnavailable(f"the usage log has no partition {self.partition}")
        return found

    def _maybe(
        self, connection: psycopg.Connection[Any], name: str, more: dict[str, Any]
    ) -> int | None:
        row = connection.execute(_SQL[name], {"partition": self.partition, **more}).fetchone()
        return int(row[0]) if row else None
