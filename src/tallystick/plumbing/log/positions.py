"""Where each follower is in each partition: kept in PostgreSQL, moved with its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.plumbing.log", "positions.sql").items()
}


class Position(NamedTuple):
    """Where a follower is: the next offset to read, and when it last moved (micros)."""

    offset: int
    progressed_at: int


class Positions:
    """Positions by follower and partition; whoever has none is at the beginning."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def load(self, follower: str) -> dict[int, Position]:
        """Every partition that the follower has begun."""
        with transaction(self._pool) as connection:
            rows = connection.execute(_SQL["load_positions"], {"follower": follower}).fetchall()
        return {partition: Position(offset, moved_at) for partition, offset, moved_at in rows}

    def has_reached(self, follower: str, ends: Mapping[int, int]) -> bool:
        """Whether a follower has read every partition to its end."""
        stored = self.load(follower)
        return all(
            not end or (partition in stored and stored[partition].offset >= end)
            for partition, end in ends.items()
        )

    def offset(self, follower: str, partition: int) -> int:
        """The next offset that the follower reads of a partition."""
        return self.load(follower).get(partition, Position(0, 0)).offset

    def store(
        self,
        connection: psycopg.Connection[Any],
        follower: str,
        offsets: Mapping[int, int],
        now: int,
    ) -> None:
        """Move a follower inside a transaction of the caller."""
        arguments = {
            "follower": follower,
            "partitions": list(offsets),
            "offsets": list(offsets.values()),
            "now": now,
        }
        connection.execute(_SQL["store_positions"], arguments)

    def commit(self, follower: str, offsets: Mapping[int, int], now: int) -> None:
        """Move a follower in a transaction of its own."""
        with transaction(self._pool) as connection:
            self.store(connection, follower, offsets, now)

    def begin(self, follower: str, first_offsets: Mapping[int, int]) -> None:
        """Note where partitions begin that the follower has not begun yet."""
        arguments = {
            "follower": follower,
            "partitions": list(first_offsets),
            "offsets": list(first_offsets.values()),
        }
        with transaction(self._pool) as connection:
            connection.execute(_SQL["store_beginnings"], arguments)

    def beginnings(self, follower: str) -> dict[int, int]:
        """Where partitions began that did not begin at 0: retention had deleted what was before."""
        with transaction(self._pool) as connection:
            rows = connection.execute(_SQL["load_beginnings"], {"follower": follower}).fetchall()
        return dict(rows)

    def forget(self, follower: str) -> None:
        """Send a follower to the beginning of every partition."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["forget_positions"], {"follower": follower})
