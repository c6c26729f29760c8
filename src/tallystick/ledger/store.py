"""The ledger's rows: a book is read under lock in one round trip and written in another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import psycopg

from tallystick.invariant import check
from tallystick.ledger.book import Book, ChargeStory, Operation, Resolution, RunKey
from tallystick.ledger.model import RunCharge
from tallystick.ledger.rules import AccountState, HoldState, LimitState, LotState, Spend
from tallystick.plumbing.arrays import (
    bool_array,
    id_array,
    int_array,
    nullable_array,
    text_array,
)
from tallystick.plumbing.sql import load_statements

SQL = {
    name: text.encode() for name, text in load_statements("tallystick.ledger", "store.sql").items()
}
Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[Any]


class Needs:
    """What a group of requests names, before it is known what that is."""

    def __init__(self) -> None:
        self.account_ids: set[str] = set()
        self.operation_ids: set[str] = set()
        self.runs: set[RunKey] = set()
        self.key_hashes: list[str] = []
        self.limit_ids: set[str] = set()


def read_book(connection: Connection, book: Book, needs: Needs) -> None:
    """Lock what the group needs, accounts before limits, each in id order, and read it."""
    arguments: dict[str, Any] = {
        "account_ids": text_array(needs.account_ids),
        "operation_ids": id_array(needs.operation_ids),
        "tenant_ids": text_array(tenant_id for tenant_id, _ in needs.runs),
        "run_ids": text_array(run_id for _, run_id in needs.runs),
        "key_hashes": id_array(needs.key_hashes),
        "limit_ids": text_array(needs.limit_ids),
    }

    def ask(name: str) -> Cursor:
        return connection.execute(SQL[name], arguments, binary=True)

    is_indirect = bool(needs.operation_ids or needs.runs)
    empty: list[Any] = []
    with connection.pipeline():
        accounts = ask("lock_accounts_of" if is_indirect else "lock_accounts")
        has_limits = bool(needs.limit_ids or needs.operation_ids)
        limits = ask("lock_limits") if has_limits else None
        lots = ask("load_lots_of" if is_indirect else "load_lots")
        known = ask("load_known") if needs.key_hashes else None
        holds = ask("load_holds") if needs.operation_ids else None
        charges = ask("load_hold_run_charges") if needs.operation_ids else None
    for row in accounts.fetchall():
        book.accounts[row[0]] = AccountState(*row)
    for row in limits.fetchall() if limits else empty:
        book.limits[row[0]] = LimitState(*row)
    _take_lots(book, lots.fetchall())
    for row in known.fetchall() if known else empty:
        operation = Operation(*row)
        if operation.key_hash is not None:
            book.known[operation.key_hash] = operation
    for row in holds.fetchall() if holds else empty:
        book.holds[row[0]] = hold_state(row)
    for row in charges.fetchall() if charges else empty:
        book.run_charges[row[0], row[1]] = None if row[2] is None else RunCharge(*row)


def _take_lots(book: Book, rows: Iterable[tuple[Any, ...]]) -> None:
    by_account: dict[str, list[LotState]] = defaultdict(list)
    for row in rows:
        by_account[row[1]].append(LotState(*row))
    for account_id, lots in by_account.items():
        book.add_lots(book.accounts[account_id], lots)


def hold_state(row: tuple[Any, ...]) -> HoldState:
    """Make the state of a hold's row."""
    lots = list(zip(row[8], row[9], strict=True))
    limits = list(zip(row[11], row[12], strict=True))
    fields: list[Any] = [*row[:8], lots, row[10], limits, *row[13:]]
    return HoldState(*fields)


class HistoryReader:
    """Asks history for what rare decisions need; the group's own operations count too."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.book: Book

    def _ask(self, name: str, **arguments: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(
            SQL[name], arguments, binary=True
        ).fetchall()
        return rows

    def load_run_charge(self, run: RunKey) -> RunCharge | None:
        """The one charge of a run."""
        rows = self._ask("load_run_charges", tenant_ids=[run[0]], run_ids=[run[1]])
        return RunCharge(*rows[0]) if rows else None

    def load_run_spends(self, run: RunKey) -> list[Spend]:
        """What a run took and gave back."""
        rows = self._ask("load_run_spends", tenant_ids=[run[0]], run_ids=[run[1]])
        spends = [_spend_of(row[2], row[3], row[4]) for row in rows]
        return spends + [
            _spend_of(one.lot_ids, one.lot_consumed, one.overage)
            for one in self.book.operations
            if (one.tenant_id, one.run_id) == run and one.moved
        ]

    def load_charge(self, charge_id: str) -> ChargeStory | None:
        """A charge, also one of this group."""
        found = self._ask("load_charge", charge_id=charge_id)
        found += [
            (one.account_id, one.tenant_id, one.run_id, one.kind, one.moved, one.lot_ids,
             one.lot_consumed, one.overage)
            for one in self.book.operations
            if one.moved and charge_id in (one.operation_id, one.refers_to)
        ]  # fmt: skip
        if not found or found[0][3] in _NOT_CHARGES:
            return None
        account_id, tenant_id, run_id = found[0][:3]
        return ChargeStory(
            account_id,
            (tenant_id, run_id) if run_id else None,
            [_spend_of(row[5], row[6], row[7]) for row in found],
            found[0][4] - sum(row[4] for row in found[1:]),
        )

    def load_resolution(self, hold_id: str) -> Resolution | None:
        """How a hold ended, also in this group."""
        rows = self._ask("load_resolution", hold_id=hold_id)
        found = Resolution(*rows[0]) if rows else None
        for one in self.book.operations:
            if one.hold_id != hold_id or one.outcome != "posted":
                continue
            if one.operation_id == hold_id:
                found = Resolution(one.account_id, one.kind, "", "", 0, one.run_id, False)
            elif found is not None and one.kind in _RESOLUTIONS:
                found = found._replace(
                    kind=one.kind, operation_id=one.operation_id, moved=one.moved
                )
            elif found is not None and one.kind == "settle":
                found = found._replace(is_settled=True)
        return found

    def load_lots(self, lot_ids: Sequence[str]) -> list[LotState]:
        """Lots by id."""
        rows = self._ask("load_lots_by_id", lot_ids=id_array(lot_ids))
        return [LotState(*row) for row in rows]


_NOT_CHARGES = ("grant", "refund", "lot_expiry")
_RESOLUTIONS = ("capture", "release", "hold_expiry", "resolve", "return")


def _spend_of(lot_ids: Sequence[str], units: Sequence[int], overage: int) -> Spend:
    return Spend(tuple(zip(lot_ids, units, strict=True)), overage)


def write_book(connection: Connection, book: Book) -> None:
    """Write everything that the book's operations changed, each table by one statement."""
    if not book.operations and not book.touched_runs:
        return
    with connection.pipeline():
        _write_lots(connection, book)
        _write_holds(connection, book)
        if book.touched_limits:
            limits = [book.limits[limit_id] for limit_id in sorted(book.touched_limits)]
            _write(connection, "update_limits", limits, _LIMIT_COLUMNS)
        if book.operations:
            _write_balances(connection, book)
            _write(connection, "insert_operations", book.operations, _OPERATION_COLUMNS)
        written = _write_runs(connection, book)
    if written is not None:
        check(
            written.rowcount == len(book.touched_runs),
            "INV-05",
            "a run was charged to another account meanwhile",
        )


Column = tuple[str, Callable[[Iterable[Any]], str], Callable[[Any], Any]]


def _column(name: str, form: Callable[[Iterable[Any]], str], field: str = "") -> Column:
    attribute = field or name
    return name, form, attrgetter(attribute)


def _write(
    connection: Connection, name: str, rows: Sequence[Any], columns: Sequence[Column]
) -> Cursor:
    arguments = {column: form(map(read, rows)) for column, form, read in columns}
    return connection.execute(SQL[name], arguments)


def _lot_ids(hold: HoldState) -> str:
    return id_array(lot_id for lot_id, _ in hold.lots)


def _lot_units(hold: HoldState) -> str:
    return int_array(units for _, units in hold.lots)


_LIMIT_COLUMNS = [
    _column("limit_ids", text_array, "limit_id"),
    _column("used", int_array),
    _column("held", int_array),
    _column("overrun", int_array),
]
_BALANCE_COLUMNS = [
    _column("account_ids", text_array, "account_id"),
    *(
        _column(name, int_array)
        for name in ("sequence", "credited", "debited", "refunded", "expired", "held", "leased")
    ),
    _column("overage", int_array),
    _column("overage_held", int_array),
]
_NEW_LOT_COLUMNS = [
    _column("lot_ids", id_array, "lot_id"),
    _column("account_ids", text_array, "account_id"),
    _column("sources", id_array, "source"),
    _column("priorities", int_array, "priority"),
    _column("expires_at", nullable_array),
    _column("created_at", int_array),
    _column("granted", int_array),
]
_LOT_COLUMNS = [
    _column("lot_ids", id_array, "lot_id"),
    _column("consumed", int_array),
    _column("held", int_array),
    _column("expired", int_array),
]
_HOLD_COLUMNS: list[Column] = [
    _column("hold_ids", id_array, "hold_id"),
    _column("statuses", id_array, "status"),
    _column("held", int_array),
    _column("drawn", int_array),
    ("lot_ids", text_array, _lot_ids),
    ("lot_units", text_array, _lot_units),
    _column("overage", int_array),
    _column("has_started", bool_array),
    _column("epochs", int_array, "epoch"),
    _column("due_at", int_array),
]
_NEW_HOLD_COLUMNS: list[Column] = [
    *_HOLD_COLUMNS,
    _column("account_ids", text_array, "account_id"),
    _column("tenant_ids", text_array, "tenant_id"),
    _column("kinds", id_array, "kind"),
    _column("run_ids", text_array, "run_id"),
    ("limit_ids", text_array, lambda hold: text_array(one for one, _ in hold.limits)),
    ("limit_units", text_array, lambda hold: int_array(units for _, units in hold.limits)),
]
_OPERATION_COLUMNS: list[Column] = [
    *(_column(name, id_array) for name in ("operation_id", "kind", "outcome")),
    *(
        _column(name, nullable_array)
        for name in ("hold_id", "refers_to", "key_hash", "digest", "due_at")
    ),
    *(
        _column(name, int_array)
        for name in ("sequence", "units", "available", "balance_after", "posted_at", "moved")
    ),
    *(
        _column(name, int_array)
        for name in ("shortfall", "held", "leased", "overage", "overage_held", "epoch")
    ),
    *(
        _column(name, text_array)
        for name in ("account_id", "tenant_id", "code", "decided_by", "source", "target")
    ),
    *(_column(name, text_array) for name in ("run_id", "reason", "details")),
    ("lot_ids", text_array, lambda one: id_array(one.lot_ids)),
    *(
        (name, text_array, lambda one, get=attrgetter(name): int_array(get(one)))
        for name in ("lot_consumed", "lot_held", "limit_used", "limit_held")
    ),
    ("limit_ids", text_array, lambda one: text_array(one.limit_ids)),
]
_RUN_COLUMNS = [
    _column("tenant_ids", text_array, "tenant_id"),
    _column("run_ids", text_array, "run_id"),
    _column("account_ids", text_array, "account_id"),
    _column("targets", int_array, "target"),
    _column("charged", int_array),
    _column("shortfalls", int_array, "shortfall"),
    _column("refunded", int_array),
    _column("captured", int_array),
    _column("has_facts", bool_array),
    _column("is_stale", bool_array),
    _column("revisions", int_array, "revision"),
    _column("updated_at", int_array),
]


def _write_balances(connection: Connection, book: Book) -> None:
    account_ids = sorted({operation.account_id for operation in book.operations})
    accounts = [book.accounts[account_id] for account_id in account_ids]
    _write(connection, "update_balances", accounts, _BALANCE_COLUMNS)


def _write_lots(connection: Connection, book: Book) -> None:
    if book.new_lots:
        _write(connection, "insert_lots", book.new_lots, _NEW_LOT_COLUMNS)
    if book.touched_lots:
        lots = [book.lots[lot_id] for lot_id in sorted(book.touched_lots)]
        _write(connection, "update_lots", lots, _LOT_COLUMNS)


def _write_holds(connection: Connection, book: Book) -> None:
    if book.ended_holds:
        ended = {"hold_ids": id_array(book.ended_holds)}
        connection.execute(SQL["delete_holds"], ended)
    changed = book.changed_holds - book.new_holds
    if changed:
        _write(connection, "update_holds", [book.holds[one] for one in changed], _HOLD_COLUMNS)
    if book.new_holds:
        opened = [book.holds[one] for one in sorted(book.new_holds)]
        _write(connection, "insert_holds", opened, _NEW_HOLD_COLUMNS)


def _write_runs(connection: Connection, book: Book) -> Cursor | None:
    charges = [book.run_charges[run] for run in sorted(book.touched_runs)]
    return _write(connection, "upsert_run_charges", charges, _RUN_COLUMNS) if charges else None


def load_run_charges(connection: Connection, runs: Sequence[RunKey]) -> dict[RunKey, RunCharge]:
    """Charges of runs, for those that have one."""
    rows = connection.execute(SQL["load_run_charges"], run_arguments(runs)).fetchall()
    return {(row[0], row[1]): RunCharge(*row) for row in rows}


def run_arguments(runs: Sequence[RunKey]) -> dict[str, list[str]]:
    """Runs as the two arrays that statements take."""
    return {
        "tenant_ids": [tenant_id for tenant_id, _ in runs],
        "run_ids": [run_id for _, run_id in runs],
    }
