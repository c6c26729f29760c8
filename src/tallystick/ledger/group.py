"""Group authorization: many requests, one transaction, one outcome each.

The rows that a group touches are locked once, in id order; its requests are decided in
memory in the order in which they came; everything is written by set and committed once.
The outcomes are those of one request after the other in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tallystick.clock import Clock
from tallystick.errors import Conflict, InvariantBroken, TallystickError
from tallystick.ids import IdSource
from tallystick.ledger.book import Book, outcome_of
from tallystick.ledger.decisions import decide
from tallystick.ledger.intake import Prepared
from tallystick.ledger.model import ChargeRequest, HoldRequest, Outcome, RefundRequest
from tallystick.ledger.reading import Needs, read_book, roll_limits
from tallystick.ledger.rules import AccountState
from tallystick.ledger.store import Plan
from tallystick.ledger.writing import write_book

Answer = Outcome | TallystickError


def run_group(ids: IdSource, clock: Clock, items: Sequence[Prepared]) -> Plan[list[Answer]]:
    """Decide and write a group; expected failures are answers."""
    book = yield from open_book(ids, clock, needs_of(items))
    answers = _decide_all(book, items)
    yield from write_book(book)
    return answers


def run_whole(ids: IdSource, clock: Clock, items: Sequence[Prepared]) -> Plan[list[Answer]]:
    """The same for a batch that is applied as a whole or not at all.

    When one item is declined, all are, and that is remembered under their keys. When one
    is in error, nothing is written: the batch can be mended and sent again.
    """
    needs = needs_of(items)
    book = yield from open_book(ids, clock, needs)
    known = set(book.known)
    answers = _decide_all(book, items)
    if any(isinstance(answer, TallystickError) for answer in answers):
        aborted = Conflict("another item of the batch is in error", code="batch_not_applied")
        return [answer if isinstance(answer, TallystickError) else aborted for answer in answers]
    outcomes = [answer for answer in answers if isinstance(answer, Outcome)]
    is_new = any(item.key_hash not in known for item in items)
    if is_new and any(outcome.status == "declined" for outcome in outcomes):
        book = yield from open_book(ids, clock, needs)
        answers = [
            _decline(book, item, outcome) for item, outcome in zip(items, outcomes, strict=True)
        ]
    yield from write_book(book)
    return answers


def _decide_all(book: Book, items: Sequence[Prepared]) -> list[Answer]:
    answers: list[Answer] = []
    for item in items:
        try:
            answers.append(decide(book, item))
        except InvariantBroken:
            raise  # the book may be half changed: nothing of it is written
        except TallystickError as error:
            answers.append(error)
    return answers


def _decline(book: Book, item: Prepared, answer: Outcome) -> Outcome:
    """Decline one item of a batch that was not applied; what was decided before stays."""
    if item.key_hash in book.known:
        return outcome_of(book.known[item.key_hash])
    account = book.account(answer.account_id)
    is_own = answer.status == "declined"
    operation = book.decline(
        account,
        answer.kind,
        answer.units,
        code=answer.code if is_own else "batch_declined",
        decided_by=answer.decided_by if is_own else "batch",
        reason=answer.retry if is_own else "wait",
        hold_id=(answer.hold_id or None) if answer.hold_id != answer.operation_id else None,
    )
    operation.key_hash, operation.digest = item.key_hash, item.digest
    if item.key_hash is not None:
        book.known[item.key_hash] = operation
    return outcome_of(operation)


def open_book(ids: IdSource, clock: Clock, needs: Needs) -> Plan[Book]:
    """Lock and read; the posting time is taken under the locks."""
    book = Book(ids)
    yield from read_book(book, needs)
    book.now = clock.now()
    yield from roll_limits(book)
    return book


def needs_of(items: Sequence[Prepared]) -> Needs:
    """What a group names."""
    needs = Needs()
    for item in items:
        if item.account_id:
            needs.account_ids.add(item.account_id)
        if item.operation_id:
            needs.operation_ids.add(item.operation_id)
        if item.key_hash is not None:
            needs.key_hashes.append(item.key_hash)
        request = item.request
        if isinstance(request, HoldRequest):
            needs.limit_ids.update(part.limit_id for part in request.limits)
            if request.run_id:
                needs.held_runs.add((request.account_id, request.run_id))
        elif isinstance(request, ChargeRequest):
            needs.limit_ids.update(part.limit_id for part in request.limits)
            if request.run_id:
                needs.account_runs.add((request.account_id, request.run_id))
        elif isinstance(request, RefundRequest):
            if request.run_id is not None:
                needs.refunded_runs.add((request.tenant_id, request.run_id))
            else:
                needs.charge_ids.add(item.operation_id)
    return needs


def read_accounts(ids: IdSource, clock: Clock, account_ids: Iterable[str]) -> Plan[Book]:
    """Lock and read accounts and nothing else."""
    needs = Needs()
    needs.account_ids = set(account_ids)
    return open_book(ids, clock, needs)


def post_settings(book: Book, account: AccountState) -> None:
    """Record an account's settings in its history, so that a changed row is found."""
    settings = {
        "tenant_id": account.tenant_id,
        "asset": account.asset,
        "created_at": account.created_at,
        "capture_policy": account.capture_policy,
        "unknown_policy": account.unknown_policy,
        "overage_limit_units": account.overage_limit_units,
    }
    book.record(account, "settings", msgspec.json.encode(settings).decode())
