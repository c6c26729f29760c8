"""Usage that never asked: what events used of a limit beyond what the ledger captured for it.

For each limit and run the vault keeps what events say was spent. What the run's holds captured
is in the ledger already; the rest is counted as used, as a target: asked again after a crash, it
changes nothing. While a hold of the run is open nothing is counted, its capture may cover it;
what the ledger did meanwhile makes the run due again. What was spent in a window before its
limit was first seen counts as one baseline: events before the remembered positions, after
a replay too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from psycopg_pool import ConnectionPool

from tallystick.clock import SECOND, Clock
from tallystick.enforcement.vault.model import (
    DIMENSIONS,
    FOLLOWER,
    SCOPE_COLUMNS,
    Assignment,
    Assignments,
    Connection,
    Integers,
    UsageCounter,
)
from tallystick.enforcement.vault.rules import (
    asset_units,
    distinct_rows,
    integers,
    scope_codes,
    source_key,
    usage_target,
)
from tallystick.enforcement.vault.signals import Thresholds
from tallystick.enforcement.vault.store import VaultStore
from tallystick.plumbing.arrays import int_array, text_array
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements
from tallystick.rating.groups import Coded, code

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.vault", "counting.sql").items()
}
_RUNS_PER_SETTLE_MAX = 2_000
_LOOK_EVERY = 2 * SECOND
"""How often budgets that are new, and thresholds, are looked at."""

_EVERY_TENANT: Sequence[str] = ()
BASELINE = "baseline"
_LEDGER = "vault-ledger"
"""The position in the ledger's transactions, kept beside those in the log."""


class Counting:
    """Counts what events used of limits."""

    def __init__(
        self,
        pool: ConnectionPool,
        store: VaultStore,
        assignments: Assignments,
        counter: UsageCounter,
        clock: Clock,
        thresholds: Thresholds | None = None,
    ) -> None:
        self._pool = pool
        self._store = store
        self._assignments = assignments
        self._counter = counter
        self._clock = clock
        self._thresholds = thresholds
        self._looked_at = 0

    def count(
        self,
        connection: Connection,
        partition: int,
        offsets: Sequence[int],
        columns: Mapping[str, Any],
        rated: Mapping[str, Any],
        signs: Integers,
    ) -> None:
        """Add a chunk's usage of limits; call before its cells are added."""
        count = len(signs)
        moments = integers(columns["occurred_at"], count)
        counts = np.flatnonzero(signs)
        if not len(counts):
            return
        tenants = list(dict.fromkeys(code(columns["tenant_id"], count).values))
        times = moments[counts]
        found = self._assignments.within(
            connection, tenants, int(times.min()), int(times.max()) + 1
        )
        if not found:
            return
        watched = self._watch(connection, found)
        keys = dict(zip(SCOPE_COLUMNS, scope_codes(columns, count), strict=True))
        runs = code(columns["run_id"], count)
        places = np.asarray(offsets, np.int64)
        by_asset = {
            asset: asset_units(asset, columns, rated, signs)
            for asset in {one.asset for one in found}
        }
        for one in found:
            rows = np.flatnonzero(_covered(one, keys, moments) & (signs != 0))
            if not len(rows):
                continue
            units = by_asset[one.asset]
            is_before = places[rows] < watched[one.limit_id].get(str(partition), 0)
            self._add(connection, one, runs, rows[~is_before], units)
            self._add_baseline(connection, one, int(units[rows[is_before]].sum()))

    def _add(
        self, connection: Connection, one: Assignment, runs: Coded, rows: Integers, units: Integers
    ) -> None:
        if not len(rows):
            return
        own = Coded(runs.codes[rows], runs.values)
        first, kinds = distinct_rows([own], len(rows))
        sums = np.zeros(len(first), np.int64)
        np.add.at(sums, kinds, units[rows])
        run_ids = [own.value(row) for row in first]
        arguments = {
            "limit_id": one.limit_id,
            "tenant_id": one.tenant_id,
            "run_ids": text_array(run_ids),
            "source_keys": text_array([source_key(one.tenant_id, run) for run in run_ids]),
            "units": int_array(sums.tolist()),
        }
        connection.execute(_SQL["add_runs"], arguments)

    def _add_baseline(self, connection: Connection, one: Assignment, units: int) -> None:
        if units:
            arguments = {
                "limit_id": one.limit_id,
                "tenant_id": one.tenant_id,
                "run_ids": text_array([""]),
                "source_keys": text_array([BASELINE]),
                "units": int_array([units]),
            }
            connection.execute(_SQL["add_runs"], arguments)

    def _watch(
        self, connection: Connection, found: Sequence[Assignment]
    ) -> dict[str, dict[str, int]]:
        """From where each limit counts run by run; new ones from here, with their baseline."""
        limit_ids = [one.limit_id for one in found]
        rows = connection.execute(_SQL["load_watched"], {"limit_ids": limit_ids}).fetchall()
        watched: dict[str, dict[str, int]] = dict(rows)
        new = [one for one in found if one.limit_id not in watched]
        if not new:
            return watched
        stored = connection.execute(_SQL["load_positions"], {"follower": FOLLOWER}).fetchall()
        positions = {str(partition): offset for partition, offset in stored}
        for one in new:
            arguments = {
                "limit_id": one.limit_id,
                "positions": msgspec.json.encode(positions).decode(),
                "now": self._clock.now(),
            }
            connection.execute(_SQL["watch"], arguments)
            watched[one.limit_id] = positions
            spent = self._store.load_spent(
                one.tenant_id, one.scope, one.from_at, one.to_at, connection
            )
            self._add_baseline(connection, one, spent.units(one.asset))
        return watched

    def settle(self) -> bool:
        """Count what is due; look at new budgets and thresholds now and then."""
        now = self._clock.now()
        if now - self._looked_at >= _LOOK_EVERY:
            self._looked_at = now
            self._look(now)
        with transaction(self._pool) as connection:
            due = connection.execute(_SQL["load_due"], {"limit": _RUNS_PER_SETTLE_MAX}).fetchall()
            if not due:
                return False
            targets = [
                (limit_id, source, usage_target(int(spent), int(captured)))
                for limit_id, source, spent, captured in due
            ]
            self._counter.count_usage(connection, targets)
            arguments = {
                "limit_ids": [limit_id for limit_id, _, _ in targets],
                "source_keys": [source for _, source, _ in targets],
            }
            connection.execute(_SQL["mark_counted"], arguments)
        return True

    def _look(self, now: int) -> None:
        """Watch budgets that are new, see what the ledger did, and tell of thresholds."""
        with transaction(self._pool) as connection:
            self._store.begin(connection, {}, ())
            current = self._assignments.within(connection, _EVERY_TENANT, now, now + 1)
            if current:
                self._watch(connection, current)
            self._follow_ledger(connection, now)
            if self._thresholds is not None:
                self._thresholds.tell(connection, current, now)

    def _follow_ledger(self, connection: Connection, now: int) -> None:
        """Runs whose holds moved since are due again."""
        row = connection.execute(_SQL["load_positions"], {"follower": _LEDGER}).fetchone()
        arguments = {"follower": _LEDGER, "since": row[1] if row else 0, "now": now}
        connection.execute(_SQL["mark_moved"], arguments)


def _covered(one: Assignment, keys: Mapping[str, Coded], moments: Integers) -> Any:
    """Which events count against an assignment."""
    covered = (moments >= one.from_at) & (moments < one.to_at)
    wanted = {DIMENSIONS[name]: value for name, value in one.scope.items()}
    for name, value in {"tenant_id": one.tenant_id, **wanted}.items():
        coded = keys[name]
        covered = covered & np.array([known == value for known in coded.values])[coded.codes]
    return covered
