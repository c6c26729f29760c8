"""Verification of the invariants on live data: a count and examples of what is broken.

Reads only. Facts are compared up to the sink's position and charges only for runs that do
not wait to be charged, so a busy system verifies as well as an idle one. Rollups of time before
the horizon have no facts to be compared with.
"""

from __future__ import annotations

from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.analytics.horizon import KeptFacts
from tallystick.analytics.store import COARSE, SINCE_HORIZON, FactStore, fold_facts_sql, within
from tallystick.ledger import Ledger, Violation
from tallystick.ledger.seals import Seals
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import Positions
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.reconcile", "verify.sql")
_PENDING = b"SELECT tenant_id, charge_key FROM charger.pending_run"
_COMPARED = {**{name: one.bucket for name, one in COARSE.items()}, "rollup_user": "toStartOfDay"}
CHECKED = {
    "INV-01": "entries of an operation sum to zero",
    "INV-02": "a balance equals the fold of its entries",
    "INV-03": "no balance is below its limit",
    "INV-05": "at most one charge per tenant and run",
    "INV-06": "no lot gives more than was granted",
    "INV-07": "what was held is captured or released, once",
    "INV-08": "no started hold freed itself",
    "INV-09": "no event became two facts",
    "INV-10": "every delivery in the log is counted once",
    "INV-11": "rollups equal a recompute from facts",
    "INV-13": "charge lines of a run equal its charge in the ledger",
    "INV-15": "granted = available + held + captured + expired - refunded per bucket",
}
"""What `verify` checks, by id; docs/invariants.md has them all."""


class Verifier:
    """Checks log, facts, rollups, charges and ledger against each other."""

    def __init__(
        self,
        pool: ConnectionPool,
        store: ClickHouse,
        ledger: Ledger,
        seals: Seals,
    ) -> None:
        self._pool = pool
        self._positions = Positions(pool)
        self._store = store
        self._facts = FactStore(store)
        self._ledger = ledger
        self._seals = seals

    def sealed(self, expected_head: str = "") -> list[Violation]:
        """Seal what is committed and check all of history against its seals."""
        self._seals.seal_all()
        return self._seals.verify(expected_head)

    def seal_head(self) -> str:
        """The hash of the newest sealed block."""
        return self._seals.head()

    def violations(self) -> list[Violation]:
        """Return what does not hold; empty when everything does."""
        return [
            *self._ledger.verify(),
            *self._repeated_events(),
            *self._lost_offsets(),
            *_violation("INV-11", self.rollup_differences()),
            *_violation(
                "INV-13",
                [
                    f"{run[0]}/{run[1]}: lines {lines}, ledger {charged}"
                    for run, lines, charged in self.charge_differences()
                ],
            ),
        ]

    def _repeated_events(self) -> list[Violation]:
        rows = self._store.query_rows(_SQL["query_repeated_events"])
        return _violation("INV-09", [f"{row['tenant_id']}/{row['event_id']}" for row in rows])

    def _lost_offsets(self) -> list[Violation]:
        lost, missing = [], 0
        beginnings = self._positions.beginnings("sink")
        expired = KeptFacts(self._store).query_expired()
        for partition, position in sorted(self._positions.load("sink").items()):
            first = beginnings.get(partition, 0)
            row = self._store.query_rows(
                _SQL["query_fact_identity"],
                {"partition": partition, "first": first, "position": position.offset},
            )[0]
            count = position.offset - first - expired.get(partition, 0)
            if not row["rows"] == row["offsets"] == count:
                missing += abs(count - int(row["rows"])) or 1
                lost.append(
                    f"partition {partition}: log and not expired {count}, rows {row['rows']}, "
                    f"distinct offsets {row['offsets']}"
                )
        return [Violation("INV-10", missing, lost)] if lost else []

    def rollup_differences(self) -> list[str]:
        """Buckets of tenants whose rollup is not what the facts say."""
        found = []
        for table, bucket in _COMPARED.items():
            ends = self._facts.query_watermarks(table)
            if not ends:
                continue
            recomputed = fold_facts_sql(
                f"{bucket}(occurred_at) AS bucket_at, tenant_id",
                "bucket_at, tenant_id",
                f"({within('log_offset', {}, ends)}) AND {SINCE_HORIZON}",
            )
            sql = _SQL["query_rollup_differences"].replace("{recomputed}", recomputed)
            rows = self._store.query_rows(sql.replace("{bucket}", bucket).replace("{table}", table))
            found += [f"{table} {row['tenant_id']} {row['bucket_at']}" for row in rows]
        return found

    def charge_differences(self) -> list[tuple[tuple[str, str], int, int]]:
        """Runs whose charge lines and ledger differ: (run, lines, ledger)."""
        rows = self._store.query_rows(_SQL["query_charged_by_run"])
        lines = {(row["tenant_id"], row["charge_key"]): int(row["credit_units"]) for row in rows}
        charged = self._ledger.load_run_targets()
        waiting = self._waiting_runs()
        return [
            (run, lines.get(run, 0), charged.get(run, 0))
            for run in sorted(lines.keys() | charged.keys())
            if lines.get(run, 0) != charged.get(run, 0) and run not in waiting
        ]

    def _waiting_runs(self) -> set[tuple[Any, ...]]:
        with transaction(self._pool) as connection:
            return set(connection.execute(_PENDING).fetchall())


def _violation(invariant_id: str, examples: list[str]) -> list[Violation]:
    return [Violation(invariant_id, len(examples), examples[:10])] if examples else []
