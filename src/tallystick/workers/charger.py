"""The charger: one charge a run in the ledger, by convergence.

It follows the sink. A run is due when its end was seen, or when nothing new came for a
while. For due runs it computes what the run should have been charged from all its facts,
lets the ledger post target minus posted, and posts the same delta, split by dimension, to
the analytics side. Every part of that can be repeated: the second time the difference is
zero. So crashes, late events and retries need no special case.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
from psycopg_pool import ConnectionPool

from tallystick.analytics.store import LINE_KEYS, FactStore, RunKey
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, Clock, to_datetime
from tallystick.ledger import Ledger, RunTarget
from tallystick.plumbing.log import PostgresLog
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements
from tallystick.rating import Rater, RunLine, plan_run_target

QUIET_SECONDS = 10
"""A run that never says it ended is charged when it was quiet for so long."""

_RUNS_PER_STEP_MAX = 2_000
_OFFSETS_PER_STEP_MAX = 200_000
_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.workers", "charger.sql").items()
}
_Line = dict[str, Any]


class Charger:
    """Converges the ledger, and the charge lines, to the facts."""

    name = "charger"

    def __init__(
        self,
        pool: ConnectionPool,
        log: PostgresLog,
        facts: FactStore,
        catalog: Catalog,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._log = log
        self._facts = facts
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock
        self._rater: Rater | None = None

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """Note what was touched, charge what is due; False when there was neither."""
        noted = self._note_touched()
        self._note_captured()
        charged = self._charge_due()
        return noted or charged

    def _note_touched(self) -> bool:
        position = self._log.position(self.name).offset
        end = min(self._log.position("sink").offset, position + _OFFSETS_PER_STEP_MAX)
        if end <= position:
            return False
        touched = self._facts.query_touched_runs(position, end)
        now = self._clock.now()
        with transaction(self._pool) as connection:
            if touched:
                arguments = {
                    "tenants": [tenant for tenant, _, _ in touched],
                    "keys": [key for _, key, _ in touched],
                    "ended": [ended for _, _, ended in touched],
                    "now": now,
                }
                connection.execute(_SQL["mark_touched"], arguments)
            self._log.store_position(connection, self.name, end, now)
        return True

    def _note_captured(self) -> None:
        """Runs whose holds were captured after their facts had charged them are due again."""
        stale = self._ledger.load_stale_runs()
        if stale:
            arguments = {
                "tenants": [tenant for tenant, _ in stale],
                "keys": [key for _, key in stale],
                "ended": [True] * len(stale),
                "now": self._clock.now(),
            }
            with transaction(self._pool) as connection:
                connection.execute(_SQL["mark_touched"], arguments)

    def _charge_due(self) -> bool:
        arguments = {
            "quiet_since": self._clock.now() - QUIET_SECONDS * SECOND,
            "runs_max": _RUNS_PER_STEP_MAX,
        }
        with transaction(self._pool) as connection:
            due = connection.execute(_SQL["load_due"], arguments).fetchall()
        if not due:
            return False
        self.converge([(tenant, key) for tenant, key, _ in due])
        done = {
            "tenants": [tenant for tenant, _, _ in due],
            "keys": [key for _, key, _ in due],
            "touched": [touched_at for _, _, touched_at in due],
        }
        with transaction(self._pool) as connection:
            connection.execute(_SQL["forget_charged"], done)
        return True

    def converge(self, runs: list[RunKey]) -> None:
        """Charge each run what its facts say, in the ledger and in the charge lines."""
        lines = self._counted_lines(runs)
        self._ledger.converge_run_charges(
            [
                RunTarget(
                    tenant_id=run[0],
                    run_id=run[1],
                    target_units=sum(lines[run].values()),
                    reason="usage",
                )
                for run in runs
            ]
        )
        self._post_lines(runs, lines)

    def _counted_lines(self, runs: list[RunKey]) -> dict[RunKey, dict[tuple[Any, ...], int]]:
        self._rater = self._catalog.refresh_rater(self._rater)
        now = self._clock.now()
        by_run: dict[RunKey, list[_Line]] = defaultdict(list)
        for row in self._facts.query_run_lines(runs):
            by_run[row["tenant_id"], row["charge_key"]].append(row)
        counted: dict[RunKey, dict[tuple[Any, ...], int]] = {}
        for run in runs:
            rows = by_run[run]
            target = plan_run_target(
                [RunLine(row["attempt"], row["credit_units"]) for row in rows],
                run_failed=any(row["is_failed"] for row in rows),
                policy=self._rater.policy_at(run[0], now),
            )
            sums: dict[tuple[Any, ...], int] = defaultdict(int)
            for row, is_counted in zip(rows, target.counted, strict=True):
                if is_counted and row["credit_units"]:
                    sums[_line_key(row)] += row["credit_units"]
            counted[run] = sums
        return counted

    def _post_lines(
        self, runs: list[RunKey], lines: dict[RunKey, dict[tuple[Any, ...], int]]
    ) -> None:
        deltas: dict[tuple[Any, ...], int] = defaultdict(int)
        for run in runs:
            for key, units in lines[run].items():
                deltas[(*run, *key)] += units
        for row in self._facts.query_charged_lines(runs):
            deltas[row["tenant_id"], row["charge_key"], *_line_key(row)] -= row["credit_units"]
        changed = [(key, units) for key, units in deltas.items() if units]
        if changed:
            self._facts.append("charges", self._lines_table(changed))

    def _lines_table(self, changed: list[tuple[tuple[Any, ...], int]]) -> pa.Table:
        names = ("tenant_id", "charge_key", *LINE_KEYS)
        columns = dict(zip(names, zip(*(key for key, _ in changed), strict=True), strict=True))
        arrays = {name: pa.array(columns[name], pa.string()) for name in names}
        arrays["bucket_at"] = arrays["bucket_at"].cast(pa.timestamp("s"))
        arrays["credit_units"] = pa.array([units for _, units in changed], pa.int64())
        posted_at = to_datetime(self._clock.now())
        arrays["posted_at"] = pa.array([posted_at] * len(changed), pa.timestamp("us", tz="UTC"))
        return pa.table(arrays)


def _line_key(row: _Line) -> tuple[Any, ...]:
    return tuple(row[name] for name in LINE_KEYS)
