"""Convergence: bring the one charge of each run to its target, by signed deltas.

A duplicate target posts nothing, a higher one posts a charge, a lower one a refund. Usage
that happened is never refused: what does not fit under the account's limit is recorded as
shortfall. Refunds made by hand stay made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tallystick.errors import Conflict
from tallystick.ids import IdSource
from tallystick.ledger.model import RunCharge, RunChargeOutcome, RunTarget
from tallystick.ledger.posting import Posting
from tallystick.ledger.rules import Spend, plan_convergence
from tallystick.ledger.store import (
    SQL,
    Connection,
    RunKey,
    load_run_charges,
    load_run_spends,
    store_run_charges,
)


def converge(
    connection: Connection, ids: IdSource, now: int, targets: Sequence[RunTarget]
) -> list[RunChargeOutcome]:
    """Post target minus posted for each run, in one transaction of the caller."""
    runs = [(target.tenant_id, target.run_id) for target in targets]
    known = load_run_charges(connection, runs)
    accounts = _accounts_of(connection, targets, known, now)
    tenants = {account: run[0] for run, account in accounts.items()}
    posting = Posting(connection, ids, now, tenants)
    known = load_run_charges(connection, runs)  # again: now under the accounts' locks
    spends = _spends_to_refund(connection, targets, known)
    changed: dict[RunKey, RunCharge] = {}
    outcomes = []
    for target in targets:
        run = (target.tenant_id, target.run_id)
        charge = changed.get(run) or known.get(run) or RunCharge(
            *run, accounts[run], 0, 0, 0, 0, 0, now
        )  # fmt: skip
        outcome = _converge_one(posting, charge, target, spends.get(run, []))
        if outcome.operation_id or charge.target != target.target_units or run not in known:
            charge.target = target.target_units
            charge.revision += 1
            charge.updated_at = now
            changed[run] = charge
        outcomes.append(outcome)
    posting.write()
    if changed:
        store_run_charges(connection, list(changed.values()))
    return outcomes


def _converge_one(
    posting: Posting, charge: RunCharge, target: RunTarget, spent: list[Spend]
) -> RunChargeOutcome:
    run_id = target.run_id
    delta = plan_convergence(target.target_units, charge.charged, charge.shortfall, charge.refunded)
    operation_id = None
    if delta > 0:
        operation = posting.charge(
            charge.account_id, delta, is_partial=True, run_id=run_id, reason=target.reason
        )
        charge.charged += delta - operation.shortfall
        charge.shortfall += operation.shortfall
        operation_id = str(operation.operation_id)
    elif delta < 0:
        forgiven = min(charge.shortfall, -delta)
        charge.shortfall -= forgiven
        back = -delta - forgiven
        if back:
            operation = posting.refund(
                charge.account_id, back, spent, run_id=run_id, reason=target.reason
            )
            charge.charged -= back
            operation_id = str(operation.operation_id)
    return RunChargeOutcome(target.tenant_id, run_id, delta, charge.shortfall, operation_id)


def _accounts_of(
    connection: Connection,
    targets: Sequence[RunTarget],
    known: dict[RunKey, RunCharge],
    now: int,
) -> dict[RunKey, str]:
    """The account of each run: the one charged before, or else its tenant's own."""
    tenants = sorted({target.tenant_id for target in targets})
    defaults = _default_accounts(connection, tenants)
    for tenant in tenants:
        if tenant not in defaults:
            defaults[tenant] = _create_postpaid(connection, tenant, now)
    accounts = {}
    for target in targets:
        run = (target.tenant_id, target.run_id)
        accounts[run] = known[run].account_id if run in known else defaults[target.tenant_id]
    return accounts


def _default_accounts(connection: Connection, tenants: list[str]) -> dict[str, str]:
    rows = connection.execute(SQL["load_default_accounts"], {"tenant_ids": tenants}).fetchall()
    return {row[0]: row[1] for row in rows}


def _create_postpaid(connection: Connection, tenant: str, now: int) -> str:
    """Make the account of a tenant that has usage but no account: it owes, without limit."""
    digest = hashlib.sha256(tenant.encode()).hexdigest()[:32]
    for account_id in (f"usage:{digest}",) if tenant[0] == "@" else (tenant, f"usage:{digest}"):
        arguments = {
            "account_id": account_id,
            "tenant_id": tenant,
            "capture_policy": "overage",
            "overage_limit_units": None,
            "now": now,
        }
        connection.execute(SQL["insert_account"], arguments)
        if _default_accounts(connection, [tenant]):  # else the name is another tenant's
            connection.execute(SQL["insert_balance"], arguments)
            return account_id
    raise Conflict(f"no account could be made for tenant {tenant}", code="unknown_account")


def _spends_to_refund(
    connection: Connection, targets: Sequence[RunTarget], known: dict[RunKey, RunCharge]
) -> dict[RunKey, list[Spend]]:
    shrinking = [
        (target.tenant_id, target.run_id)
        for target in targets
        if (charge := known.get((target.tenant_id, target.run_id))) is not None
        and target.target_units < charge.charged + charge.shortfall
    ]
    return load_run_spends(connection, shrinking) if shrinking else {}
