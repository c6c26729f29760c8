"""Usage that never asked: what events used of a limit beyond what the ledger captured for it.

For each limit and run the vault keeps what events say was spent. What the run's holds captured
is in the ledger already; the rest is counted as used, as a target: asked again after a crash, it
changes nothing. While a hold of the run is open nothing is counted, its capture may cover it;
what the ledger did meanwhile makes the run due again. What was spent in a window before its
limit was first seen counts as one baseline: events before the remembered positions, after
a replay too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from psycopg_pool import ConnectionPool

from tallystick.clock import SECOND, Clock, Pace, is_over
from tallystick.enforcement.vault.ended import EndedWindows
from tallystick.enforcement.vault.model import (
    BUCKET,
    DIMENSIONS,
    FOLLOWER,
    Assignment,
    Assignments,
    Connection,
    Integers,
    UsageCounter,
)
from tallystick.enforcement.vault.rules import (
    distinct_rows,
    integers,
    scope_codes,
    source_key,
    sum_by,
    summed,
    units_of,
    usage_target,
)
from tallystick.enforcement.vault.signals import Thresholds
from tallystick.enforcement.vault.store import VaultStore
from tallystick.plumbing.arrays import int_array, text_array
from tallystick.plumbing.log import CORRECTIONS
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements
from tallystick.rating.groups import Coded, code

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.vault", "counting.sql").items()
}
_RUNS_PER_SETTLE_MAX = 5_000
_LOOK_EVERY = 2 * SECOND
"""How often budgets that are new, and thresholds, are looked at."""

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
        heads: Callable[[], Mapping[int, int]],
        thresholds: Thresholds | None = None,
    ) -> None:
        """`heads` tells the ends of every partition of the log."""
        self._pool = pool
        self._store = store
        self._assignments = assignments
        self._counter = counter
        self._clock = clock
        self._ended = EndedWindows(pool, store, heads)
        self._thresholds = thresholds
        self._looked_at = 0
        self._windows = Pace(clock, 0)
        self._watched: set[str] = set()
        """Limits that are watched for certain: nobody stops to watch one that is under way."""

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
        rows = self._limited_rows(connection, columns, signs)
        if not len(rows):
            return
        scopes = _take(scope_codes(columns, len(signs)), rows)
        occurred = integers(columns["occurred_at"], len(signs))[rows]
        received = integers(columns["received_at"], len(signs))[rows]
        closed_at = self._ended.closed_at(connection)
        matched, kinds = self._match(scopes, occurred, received, closed_at)
        found = {one.limit_id: one for several in matched for one in several}
        if not found:
            return
        first_offsets = self._watch(connection, list(found.values()))
        begins = {limit_id: first_offsets[limit_id].get(str(partition), 0) for limit_id in found}
        places = np.asarray(offsets, np.int64)[rows]
        cuts = np.unique(np.array(list(begins.values()), np.int64))
        (runs,) = _take([code(columns["run_id"], len(signs))], rows)
        first, cells = distinct_rows(
            [
                Coded(kinds, range(len(matched))),
                Coded(np.searchsorted(cuts, places, "right"), range(len(cuts) + 1)),
                runs,
            ],
            len(rows),
        )
        _, sums = sum_by(
            cells, {name: all_[rows] for name, all_ in summed(columns, rated, signs).items()}
        )
        units = {asset: units_of(asset, sums) for asset in {one.asset for one in found.values()}}
        uses = _Uses()
        for cell, row in enumerate(first.tolist()):
            for one in matched[kinds[row]]:
                source = BASELINE if places[row] < begins[one.limit_id] else ""
                uses.add(one, source, runs.value(row), units[one.asset][cell])
        if partition == CORRECTIONS:  # what they take back may be of the baseline
            for one in found.values():
                uses.add(one, BASELINE, "", 0)
        self._store_uses(connection, uses)

    def _limited_rows(
        self, connection: Connection, columns: Mapping[str, Any], signs: Integers
    ) -> Integers:
        """Which events count, and are of tenants with budgets."""
        limited = self._assignments.limited(connection)
        tenants = code(columns["tenant_id"], len(signs))
        is_limited = np.array([tenant in limited for tenant in tenants.values])
        if not is_limited.any():
            return np.zeros(0, np.int64)
        return np.flatnonzero(is_limited[tenants.codes] & (signs != 0))

    def _match(
        self, scopes: Sequence[Coded], occurred: Integers, received: Integers, closed_at: int
    ) -> tuple[list[list[Assignment]], Integers]:
        """What limits each kind of event, by scope and bucket, and the kind of each event."""
        buckets, lateness = (
            Coded(places, distinct.tolist())
            for distinct, places in (
                np.unique(moments // BUCKET, return_inverse=True)
                for moments in (occurred, np.maximum(received - occurred, 0))
            )
        )
        first, kinds = distinct_rows([*scopes, buckets, lateness], len(occurred))
        matched = []
        for row in first.tolist():
            tenant_id, *values = (key.value(row) for key in scopes)
            scope = dict(zip(DIMENSIONS, values, strict=True))
            at, late = int(buckets.value(row)) * BUCKET, int(lateness.value(row)) * BUCKET
            found = self._assignments.matching(tenant_id, scope, at)
            matched.append([one for one in found if _is_open(one, late, closed_at)])
        return matched, kinds

    def _store_uses(self, connection: Connection, uses: _Uses) -> None:
        if not uses.units:
            return
        limit_ids, sources = zip(*uses.units, strict=True)
        tenants, runs = zip(*(uses.runs[key] for key in uses.units), strict=True)
        arguments = {
            "limit_ids": text_array(limit_ids),
            "source_keys": text_array(sources),
            "tenant_ids": text_array(tenants),
            "run_ids": text_array(runs),
            "units": int_array(uses.units.values()),
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
        stored = self._store.positions(connection, FOLLOWER)
        positions = {str(partition): offset for partition, offset in stored.items()}
        uses = _Uses()
        for one in new:
            arguments = {
                "limit_id": one.limit_id,
                "positions": msgspec.json.encode(positions).decode(),
                "ends_at": None if one.span else one.to_at,
                "now": self._clock.now(),
            }
            connection.execute(_SQL["watch"], arguments)
            watched[one.limit_id] = positions
            spent = self._store.load_spent(
                one.tenant_id, one.scope, one.from_at, one.to_at, connection
            )
            if units := spent.units(one.asset):
                uses.add(one, BASELINE, "", units)
        self._store_uses(connection, uses)
        return watched

    def settle(self) -> bool:
        """Count what is due; look at new budgets and thresholds now and then."""
        now = self._clock.now()
        if is_over(_LOOK_EVERY, self._looked_at, now):
            self._looked_at = now
            self._look(now)
            self._ended.look(now)
        with transaction(self._pool) as connection:
            self._store.begin(connection, {}, ())
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
            self._follow_ledger(connection, now)
        if not self._windows.is_due():
            return
        with transaction(self._pool) as connection:
            self._store.begin(connection, {}, ())
            current = self._assignments.current(connection, now)
            closed_at = self._ended.closed_at(connection)
            watched = [one for one in current if _is_open(one, 0, closed_at)]
            new = [one for one in watched if one.limit_id not in self._watched]
            if new:
                self._watch(connection, new)
            if self._thresholds is not None:
                self._thresholds.tell(connection, current, now)
        self._watched = {one.limit_id for one in watched}
        self._windows.done()

    def _follow_ledger(self, connection: Connection, now: int) -> None:
        """Runs whose holds moved since are due again."""
        since = self._store.positions(connection, _LEDGER).get(0, 0)
        arguments = {"follower": _LEDGER, "since": since, "now": now}
        connection.execute(_SQL["mark_moved"], arguments)


class _Uses:
    """Usage by limit and source."""

    def __init__(self) -> None:
        self.units: dict[tuple[str, str], int] = {}
        self.runs: dict[tuple[str, str], tuple[str, str]] = {}
        """(tenant, run) of each."""

    def add(self, one: Assignment, source: str, run_id: str, units: int) -> None:
        """Add usage of a run, or of a source by its name."""
        key = (one.limit_id, source or source_key(one.tenant_id, run_id))
        self.units[key] = self.units.get(key, 0) + units
        self.runs[key] = (one.tenant_id, "" if source else run_id)


def _is_open(one: Assignment, late: int, closed_at: int) -> bool:
    """Whether usage that came so late counts: a rolling window has left it behind, or is open."""
    return late < one.span if one.span else one.to_at > closed_at


def _take(columns: Sequence[Coded], rows: Integers) -> list[Coded]:
    return [Coded(one.codes[rows], one.values) for one in columns]
