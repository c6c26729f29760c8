"""Leases: a block of credit lent to a worker, fenced by an epoch.

The block stays in the account, set aside lot by lot, so that available + held + leased does
not change. A worker reports what it used in all; the ledger charges the difference, so a
report that comes twice charges nothing. A lease that runs out becomes unknown, never free,
and its epoch moves on: the old worker may still report, but not go on.
"""

from __future__ import annotations

from tallystick.errors import Conflict
from tallystick.ledger.book import Book, Operation
from tallystick.ledger.intake import Prepared
from tallystick.ledger.model import LeaseRequest, ReportRequest, ReturnRequest
from tallystick.ledger.parts import (
    decline_for_credit,
    find_account,
    find_open,
    find_resolution,
    new_hold,
    with_extra,
)
from tallystick.ledger.rules import HoldState, plan_spend
from tallystick.ledger.settlement import settle_late


def open_lease(book: Book, item: Prepared, request: LeaseRequest) -> Operation:
    """Lend a block, or decline when it does not fit."""
    account = find_account(book, request.account_id, request.units)
    spend = plan_spend(account, request.units, book.now)
    if spend.total < request.units:
        return decline_for_credit(book, account, "lease", request.units)
    lease = new_hold(book, account, "lease", spend, request.ttl_seconds)
    lease.has_started = True
    return book.open_hold(account, lease, reason=request.worker)


def check_epoch(lease: HoldState, epoch: int | None) -> None:
    """Fence: only who knows the current epoch may go on with a lease."""
    if epoch is None or epoch != lease.epoch:
        raise Conflict(
            f"the lease is at epoch {lease.epoch}; this worker was fenced off",
            code="lease_fenced",
        )


def _check_report(lease: HoldState, epoch: int) -> None:
    """A report is taken from the worker, also once its lease is unknown."""
    if lease.status == "unknown" and epoch == lease.epoch - 1:
        return
    check_epoch(lease, epoch)


def report(book: Book, item: Prepared, request: ReportRequest) -> Operation:
    """Charge what was used in all beyond what was reported before."""
    if item.operation_id in book.resolutions:
        return _report_late(book, item, request)
    lease = find_open(book, item.operation_id, "lease")
    _check_report(lease, request.epoch)
    account = book.account(lease.account_id)
    wanted = max(request.used_units - lease.drawn, 0)
    from_lease = min(wanted, lease.held)
    change = book.draw(lease, from_lease)
    lease.drawn = max(lease.drawn, request.used_units)
    change.spend = with_extra(book, account, change.spend, wanted - from_lease)
    return book.spend(
        account,
        "report",
        wanted,
        change,
        shortfall=wanted - change.spend.total,
        hold_id=lease.hold_id,
        epoch=lease.epoch,
        due_at=lease.due_at,
    )


def give_back(book: Book, item: Prepared, request: ReturnRequest) -> Operation:
    """Report for the last time and give the rest back."""
    if item.operation_id in book.resolutions:
        return _report_late(book, item, request)
    lease = find_open(book, item.operation_id, "lease")
    _check_report(lease, request.epoch)
    account = book.account(lease.account_id)
    wanted = max(request.used_units - lease.drawn, 0)
    from_lease = min(wanted, lease.held)
    change = book.end_hold(lease, from_lease)
    change.spend = with_extra(book, account, change.spend, wanted - from_lease)
    return book.spend(
        account,
        "return",
        wanted,
        change,
        shortfall=wanted - change.spend.total,
        hold_id=lease.hold_id,
        epoch=lease.epoch,
    )


def _report_late(book: Book, item: Prepared, request: ReportRequest | ReturnRequest) -> Operation:
    """The last word on a lease that policy has settled: recorded once, corrected up or down."""
    ended = find_resolution(book, item.operation_id, "lease")
    used = request.used_units
    return settle_late(book, item.operation_id, ended, used, ended.units, said={})
