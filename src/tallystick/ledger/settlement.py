"""How holds end: capture, release, running out, and the late word after that.

INV-07: what was held is captured or given back, once. INV-08: the hold of work that has
started never frees itself; it becomes unknown and is settled by the facts or by policy, and
a capture that comes later still is recorded.
"""

from __future__ import annotations

from typing import Any

from tallystick.clock import HOUR
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.ledger.book import Book, Change, Operation, Resolution
from tallystick.ledger.intake import Prepared
from tallystick.ledger.model import (
    CaptureRequest,
    DueRequest,
    LimitPart,
    ReleaseRequest,
    RunCharge,
)
from tallystick.ledger.parts import (
    ENDED,
    find_open,
    find_resolution,
    find_run,
    store_run,
    with_extra,
)
from tallystick.ledger.rules import CREDIT_ASSET, AccountState, HoldState, plan_capture, plan_spend

UNKNOWN_MICROS = HOUR
"""How long a started hold that ran out waits for its settlement before policy settles it."""


def capture(book: Book, item: Prepared, request: CaptureRequest) -> Operation:
    """Charge what the work cost and end the hold."""
    hold = book.holds.get(item.operation_id)
    if hold is None or hold.kind != "hold":
        return _settle_late(book, item, request)
    account = book.account(hold.account_id)
    if request.units > hold.total and account.capture_policy == "reject":
        return book.decline(
            account,
            "capture",
            request.units,
            code="capture_above_hold",
            decided_by=f"hold:{hold.hold_id}",
            reason="never",
            hold_id=hold.hold_id,
            run_id=hold.run_id,
        )
    return _end_by_capture(book, account, hold, "capture", request.units, request)


def _end_by_capture(
    book: Book,
    account: AccountState,
    hold: HoldState,
    kind: str,
    units: int,
    request: CaptureRequest | None = None,
    code: str = "",
) -> Operation:
    used = _limits_used(book, hold, units, request)
    charge = find_run(book, account, hold.run_id)
    wanted = units
    if charge is not None:
        posted = charge.charged + charge.shortfall
        wanted, charge.target = plan_capture(
            units, charge.target, charge.captured, posted, has_facts=charge.has_facts
        )
        charge.captured += units
        charge.is_stale = charge.has_facts
    from_hold, drawn = min(wanted, hold.held), hold.drawn
    change = book.end_hold(hold, from_hold, used)
    change.spend = with_extra(book, account, change.spend, wanted - from_hold, drawn)
    shortfall = wanted - change.spend.total
    if charge is not None:
        charge.charged += change.spend.total
        charge.shortfall += shortfall
        store_run(book, charge)
    return book.spend(
        account,
        kind,
        units,
        change,
        shortfall=shortfall,
        code=code,
        hold_id=hold.hold_id,
        run_id=hold.run_id if charge is not None else "",
        reason=request.reason if request else "",
    )


def _limits_used(
    book: Book, hold: HoldState, units: int, request: CaptureRequest | None
) -> dict[str, int]:
    """The actual use of each limit of a hold: as said, or else what can be known."""
    used = {}
    for limit_id, held in hold.limits:
        is_credit = book.limits[limit_id].asset == CREDIT_ASSET
        used[limit_id] = units if is_credit else held if units else 0
    said: tuple[LimitPart, ...] = request.limits if request else ()
    for part in said:
        if part.limit_id not in used:
            raise InvalidInput(f"the hold does not name limit {part.limit_id}", field="limits")
        used[part.limit_id] = part.units
    return used


def _settle_late(book: Book, item: Prepared, request: CaptureRequest) -> Operation:
    """A capture after the hold freed itself or was settled by policy."""
    ended = find_resolution(book, item.operation_id, "hold")
    return settle_late(
        book,
        item.operation_id,
        ended,
        request.units,
        ended.moved,
        said={part.limit_id: part.units for part in request.limits},
        reason=request.reason,
    )


def settle_late(
    book: Book,
    hold_id: str,
    ended: Resolution,
    units: int,
    taken: int,
    *,
    said: dict[str, int],
    reason: str = "",
) -> Operation:
    """Record once what the work cost in the end; what policy took is corrected, up or down."""
    if ended.kind not in ("hold_expiry", "resolve") or ended.is_settled:
        state = "captured" if ended.is_settled else ENDED[ended.kind]
        raise Conflict(
            f"the {ended.hold_kind} was {state} already", code=f"{ended.hold_kind}_{state}"
        )
    account = book.account(ended.account_id)
    charge = find_run(book, account, ended.run_id)
    delta = units - taken
    if charge is not None:
        charge.captured += delta
        charge.is_stale = charge.has_facts
        if charge.has_facts:
            delta = max(charge.captured - charge.charged - charge.shortfall, 0)
        charge.target = max(charge.target + delta, 0)
    more: dict[str, Any] = {
        "hold_id": hold_id,
        "run_id": ended.run_id if charge is not None else "",
        "reason": reason,
    }
    limits = _late_limits(book, ended, units, said)
    if delta < 0:
        return _give_back_late(book, account, charge, ended, units, -delta, limits, more)
    spend = plan_spend(account, delta, book.now)
    shortfall = delta - spend.total
    if charge is not None:
        charge.charged += spend.total
        charge.shortfall += shortfall
        store_run(book, charge)
    change = Change(spend, limits=limits)
    return book.spend(account, "settle", units, change, shortfall=shortfall, **more)


def _late_limits(
    book: Book, ended: Resolution, units: int, said: dict[str, int]
) -> list[tuple[str, int, int]]:
    """Correct what was counted of each limit to what was used of it."""
    deltas = []
    for limit_id, held, counted in ended.limits:
        is_credit = book.limits[limit_id].asset == CREDIT_ASSET
        used = said.get(limit_id, units if is_credit else held if units else 0)
        if used != counted:
            deltas.append((limit_id, used - counted, 0))
    return deltas


def _give_back_late(
    book: Book,
    account: AccountState,
    charge: RunCharge | None,
    ended: Resolution,
    asked: int,
    units: int,
    limits: list[tuple[str, int, int]],
    more: dict[str, Any],
) -> Operation:
    if charge is not None:
        rest = min(units, charge.charged - charge.refunded)
        spends = book.run_spends[charge.tenant_id, charge.run_id]
        charge.charged -= rest
        store_run(book, charge)
    else:
        story = book.charges.get(ended.operation_id)
        rest = min(units, story.rest) if story else 0
        spends = story.spends if story else []
    more["code"] = "given_back"
    if not rest:
        return book.post(account, "settle", asked, Change(limits=limits), **more)
    more["refers_to"] = ended.operation_id
    return book.refund(
        account, rest, list(spends), kind="settle", asked=asked, limits=limits, **more
    )


def release(book: Book, item: Prepared, request: ReleaseRequest) -> Operation:
    """End a hold without a charge."""
    hold = find_open(book, item.operation_id, "hold")
    account = book.account(hold.account_id)
    held, run_id = hold.held, hold.run_id
    change = book.end_hold(hold, 0)
    return book.post(
        account,
        "release",
        held,
        change,
        hold_id=hold.hold_id,
        run_id=run_id,
        reason=request.reason,
    )


def settle_due(book: Book, item: Prepared, request: DueRequest) -> Operation:
    """Time ran out: free what never started, mark what did, settle what nobody settled."""
    hold = book.holds.get(item.operation_id)
    if hold is None:
        raise NotFound("the hold has ended already", code="unknown_hold")
    if hold.due_at > book.now:
        raise Conflict("the hold is not due", code="hold_not_due")
    account = book.account(hold.account_id)
    named: dict[str, Any] = {"hold_id": hold.hold_id, "run_id": hold.run_id}
    if hold.status == "unknown":
        return _resolve(book, account, hold)
    if hold.has_started:
        hold.status = "unknown"
        hold.epoch += 1
        hold.due_at = book.now + UNKNOWN_MICROS
        book.changed_holds.add(hold.hold_id)
        named |= {"due_at": hold.due_at, "epoch": hold.epoch}
        return book.post(account, "unknown", hold.held, Change(), **named)
    return book.post(account, "hold_expiry", hold.held, book.end_hold(hold, 0), **named)


def _resolve(book: Book, account: AccountState, hold: HoldState) -> Operation:
    charge = find_run(book, account, hold.run_id)
    if charge is not None and charge.has_facts:
        return end_settled_by_facts(book, account, hold)
    is_captured = account.unknown_policy == "capture"
    code = "policy_capture" if is_captured else "policy_release"
    taken = hold.held if is_captured else 0
    if hold.kind == "lease":
        total = hold.drawn + taken
        return book.spend(
            account,
            "resolve",
            total,
            book.end_hold(hold, taken),
            code=code,
            hold_id=hold.hold_id,
        )
    return _end_by_capture(book, account, hold, "resolve", taken, code=code)


def end_settled_by_facts(book: Book, account: AccountState, hold: HoldState) -> Operation:
    """The run's usage was charged from facts: what the hold still has is free again."""
    used = {
        limit_id: hold.drawn if book.limits[limit_id].asset == CREDIT_ASSET else held
        for limit_id, held in hold.limits
    }
    change = book.end_hold(hold, 0, used)
    return book.spend(
        account,
        "resolve",
        0,
        change,
        code="settled_by_facts",
        hold_id=hold.hold_id,
        run_id=hold.run_id,
    )
