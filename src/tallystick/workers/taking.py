"""What the sink and a restore share: the same stores, the same way to begin and end a step.

Both follow the log in the sink's name, so a crash of either is finished by either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from psycopg_pool import ConnectionPool

from tallystick.analytics.store import FactStore
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.ledger.store import Connection
from tallystick.plumbing.log import KnownHorizons, Positions
from tallystick.plumbing.postgres import transaction
from tallystick.workers.intake import Intake, Touched
from tallystick.workers.pending import PendingRuns


class Rewindable(Protocol):
    """Where events come from."""

    def rewind(self) -> None:
        """Read again from the stored positions."""

    def confirm(self, connection: Connection, partitions: list[int]) -> None:
        """Check, in the transaction that stores positions, that they are still ours to move."""


FromWhere = TypeVar("FromWhere", bound=Rewindable)


class Taking(Generic[FromWhere]):
    """Takes events in: facts first, then in one transaction what depends on them."""

    name = "sink"

    def __init__(
        self,
        source: FromWhere,
        positions: Positions,
        facts: FactStore,
        catalog: Catalog,
        pool: ConnectionPool,
        clock: Clock,
    ) -> None:
        self._source = source
        self._positions = positions
        self._intake = Intake(facts, catalog, KnownHorizons(pool, clock))
        self._pool = pool
        self._clock = clock
        self._pending = PendingRuns(pool)

    def recover(self) -> None:
        """Read again from the stored positions, and what has landed beyond them."""
        self._source.rewind()
        self._intake.forget()

    def _finish(self, touched: Touched, ends: Mapping[int, int]) -> None:
        """Mark the runs to charge and move the positions, together."""
        now = self._clock.now()
        with transaction(self._pool) as connection:
            self._pending.mark(connection, touched, now)
            self._source.confirm(connection, list(ends))
            self._positions.store(connection, self.name, ends, now)
