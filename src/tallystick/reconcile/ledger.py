"""Reconcile the ledger: balances, entries, lots, holds, run charges, facts and rollups.

What differs is located; what history can decide is repaired by a compensating operation.
Charges that differ from the facts converge by a delta once the charger sees the run again;
rollups are folded from facts and are named only.
"""

from __future__ import annotations

from typing import Any

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.ledger.drift import Difference, Drift
from tallystick.plumbing.postgres import transaction
from tallystick.reconcile.verify import Verifier

_TOUCH = b"""
INSERT INTO charger.pending_run (tenant_id, charge_key, has_ended, touched_at)
VALUES (%(tenant_id)s, %(run_id)s, true, %(now)s)
ON CONFLICT (tenant_id, charge_key) DO UPDATE SET has_ended = true, touched_at = excluded.touched_at
"""


class LedgerReconciler:
    """Compares the ledger with its history, with the facts and with the rollups."""

    def __init__(self, pool: ConnectionPool, drift: Drift, verifier: Verifier) -> None:
        self._pool = pool
        self._drift = drift
        self._verifier = verifier

    def report(self, now: int, *, is_repairing: bool = False) -> dict[str, Any]:
        """Return the differences and, when asked to, what was repaired."""
        differences = self._drift.differences()
        charges = self._verifier.charge_differences()
        rollups = self._verifier.rollup_differences()
        repaired = 0
        if is_repairing:
            accounts = {one.account_id for one in differences if one.is_repairable}
            repaired = sum(self._drift.repair(account_id) for account_id in sorted(accounts))
            for (tenant_id, run_id), _, _ in charges:
                arguments = {"tenant_id": tenant_id, "run_id": run_id, "now": now}
                with transaction(self._pool) as connection:
                    connection.execute(_TOUCH, arguments)
        shown = [*differences, *(_charge(one) for one in charges), *(_rollup(o) for o in rollups)]
        return {
            "agrees": not shown,
            "differences": [msgspec.to_builtins(one) for one in shown],
            "repaired_rows": repaired,
            "runs_to_converge": len(charges) if is_repairing else 0,
        }


def _charge(found: tuple[tuple[str, str], int, int]) -> Difference:
    run, lines, charged = found
    where = f"{run[0]}/{run[1]}"
    return Difference("charge_lines", where, "", where, {"units": lines}, {"units": charged}, True)


def _rollup(where: str) -> Difference:
    return Difference("rollup", where, "", where, {}, {}, False)
