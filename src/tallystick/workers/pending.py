"""The charger's list: runs whose usage changed since they were last charged.

The sink adds to it in the transaction that moves its positions, so no change is forgotten.
Runs are spread over shards; a shard has one charger at a time. A run that cannot be charged
stays on the list with the reason, and is due again when it is touched or after a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.clock import MINUTE
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

SHARDS = 8
RETRY_AFTER = 10 * MINUTE
"""A refused run is tried again after so long: what refused it may have been mended."""

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.workers", "pending.sql").items()
}


class DueRun(NamedTuple):
    """A run to be charged, and when it was last touched (micros)."""

    tenant_id: str
    charge_key: str
    touched_at: int


class PendingRuns:
    """Reads and writes the list in PostgreSQL."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def mark(
        self,
        connection: psycopg.Connection[Any],
        touched: Mapping[tuple[str, str], bool],
        now: int,
    ) -> None:
        """Add runs (tenant, charge key) with whether their end was seen."""
        if not touched:
            return
        ordered = sorted(touched.items())  # one order of locks for every writer
        arguments = {
            "tenants": [tenant for (tenant, _), _ in ordered],
            "keys": [key for (_, key), _ in ordered],
            "ended": [ended for _, ended in ordered],
            "now": now,
        }
        connection.execute(_SQL["mark_touched"], arguments)

    def mark_now(self, touched: Mapping[tuple[str, str], bool], now: int) -> None:
        """Add runs in a transaction of their own."""
        if touched:
            with transaction(self._pool) as connection:
                self.mark(connection, touched, now)

    def load_due(
        self, shards: Sequence[int], quiet_since: int, runs_max: int, now: int
    ) -> list[DueRun]:
        """Runs of these shards that ended, or were not touched since `quiet_since`."""
        arguments = {
            "shards": list(shards),
            "quiet_since": quiet_since,
            "refused_until": now - RETRY_AFTER,
            "runs_max": runs_max,
        }
        with transaction(self._pool) as connection:
            return [DueRun(*row) for row in connection.execute(_SQL["load_due"], arguments)]

    def load_waiting(self, runs_max: int) -> list[tuple[str, str]]:
        """Runs (tenant, charge key) of all shards that wait, but those that were refused."""
        with transaction(self._pool) as connection:
            return connection.execute(_SQL["load_waiting"], {"runs_max": runs_max}).fetchall()

    def forget(self, runs: Sequence[DueRun]) -> None:
        """Take runs off the list unless they were touched again meanwhile."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["forget_charged"], _named(runs))

    def refuse(self, reasons: Mapping[DueRun, str], now: int) -> None:
        """Set runs aside, each with its reason."""
        arguments = {**_named(list(reasons)), "reasons": list(reasons.values()), "now": now}
        with transaction(self._pool) as connection:
            connection.execute(_SQL["refuse_runs"], arguments)


def _named(runs: Sequence[DueRun]) -> dict[str, Any]:
    return {
        "tenants": [run.tenant_id for run in runs],
        "keys": [run.charge_key for run in runs],
        "touched": [run.touched_at for run in runs],
    }
