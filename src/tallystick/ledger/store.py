"""The ledger's rows: load under lock, and write back by set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from tallystick.ledger.model import RunCharge
from tallystick.ledger.rules import AccountState, LotState, Spend
from tallystick.plumbing.sql import load_statements

SQL = {
    name: text.encode() for name, text in load_statements("tallystick.ledger", "store.sql").items()
}
Connection = psycopg.Connection[Any]
RunKey = tuple[str, str]


class Leg(NamedTuple):
    """Units that move from a source to a target."""

    source: str
    target: str
    units: int


class Operation(NamedTuple):
    """One row of history."""

    operation_id: UUID
    account_id: str
    tenant_id: str
    kind: str
    outcome: str
    units: int
    posted_at: int
    balance_after: int
    legs: tuple[Leg, ...] = ()
    spend: Spend = Spend((), 0)
    shortfall: int = 0
    run_id: str = ""
    refers_to: UUID | None = None
    reason: str = ""


class Locked(NamedTuple):
    """Accounts under lock and every lot that was loaded, by id."""

    accounts: dict[str, AccountState]
    lots: dict[UUID, LotState]


def lock_accounts(connection: Connection, account_ids: Sequence[str]) -> Locked:
    """Lock accounts in id order and load their lots that have credit."""
    arguments = {"account_ids": sorted(set(account_ids))}
    cursor = connection.execute(SQL["lock_balances"], arguments, binary=True)
    accounts = {row[0]: account_state(row, []) for row in cursor.fetchall()}
    lots: dict[UUID, LotState] = {}
    for row in connection.execute(SQL["load_open_lots"], arguments, binary=True).fetchall():
        lot = LotState(*row)
        lots[lot.lot_id] = lot
        accounts[lot.account_id].lots.append(lot)
    return Locked(accounts, lots)


def account_state(row: tuple[Any, ...], lots: list[LotState]) -> AccountState:
    """Make the state of a balance row and its lots."""
    account_id, credited, debited, held, leased, overage, limit = row
    return AccountState(account_id, credited, debited, held, leased, overage, limit, lots)


def load_missing_lots(connection: Connection, locked: Locked, lot_ids: set[UUID]) -> None:
    """Load further lots of locked accounts, such as those that a refund gives back to."""
    missing = [lot_id for lot_id in lot_ids if lot_id not in locked.lots]
    if not missing:
        return
    rows = connection.execute(SQL["load_lots"], {"lot_ids": missing}, binary=True).fetchall()
    for row in rows:
        lot = LotState(*row)
        locked.lots[lot.lot_id] = lot
        locked.accounts[lot.account_id].lots.append(lot)


def write_back(connection: Connection, locked: Locked, operations: Sequence[Operation]) -> None:
    """Append operations and write balances and lots, each by one statement."""
    copy_operations(connection, operations)
    account_ids = sorted({operation.account_id for operation in operations if operation.legs})
    if not account_ids:
        return
    accounts = [locked.accounts[account_id] for account_id in account_ids]
    connection.execute(
        SQL["update_balances"],
        {
            "account_ids": account_ids,
            "credited": [account.credited for account in accounts],
            "debited": [account.debited for account in accounts],
            "overage": [account.overage for account in accounts],
        },
    )
    touched = {lot_id for operation in operations for lot_id, _ in operation.spend.lots}
    lots = [locked.lots[lot_id] for lot_id in sorted(touched)]
    if lots:
        connection.execute(
            SQL["update_lots"],
            {
                "lot_ids": [lot.lot_id for lot in lots],
                "consumed": [lot.consumed for lot in lots],
                "held": [lot.held for lot in lots],
                "expired": [lot.expired for lot in lots],
            },
        )


def copy_operations(connection: Connection, operations: Sequence[Operation]) -> None:
    """Append rows of history."""
    with connection.cursor().copy(SQL["copy_operations"]) as copy:
        for operation in operations:
            copy.write_row(
                (
                    operation.operation_id,
                    operation.account_id,
                    operation.tenant_id,
                    operation.kind,
                    operation.outcome,
                    operation.units,
                    operation.shortfall,
                    operation.run_id,
                    operation.refers_to,
                    operation.reason,
                    [leg.source for leg in operation.legs],
                    [leg.target for leg in operation.legs],
                    [leg.units for leg in operation.legs],
                    [lot_id for lot_id, _ in operation.spend.lots],
                    [units for _, units in operation.spend.lots],
                    operation.spend.overage,
                    operation.balance_after,
                    operation.posted_at,
                )
            )


def insert_lot(connection: Connection, lot: LotState) -> None:
    """Append a lot."""
    connection.execute(
        SQL["insert_lot"],
        {
            "lot_id": lot.lot_id,
            "account_id": lot.account_id,
            "source": lot.source,
            "priority": lot.priority,
            "expires_at": lot.expires_at,
            "created_at": lot.created_at,
            "granted": lot.granted,
            "consumed": lot.consumed,
        },
    )


def load_run_charges(connection: Connection, runs: Sequence[RunKey]) -> dict[RunKey, RunCharge]:
    """Charges of runs, for those that have one."""
    cursor = connection.cursor(row_factory=class_row(RunCharge), binary=True)
    rows = cursor.execute(SQL["load_run_charges"], _run_arguments(runs)).fetchall()
    return {(row.tenant_id, row.run_id): row for row in rows}


def store_run_charges(connection: Connection, charges: Sequence[RunCharge]) -> None:
    """Write charges of runs by set."""
    connection.execute(
        SQL["upsert_run_charges"],
        {
            "tenant_ids": [charge.tenant_id for charge in charges],
            "run_ids": [charge.run_id for charge in charges],
            "account_ids": [charge.account_id for charge in charges],
            "targets": [charge.target for charge in charges],
            "charged": [charge.charged for charge in charges],
            "shortfalls": [charge.shortfall for charge in charges],
            "refunded": [charge.refunded for charge in charges],
            "revisions": [charge.revision for charge in charges],
            "updated_at": [charge.updated_at for charge in charges],
        },
    )


def load_run_spends(connection: Connection, runs: Sequence[RunKey]) -> dict[RunKey, list[Spend]]:
    """What runs took and gave back so far, oldest first."""
    spends: dict[RunKey, list[Spend]] = defaultdict(list)
    rows = connection.execute(SQL["load_run_spends"], _run_arguments(runs), binary=True).fetchall()
    for tenant_id, run_id, lot_ids, lot_units, overage in rows:
        spend = Spend(tuple(zip(lot_ids, lot_units, strict=True)), overage)
        spends[tenant_id, run_id].append(spend)
    return spends


def _run_arguments(runs: Sequence[RunKey]) -> dict[str, list[str]]:
    return {
        "tenant_ids": [tenant_id for tenant_id, _ in runs],
        "run_ids": [run_id for _, run_id in runs],
    }
