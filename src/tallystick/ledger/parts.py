"""What several decisions share: finding what a request names, and declining.

Nothing here changes an amount; that is the book's.
"""

from __future__ import annotations

from typing import Any

from tallystick.clock import SECOND
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.ledger.book import Book, Operation, Resolution
from tallystick.ledger.model import RunCharge
from tallystick.ledger.rules import AccountState, HoldState, Spend, plan_spend

_TOTAL_MAX = 2**62


def find_account(book: Book, account_id: str, units: int = 0) -> AccountState:
    """The account under lock; NotFound when there is none, InvalidInput past its range."""
    if account_id not in book.accounts:
        raise NotFound("there is no such account; create it with PUT", code="unknown_account")
    account = book.account(account_id)
    if account.credited + account.debited + account.held + account.leased + units > _TOTAL_MAX:
        raise InvalidInput(
            "the account's totals would pass 64 bits; use another account",
            code="amount_too_large",
            field="amount",
        )
    return account


def decline_for_credit(
    book: Book, account: AccountState, kind: str, units: int, **more: Any
) -> Operation:
    """Decline, and say whether the end of other holds could make room."""
    limit = account.overage_limit_units or 0
    is_held_by_others = units <= account.available + account.held + account.leased + limit
    return book.decline(
        account,
        kind,
        units,
        code="credit_exhausted",
        decided_by=f"account:{account.account_id}",
        reason="wait" if is_held_by_others else "never",
        **more,
    )


def new_hold(
    book: Book, account: AccountState, kind: str, spend: Spend, ttl_seconds: int
) -> HoldState:
    """A hold or lease with its earmarks, not on the book yet."""
    return HoldState(
        hold_id=book.ids.next_id(),
        account_id=account.account_id,
        tenant_id=account.tenant_id,
        kind=kind,
        status="held",
        run_id="",
        held=spend.total,
        drawn=0,
        lots=list(spend.lots),
        overage=spend.overage,
        limits=[],
        has_started=False,
        epoch=1,
        due_at=book.now + ttl_seconds * SECOND,
    )


def find_open(book: Book, hold_id: str, kind: str) -> HoldState:
    """The open hold; raises what an ended or unknown one answers."""
    hold = book.holds.get(hold_id)
    if hold is not None and hold.kind == kind:
        return hold
    ended = find_resolution(book, hold_id, kind)
    raise Conflict(
        f"the {kind} was ended by {ended.kind} already", code=f"{kind}_{ENDED[ended.kind]}"
    )


def find_resolution(book: Book, hold_id: str, kind: str) -> Resolution:
    """How a hold that is not open ended; NotFound when there never was one."""
    ended = book.resolutions.get(hold_id)
    if ended is None or ended.hold_kind != kind or not ended.kind:
        raise NotFound(f"there is no such {kind}", code=f"unknown_{kind}")
    return ended


ENDED = {
    "capture": "captured",
    "release": "released",
    "hold_expiry": "expired",
    "resolve": "resolved",
    "return": "returned",
}


def with_extra(
    book: Book, account: AccountState, spend: Spend, extra: int, drawn: int = 0
) -> Spend:
    """What was used above the hold: by policy it is taken as far as the limit allows.

    What the run's facts have `drawn` from the hold may have been other work's, which then
    left its own hold untouched: that much is taken under every policy.
    """
    if account.capture_policy != "overage":
        extra = min(extra, drawn)
    if extra <= 0:
        return spend
    # the hold is used up here, so the account has the same free credit before and after
    more = plan_spend(account, extra, book.now)
    return Spend((*spend.lots, *more.lots), spend.overage + more.overage)


def find_run(book: Book, account: AccountState, run_id: str) -> RunCharge | None:
    """The run's charge, new if there is none; None when another account was charged for it."""
    if not run_id:
        return None
    run = (account.tenant_id, run_id)
    charge = book.run_charges.get(run) or RunCharge(*run, account.account_id)
    return charge if charge.account_id == account.account_id else None


def store_run(book: Book, charge: RunCharge) -> None:
    """Write a run's charge back with the book."""
    run = (charge.tenant_id, charge.run_id)
    charge.revision += 1
    charge.updated_at = book.now
    book.run_charges[run] = charge
    book.touched_runs.add(run)
