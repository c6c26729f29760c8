"""Reading a book: everything that a group needs is locked and read before it is decided.

Holds and captures, the usual work, take one round trip. What only rare requests need (how an
ended hold ended, what a charge took) is read in further ones, under the same locks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from tallystick.ledger.book import Book, ChargeStory, Operation, Resolution, RunKey
from tallystick.ledger.model import RunCharge
from tallystick.ledger.rules import AccountState, HoldState, LimitState, LotState, Spend
from tallystick.ledger.store import Batch, Plan, Query, Row
from tallystick.plumbing.arrays import id_array, text_array


class Needs:
    """What a group of requests names, before it is known what that is."""

    def __init__(self) -> None:
        self.account_ids: set[str] = set()
        self.operation_ids: set[str] = set()
        self.key_hashes: list[str] = []
        self.limit_ids: set[str] = set()
        self.charge_ids: set[str] = set()
        """Charges to refund."""
        self.refunded_runs: set[RunKey] = set()
        self.held_runs: set[RunKey] = set()
        """(account, run) of holds: a run is held and charged on one account."""
        self.account_runs: set[RunKey] = set()
        """(account, run) of charges: the tenant is the account's."""


def read_book(book: Book, needs: Needs) -> Plan[None]:
    """Lock what the group needs, accounts before limits, each in id order, and read it."""
    yield from _read_main(book, needs)
    yield from _read_history(book, needs)


def _read_main(book: Book, needs: Needs) -> Plan[None]:
    arguments: dict[str, Any] = {
        "account_ids": text_array(needs.account_ids),
        "operation_ids": id_array(needs.operation_ids),
        "tenant_ids": text_array(tenant_id for tenant_id, _ in needs.refunded_runs),
        "run_ids": text_array(run_id for _, run_id in needs.refunded_runs),
        "key_hashes": id_array(needs.key_hashes),
        "limit_ids": text_array(needs.limit_ids),
    }
    held = {
        "account_ids": text_array(account_id for account_id, _ in needs.held_runs),
        "run_ids": text_array(run_id for _, run_id in needs.held_runs),
    }
    is_indirect = bool(needs.operation_ids or needs.refunded_runs)
    names = ["lock_accounts_of" if is_indirect else "lock_accounts"]
    if needs.limit_ids or needs.operation_ids:
        names.append("lock_limits" if needs.operation_ids else "lock_limits_named")
    names.append("load_lots_of" if is_indirect else "load_lots")
    if needs.key_hashes:
        names.append("load_known")
    if needs.operation_ids:
        names += ["load_holds", "load_hold_run_charges"]
    queries = [Query(name, arguments) for name in names]
    if needs.held_runs:
        names.append("load_run_accounts")
        queries.append(Query("load_run_accounts", held))
    rows = dict(zip(names, (yield Batch(queries)), strict=True))
    for row in rows[names[0]]:
        book.accounts[row[0]] = AccountState(*row)
    for row in rows.get("lock_limits") or rows.get("lock_limits_named") or ():
        book.limits[row[0]] = LimitState(*row)
    _take_lots(book, rows.get("load_lots_of") or rows.get("load_lots") or ())
    for row in rows.get("load_known", ()):
        operation = Operation(*row)
        book.known[operation.key_hash or ""] = operation
    for row in rows.get("load_holds", ()):
        book.holds[row[0]] = hold_state(row)
    for row in rows.get("load_hold_run_charges", ()):
        book.run_charges[row[0], row[1]] = RunCharge(*row)
    for tenant_id, run_id, account_id in rows.get("load_run_accounts", ()):
        if account_id is not None:
            book.run_accounts[tenant_id, run_id] = account_id


def _read_history(book: Book, needs: Needs) -> Plan[None]:
    """What rare requests need; each step asks for what the one before has named."""
    ended = [one for one in needs.operation_ids if one not in book.holds]
    if ended:
        (found,) = yield _batch("load_resolutions", operation_ids=id_array(ended))
        for row in found:
            parts = [(name, -held, used) for name, held, used in zip(*row[9:12], strict=True)]
            fields: list[Any] = [*row[1:9], parts]
            book.resolutions[row[0]] = Resolution(*fields)
    charge_ids = needs.charge_ids | {
        one.operation_id for one in book.resolutions.values() if one.kind == "resolve"
    }
    if charge_ids:
        (found,) = yield _batch("load_charges", charge_ids=id_array(charge_ids))
        _take_charges(book, found)
    refunded = needs.refunded_runs | {
        story.run for story in book.charges.values() if story.run is not None
    }
    runs = refunded | {
        (book.accounts[account_id].tenant_id, run_id)
        for account_id, run_id in needs.account_runs
        if account_id in book.accounts
    }
    for one in book.resolutions.values():
        if one.run_id and one.account_id in book.accounts:
            run = (book.accounts[one.account_id].tenant_id, one.run_id)
            runs.add(run)
            refunded.add(run)
    if runs:
        yield from read_runs(book, sorted(runs), sorted(refunded))
    yield from read_spent_lots(book)


def roll_limits(book: Book) -> Plan[None]:
    """Let go what has left rolling windows, before anything is decided on them."""
    due = [
        limit_id
        for limit_id, limit in book.limits.items()
        if limit.rolls_at is not None and limit.rolls_at <= book.now
    ]
    if not due:
        return
    (found,) = yield _batch("load_slices", limit_ids=text_array(due))
    slices: dict[str, list[tuple[int, int]]] = {limit_id: [] for limit_id in due}
    for limit_id, begin, used in found:
        slices[limit_id].append((begin, used))
    for limit_id in due:
        book.roll_limit(limit_id, slices[limit_id])


def lock_limits(book: Book, limit_ids: Iterable[str]) -> Plan[None]:
    """Lock limits and nothing else, or those that a run's open holds name."""
    (found,) = yield _batch("lock_limits_named", limit_ids=text_array(limit_ids))
    for row in found:
        book.limits.setdefault(row[0], LimitState(*row))


def read_runs(book: Book, runs: Sequence[RunKey], refunded: Sequence[RunKey]) -> Plan[None]:
    """Read the charges of runs, and of those that may be refunded what they took."""
    charges, spends = yield Batch(
        [
            Query("load_run_charges", run_arguments(runs)),
            Query("load_run_spends", run_arguments(refunded)),
        ]
    )
    for row in charges:
        book.run_charges[row[0], row[1]] = RunCharge(*row)
    for run in refunded:
        book.run_spends[run] = []
    for tenant_id, run_id, lot_ids, units, overage in spends:
        spend = Spend(tuple(zip(lot_ids, units, strict=True)), overage)
        book.run_spends[tenant_id, run_id].append(spend)


def read_spent_lots(book: Book) -> Plan[None]:
    """Read lots that are spent but may be given back to."""
    spends = [spend for story in book.charges.values() for spend in story.spends]
    spends += [spend for found in book.run_spends.values() for spend in found]
    missing = {lot for spend in spends for lot, _ in spend.lots} - book.lots.keys()
    if missing:
        (found,) = yield _batch("load_lots_by_id", lot_ids=id_array(sorted(missing)))
        _take_lots(book, found)


def _batch(name: str, **arguments: Any) -> Batch:
    return Batch([Query(name, arguments)])


def _take_charges(book: Book, rows: Iterable[Row]) -> None:
    """A charge comes first of its story, what was given back of it after."""
    for charge_id, account_id, tenant_id, run_id, moved, lot_ids, units, overage in rows:
        spend = Spend(tuple(zip(lot_ids, units, strict=True)), overage)
        story = book.charges.get(charge_id)
        if story is not None:
            story.spends.append(spend)
            story.rest -= moved
        elif moved and sum(units) + overage >= 0:  # a charge, not a refund that stands alone
            run = (tenant_id, run_id) if run_id else None
            book.charges[charge_id] = ChargeStory(account_id, run, [spend], moved)


def _take_lots(book: Book, rows: Iterable[Row]) -> None:
    by_account: dict[str, list[LotState]] = defaultdict(list)
    for row in rows:
        if row[1] in book.accounts:
            by_account[row[1]].append(LotState(*row))
    for account_id, lots in by_account.items():
        book.add_lots(book.accounts[account_id], lots)


def hold_state(row: Row) -> HoldState:
    """Make the state of a hold's row."""
    lots = list(zip(row[8], row[9], strict=True))
    limits = list(zip(row[11], row[12], strict=True))
    fields: list[Any] = [*row[:8], lots, row[10], limits, *row[13:]]
    return HoldState(*fields)


def run_arguments(runs: Sequence[RunKey]) -> dict[str, str]:
    """Runs as the two arrays that statements take."""
    return {
        "tenant_ids": text_array(tenant_id for tenant_id, _ in runs),
        "run_ids": text_array(run_id for _, run_id in runs),
    }
