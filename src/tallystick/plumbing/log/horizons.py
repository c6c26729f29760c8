"""Horizons: before which time events are refused, as PostgreSQL keeps them for ever.

A horizon is recorded an hour before it closes, so every process knows it in time, and which one
holds for an event is a function of when that was received: all followers of Kafka, and every
replay, judge it alike. The horizon never goes back (a trigger sees to it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from tallystick.clock import MINUTE, Clock, from_datetime, is_over, to_datetime
from tallystick.errors import StoreUnavailable
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.plumbing.log", "horizons.sql").items()
}
_log = logging.getLogger(__name__)

ClosedBefore = Callable[[int], int]
"""When an event was received (micros) -> before which time it is refused; 0: none is."""


class Horizon(NamedTuple):
    """Facts of before `horizon_at` expire; all times in micros."""

    horizon_at: int
    closes_at: int
    """From when on events of before it are refused."""
    ends: Mapping[int, int] | None = None
    """Partition -> where the log ended when nothing of before it came any more."""


def closed_before(horizons: Sequence[Horizon], received_at: int) -> int:
    """Before which time an event that was received at a moment is refused; 0: none is.

    >>> closed_before([Horizon(5, 100), Horizon(7, 200)], 150)
    5
    """
    closed = (one.horizon_at for one in horizons if one.closes_at <= received_at)
    return max(closed, default=0)


def load_horizons(connection: psycopg.Connection[Any]) -> list[Horizon]:
    """Every horizon, closed or not yet, in order."""
    rows = connection.execute(_SQL["load_horizons"]).fetchall()
    return [Horizon(at, closes, _partitions(ends)) for at, closes, ends in rows]


def never_closed(_: int) -> int:
    """Where nothing expires."""
    return 0


def month_of(micros: int) -> int:
    """The beginning of a moment's month, UTC.

    >>> to_datetime(month_of(1_790_000_000_000_000)).isoformat()
    '2026-09-01T00:00:00+00:00'
    """
    moment = to_datetime(micros)
    return from_datetime(datetime(moment.year, moment.month, 1, tzinfo=UTC))


class Horizons:
    """Reads and adds horizons."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def load(self) -> list[Horizon]:
        """All of them, in order."""
        with transaction(self._pool) as connection:
            return load_horizons(connection)

    def append(self, horizon_at: int, closes_at: int) -> None:
        """Add one; nothing happens when one that is as far is there."""
        arguments = {"horizon_at": horizon_at, "closes_at": closes_at}
        with transaction(self._pool) as connection:
            connection.execute(_SQL["append_horizon"], arguments)

    def store_ends(self, horizon_at: int, heads: Callable[[], Mapping[int, int]]) -> None:
        """Note where the log ends now; from here on corrections of before it are refused."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["lock_horizon"], {"horizon_at": horizon_at})
            ends = {str(partition): head for partition, head in heads().items()}
            arguments = {"horizon_at": horizon_at, "ends": Jsonb(ends)}
            connection.execute(_SQL["store_ends"], arguments)

    def corrected_from(self, connection: psycopg.Connection[Any]) -> int:
        """From when on events may be corrected; it holds until the transaction ends."""
        row = connection.execute(_SQL["lock_horizons"]).fetchone()
        return int(row[0]) if row and row[0] is not None else 0


class KnownHorizons:
    """The horizons as a process knows them: read anew each minute, an hour ahead of need."""

    def __init__(self, pool: ConnectionPool, clock: Clock) -> None:
        self._horizons = Horizons(pool)
        self._clock = clock
        self._known: list[Horizon] | None = None
        self._read_at = 0

    def closed_before(self, received_at: int) -> int:
        """Before which time an event that was received at a moment is refused.

        While PostgreSQL is away, what is known holds; StoreUnavailable when nothing is.
        """
        return closed_before(self.load(), received_at)

    def load(self) -> list[Horizon]:
        """All of them, in order, as of a minute ago at the most while PostgreSQL is there."""
        now = self._clock.now()
        if self._known is None or is_over(MINUTE, self._read_at, now):
            try:
                self._known = self._horizons.load()
            except StoreUnavailable as error:
                if self._known is None:
                    raise
                _log.warning("horizons could not be read anew: %s", error.message)
            self._read_at = self._clock.now()  # of the end: an attempt may have waited for long
        return self._known


def _partitions(ends: Mapping[str, int] | None) -> dict[int, int] | None:
    return None if ends is None else {int(partition): end for partition, end in ends.items()}
