"""What becomes of each request, decided on the book in the order of arrival.

A decision either posts one operation (a decline is one too) or raises before it changed
anything, so that a bad item never touches its neighbours in the group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystick.clock import SECOND
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.ledger.book import Book, Change, ChargeStory, Operation, outcome_of
from tallystick.ledger.intake import Prepared
from tallystick.ledger.leases import check_epoch, give_back, open_lease, report
from tallystick.ledger.limits import (
    check_limits_exist,
    decline_for_limit,
    find_refusing,
    said_of_limits,
)
from tallystick.ledger.model import (
    CaptureRequest,
    ChargeRequest,
    DueRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    LimitPart,
    Outcome,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    ReturnRequest,
    RunCharge,
    StartRequest,
)
from tallystick.ledger.parts import (
    decline_for_credit,
    find_account,
    find_open,
    new_hold,
    require_owned,
    store_run,
)
from tallystick.ledger.rules import CREDIT_ASSET, HoldState, plan_spend
from tallystick.ledger.settlement import capture, release, settle_due


def decide(book: Book, item: Prepared) -> Outcome:
    """Apply one request, or answer what its key was answered before."""
    if item.tenant_id:
        require_owned(book, item)
    if item.key_hash is not None:
        known = book.known.get(item.key_hash)
        if known is not None:
            if known.digest != item.digest:
                raise Conflict("this idempotency key was used before with other content")
            return outcome_of(known)
    operation = _DECISIONS[type(item.request)](book, item, item.request)
    operation.key_hash, operation.digest = item.key_hash, item.digest
    if item.key_hash is not None:
        book.known[item.key_hash] = operation
    return outcome_of(operation)


def _grant(book: Book, item: Prepared, request: GrantRequest) -> Operation:
    account = find_account(book, request.account_id, request.units)
    if request.expires_at is not None and request.expires_at <= book.now:
        raise InvalidInput(
            "expires_at must be in the future", code="expires_in_past", field="expires_at"
        )
    return book.grant(account, request.units, request.source, request.priority, request.expires_at)


def _charge(book: Book, item: Prepared, request: ChargeRequest) -> Operation:
    account = find_account(book, request.account_id, request.units)
    check_limits_exist(book, request.limits)
    run = (account.tenant_id, request.run_id)
    if request.run_id and run in book.run_charges:
        raise Conflict(
            "this run is charged already; late usage is posted as a delta",
            code="run_already_charged",
        )
    spend = plan_spend(account, request.units, book.now)
    shortfall = request.units - spend.total
    if shortfall and not request.is_after_the_fact:
        return decline_for_credit(book, account, "charge", request.units, run_id=request.run_id)
    parts = [] if request.is_after_the_fact else request.limits
    refusing, passed = find_refusing(book, parts)
    if refusing is not None:
        more: dict[str, Any] = {"run_id": request.run_id, "details": request.details}
        return decline_for_limit(book, account, "charge", request.units, refusing, **more)
    if request.run_id:
        charge = RunCharge(*run, account.account_id)
        charge.target, charge.charged, charge.shortfall = request.units, spend.total, shortfall
        store_run(book, charge)
    return book.spend(
        account,
        "charge",
        request.units,
        Change(spend, limits=[(limit_id, used, 0) for limit_id, used in request.limits]),
        shortfall=shortfall,
        run_id=request.run_id,
        reason=request.reason,
        details=request.details,
        decided_by=passed,
    )


def _refund(book: Book, item: Prepared, request: RefundRequest) -> Operation:
    story = _story_of(book, item, request)
    account = book.account(story.account_id)
    units = story.rest if request.units is None else request.units
    if units > story.rest or units <= 0:
        raise InvalidInput(
            "more than what is left of the charge", code="refund_too_large", field="amount"
        )
    charge = book.run_charges.get(story.run) if story.run else None
    if charge is not None:
        charge.refunded += units
        store_run(book, charge)
    return book.refund(
        account,
        units,
        story.spends,
        run_id=story.run[1] if story.run else "",
        refers_to=item.operation_id or None,
        reason=request.reason,
    )


def _story_of(book: Book, item: Prepared, request: RefundRequest) -> ChargeStory:
    """The charge to refund: a run's is the run's one charge, whichever part was named."""
    unknown = NotFound("there is no such charge", code="unknown_charge")
    story = None
    run = (request.tenant_id, request.run_id or "")
    if item.operation_id:
        story = book.charges.get(item.operation_id)
        if story is None or story.account_id not in book.accounts:
            raise unknown
        if request.tenant_id and book.accounts[story.account_id].tenant_id != request.tenant_id:
            raise unknown
        if story.run is None:
            return story
        run = story.run
    charge = book.run_charges.get(run)
    if charge is None or charge.account_id not in book.accounts:
        if story is None:
            raise unknown
        return story
    rest = charge.charged - charge.refunded
    return ChargeStory(charge.account_id, run, list(book.run_spends[run]), rest)


def _hold(book: Book, item: Prepared, request: HoldRequest) -> Operation:
    account = find_account(book, request.account_id, request.units)
    check_limits_exist(book, request.limits)
    run = (account.tenant_id, request.run_id)
    if request.run_id and book.run_accounts.setdefault(run, request.account_id) != (
        request.account_id
    ):
        raise Conflict(
            f"the run is held or charged on account {book.run_accounts[run]}",
            code="run_on_other_account",
        )
    more: dict[str, Any] = {"run_id": request.run_id, "details": request.details}
    spend = plan_spend(account, request.units, book.now)
    if spend.total < request.units:
        return decline_for_credit(book, account, "hold", request.units, **more)
    refusing, passed = find_refusing(book, request.limits)
    if refusing is not None:
        return decline_for_limit(book, account, "hold", request.units, refusing, **more)
    hold = new_hold(book, account, "hold", spend, request.ttl_seconds)
    hold.run_id = request.run_id
    hold.limits = [(part.limit_id, part.units) for part in request.limits]
    hold.has_started = request.has_started
    code = "started" if request.has_started else ""
    return book.open_hold(account, hold, code=code, details=request.details, decided_by=passed)


def _start(book: Book, item: Prepared, request: StartRequest) -> Operation:
    hold = find_open(book, item.operation_id, "hold")
    account = book.account(hold.account_id)
    if not hold.has_started and hold.due_at <= book.now:
        raise Conflict("the hold has run out; take a new one", code="hold_expired")
    hold.has_started = True
    book.changed_holds.add(hold.hold_id)
    return book.post(
        account, "start", 0, Change(), hold_id=hold.hold_id, run_id=hold.run_id, due_at=hold.due_at
    )


def _more_of_limits(
    book: Book, hold: HoldState, request: ExtendRequest
) -> list[tuple[str, int, int]]:
    """What an extension takes of each limit of its hold: as said, or as much as of credit."""
    names = [limit_id for limit_id, _ in hold.limits]
    said = said_of_limits(book, names, request.limits, request.actuals)
    more = {
        limit_id: said.get(
            limit_id, request.units if book.limits[limit_id].asset == CREDIT_ASSET else 0
        )
        for limit_id in names
    }
    return [(limit_id, 0, units) for limit_id, units in more.items() if units]


def _extend(book: Book, item: Prepared, request: ExtendRequest) -> Operation:
    found = book.holds.get(item.operation_id)
    hold = found or find_open(book, item.operation_id, "hold")
    account = book.account(hold.account_id)
    if hold.kind == "lease":
        check_epoch(hold, request.epoch)
        if hold.status == "unknown" or hold.due_at <= book.now:
            raise Conflict("the lease has run out; take a new one", code="lease_fenced")
    elif hold.status == "unknown" or hold.due_at <= book.now:
        raise Conflict("the hold has run out; capture or release it", code="hold_expired")
    spend = plan_spend(account, request.units, book.now)
    if spend.total < request.units:
        return decline_for_credit(
            book, account, "extend", request.units, hold_id=hold.hold_id, epoch=hold.epoch
        )
    limits = _more_of_limits(book, hold, request)
    parts = [LimitPart(limit_id, units) for limit_id, _, units in limits]
    refusing, passed = find_refusing(book, parts)
    if refusing is not None:
        return decline_for_limit(
            book, account, "extend", request.units, refusing, hold_id=hold.hold_id
        )
    more = {limit_id: units for limit_id, _, units in limits}
    hold.limits = [(limit_id, held + more.get(limit_id, 0)) for limit_id, held in hold.limits]
    lots = dict(hold.lots)
    for lot_id, units in spend.lots:
        lots[lot_id] = lots.get(lot_id, 0) + units
    hold.lots = list(lots.items())
    hold.overage += spend.overage
    hold.held += request.units
    if request.ttl_seconds:
        hold.due_at = max(hold.due_at, book.now + request.ttl_seconds * SECOND)
    book.changed_holds.add(hold.hold_id)
    return book.post(
        account,
        "extend",
        request.units,
        Change(earmark=spend, is_lease=hold.kind == "lease", limits=limits),
        hold_id=hold.hold_id,
        run_id=hold.run_id,
        due_at=hold.due_at,
        epoch=hold.epoch if hold.kind == "lease" else 0,
        decided_by=passed,
    )


_DECISIONS: dict[type, Callable[[Book, Prepared, Any], Operation]] = {
    GrantRequest: _grant,
    ChargeRequest: _charge,
    RefundRequest: _refund,
    HoldRequest: _hold,
    CaptureRequest: capture,
    ReleaseRequest: release,
    StartRequest: _start,
    ExtendRequest: _extend,
    LeaseRequest: open_lease,
    ReportRequest: report,
    ReturnRequest: give_back,
    DueRequest: settle_due,
}
