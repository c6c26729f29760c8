"""Convergence: bring the one charge of each run to its target, by signed deltas.

A duplicate target posts nothing, a higher one posts a charge, a lower one a refund. Usage
that happened is never refused: what does not fit under the account's limit is recorded as
shortfall. Refunds made by hand stay made. A run that still has credit set aside pays from
that first, so the same work is never held and charged at once; what is left of a hold that
nobody settled is free again, because the facts have settled it.

A run that is charged its target already, as one whose calls were captured is, costs no operation
and no lock of its account: its charge is only marked as known to the facts.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from tallystick.clock import Clock
from tallystick.errors import Conflict, Raced
from tallystick.ids import IdSource
from tallystick.ledger.book import Book, Change, RunKey
from tallystick.ledger.group import post_settings, read_accounts
from tallystick.ledger.model import RunCharge, RunChargeOutcome, RunTarget
from tallystick.ledger.reading import (
    hold_state,
    lock_limits,
    read_runs,
    read_spent_lots,
    run_arguments,
)
from tallystick.ledger.rules import AccountState, HoldState, plan_convergence, plan_spend
from tallystick.ledger.settlement import end_settled_by_facts
from tallystick.ledger.store import SQL, Connection, Plan, drive
from tallystick.ledger.writing import write_book
from tallystick.plumbing.arrays import int_array


def confirm(connection: Connection, targets: Sequence[RunTarget]) -> dict[RunKey, RunChargeOutcome]:
    """Mark runs whose charge is its target already; the others are left out."""
    runs = [(target.tenant_id, target.run_id) for target in targets]
    units = int_array(target.target_units for target in targets)
    arguments = {**run_arguments(runs), "targets": units}
    rows = connection.execute(SQL["confirm_run_charges"], arguments, binary=True).fetchall()
    return {
        (tenant_id, run_id): RunChargeOutcome(
            tenant_id, run_id, 0, shortfall, None, is_first=not had_facts
        )
        for tenant_id, run_id, shortfall, had_facts in rows
    }


def converge(
    connection: Connection, ids: IdSource, clock: Clock, targets: Sequence[RunTarget]
) -> list[RunChargeOutcome]:
    """Post target minus posted for each run, in one transaction of the caller."""
    runs = [(target.tenant_id, target.run_id) for target in targets]
    accounts = _accounts_of(connection, ids, clock, runs)
    book = drive(connection, read_accounts(ids, clock, accounts.values()))
    drive(connection, _read_charges(book, targets))  # again: now under the accounts' locks
    for run, charge in book.run_charges.items():
        accounts[run] = charge.account_id
    if not set(accounts.values()) <= book.accounts.keys():
        raise Raced("a run was charged to another account meanwhile")
    holds = _load_holds(connection, book, accounts)
    outcomes = []
    for target in targets:
        run = (target.tenant_id, target.run_id)
        charge = book.run_charges.get(run) or RunCharge(*run, accounts[run])
        outcomes.append(_converge_one(book, charge, target, holds[run]))
    drive(connection, write_book(book))
    return outcomes


def _read_charges(book: Book, targets: Sequence[RunTarget]) -> Plan[None]:
    """The runs' charges, and what those took that may have to give back."""
    runs = [(target.tenant_id, target.run_id) for target in targets]
    yield from read_runs(book, runs, [])
    shrinking = [
        (target.tenant_id, target.run_id)
        for target in targets
        if (charge := book.run_charges.get((target.tenant_id, target.run_id)))
        and target.target_units < charge.charged + charge.shortfall
    ]
    if shrinking:
        yield from read_runs(book, [], shrinking)
        yield from read_spent_lots(book)


def _converge_one(
    book: Book, charge: RunCharge, target: RunTarget, holds: list[HoldState]
) -> RunChargeOutcome:
    run = (charge.tenant_id, charge.run_id)
    account = book.account(charge.account_id)
    delta = plan_convergence(target.target_units, charge.charged, charge.shortfall, charge.refunded)
    is_first = not charge.has_facts
    is_new = is_first or charge.is_stale
    operation_id = None
    if delta > 0:
        operation_id = _charge_more(book, account, charge, delta, target.reason, holds)
    elif delta < 0:
        operation_id = _charge_less(book, account, charge, -delta, target.reason)
    for hold in holds:
        if hold.status == "unknown" and hold.hold_id in book.holds and target.target_units:
            end_settled_by_facts(book, account, hold)
    if delta or is_new or charge.target != target.target_units:
        charge.target = target.target_units
        charge.has_facts, charge.is_stale = True, False
        charge.revision += 1
        charge.updated_at = book.now
        book.run_charges[run] = charge
        book.touched_runs.add(run)
    return RunChargeOutcome(*run, delta, charge.shortfall, operation_id, is_first)


def _charge_more(
    book: Book,
    account: AccountState,
    charge: RunCharge,
    units: int,
    reason: str,
    holds: list[HoldState],
) -> str:
    """Charge first what the run's holds have set aside, then free credit."""
    rest = units
    operation_id = ""
    for hold in holds:
        part = min(rest, hold.held)
        if part and hold.hold_id in book.holds:
            operation = book.spend(
                account,
                "charge",
                part,
                book.draw(hold, part),
                run_id=charge.run_id,
                hold_id=hold.hold_id,
                reason=reason,
            )
            operation_id = operation.operation_id
            rest -= part
    charge.charged += units - rest
    if rest:
        spend = plan_spend(account, rest, book.now)
        shortfall = rest - spend.total
        operation = book.spend(
            account,
            "charge",
            rest,
            Change(spend),
            shortfall=shortfall,
            run_id=charge.run_id,
            reason=reason,
        )
        operation_id = operation.operation_id
        charge.charged += spend.total
        charge.shortfall += shortfall
    return operation_id


def _charge_less(
    book: Book, account: AccountState, charge: RunCharge, units: int, reason: str
) -> str:
    """Forgive what was never paid, then give back."""
    forgiven = min(charge.shortfall, units)
    charge.shortfall -= forgiven
    back = units - forgiven
    if forgiven:
        operation = book.post(
            account,
            "refund",
            forgiven,
            Change(),
            code="shortfall_forgiven",
            run_id=charge.run_id,
            reason=reason,
        )
    if not back:
        return operation.operation_id
    spends = book.run_spends[charge.tenant_id, charge.run_id]
    operation = book.refund(account, back, spends, run_id=charge.run_id, reason=reason)
    charge.charged -= back
    return operation.operation_id


def _load_holds(
    connection: Connection, book: Book, accounts: dict[RunKey, str]
) -> dict[RunKey, list[HoldState]]:
    """Open holds of the runs on the accounts that they are charged to, and their limits."""
    found: dict[RunKey, list[HoldState]] = defaultdict(list)
    runs = list(accounts)
    rows = connection.execute(SQL["load_run_holds"], run_arguments(runs), binary=True).fetchall()
    for row in rows:
        hold = hold_state(row)
        run = (hold.tenant_id, hold.run_id)
        if hold.account_id == accounts[run]:
            book.holds[hold.hold_id] = hold
            found[run].append(hold)
    limit_ids = {limit_id for hold in book.holds.values() for limit_id, _ in hold.limits}
    if limit_ids:
        drive(connection, lock_limits(book, limit_ids))
    return found


def _accounts_of(
    connection: Connection, ids: IdSource, clock: Clock, runs: Sequence[RunKey]
) -> dict[RunKey, str]:
    """The account of each run: the one charged, or first holding, for it, or its tenant's."""
    charged = connection.execute(SQL["load_run_charges"], run_arguments(runs)).fetchall()
    accounts = {(row[0], row[1]): row[2] for row in charged}
    held = connection.execute(SQL["load_first_accounts"], run_arguments(runs)).fetchall()
    for tenant_id, run_id, account_id in held:
        if account_id is not None:
            accounts.setdefault((tenant_id, run_id), account_id)
    rest = [run for run in runs if run not in accounts]
    tenants = sorted({tenant_id for tenant_id, _ in rest})
    defaults = _default_accounts(connection, tenants) if tenants else {}
    for tenant in tenants:
        if tenant not in defaults:
            defaults[tenant] = _create_postpaid(connection, ids, clock, tenant)
    for run in rest:
        accounts[run] = defaults[run[0]]
    return accounts


def _default_accounts(connection: Connection, tenants: list[str]) -> dict[str, str]:
    rows = connection.execute(SQL["load_default_accounts"], {"tenant_ids": tenants}).fetchall()
    return {row[0]: row[1] for row in rows}


def _create_postpaid(connection: Connection, ids: IdSource, clock: Clock, tenant: str) -> str:
    """Make the account of a tenant that has usage but no account: it owes, without limit."""
    digest = hashlib.sha256(tenant.encode()).hexdigest()[:32]
    for account_id in (f"usage:{digest}",) if tenant[0] == "@" else (tenant, f"usage:{digest}"):
        arguments = {
            "account_id": account_id,
            "tenant_id": tenant,
            "capture_policy": "overage",
            "unknown_policy": "capture",
            "overage_limit_units": None,
            "now": clock.now(),
        }
        connection.execute(SQL["insert_account"], arguments)
        if _default_accounts(connection, [tenant]):  # else the name is another tenant's
            connection.execute(SQL["insert_balance"], arguments)
            book = drive(connection, read_accounts(ids, clock, [account_id]))
            if not book.accounts[account_id].sequence:
                post_settings(book, book.accounts[account_id])
                drive(connection, write_book(book))
            return account_id
    raise Conflict(f"no account could be made for tenant {tenant}", code="unknown_account")
