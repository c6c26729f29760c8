"""Writing a book: everything that its operations changed, each table by one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from tallystick.errors import Raced
from tallystick.ledger.book import Book
from tallystick.ledger.rules import HoldState
from tallystick.ledger.store import Batch, Plan, Query
from tallystick.plumbing.arrays import (
    bool_array,
    id_array,
    int_array,
    nullable_array,
    text_array,
)


def write_book(book: Book) -> Plan[None]:
    """Write what changed, in one round trip."""
    queries = [*_lots(book), *_holds(book)]
    if book.touched_limits:
        limits = [book.limits[limit_id] for limit_id in sorted(book.touched_limits)]
        queries.append(_by_set("update_limits", limits, _LIMIT_COLUMNS))
    if book.operations:
        account_ids = sorted({operation.account_id for operation in book.operations})
        accounts = [book.accounts[account_id] for account_id in account_ids]
        queries.append(_by_set("update_balances", accounts, _BALANCE_COLUMNS))
        queries.append(_by_set("insert_operations", book.operations, _OPERATION_COLUMNS))
    if book.touched_runs:
        charges = [book.run_charges[run] for run in sorted(book.touched_runs)]
        queries.append(_by_set("upsert_run_charges", charges, _RUN_COLUMNS))
    if queries:
        # the count of charges is looked at before the commit
        counts = yield Batch(queries, is_last=not book.touched_runs)
        if book.touched_runs and counts[-1][0][0] != len(book.touched_runs):
            raise Raced("a run was charged to another account meanwhile")


def _lots(book: Book) -> Iterator[Query]:
    if book.new_lots:
        yield _by_set("insert_lots", book.new_lots, _NEW_LOT_COLUMNS)
    if book.touched_lots:
        lots = [book.lots[lot_id] for lot_id in sorted(book.touched_lots)]
        yield _by_set("update_lots", lots, _LOT_COLUMNS)


def _holds(book: Book) -> Iterator[Query]:
    if book.ended_holds:
        yield Query("delete_holds", {"hold_ids": id_array(book.ended_holds)})
    changed = book.changed_holds - book.new_holds
    if changed:
        yield _by_set("update_holds", [book.holds[one] for one in changed], _HOLD_COLUMNS)
    if book.new_holds:
        opened = [book.holds[one] for one in sorted(book.new_holds)]
        yield _by_set("insert_holds", opened, _NEW_HOLD_COLUMNS)


Column = tuple[str, Callable[[Iterable[Any]], str], Callable[[Any], Any]]


def _column(name: str, form: Callable[[Iterable[Any]], str], field: str = "") -> Column:
    attribute = field or name
    return name, form, attrgetter(attribute)


def _by_set(name: str, rows: Sequence[Any], columns: Sequence[Column]) -> Query:
    return Query(name, {column: form(map(read, rows)) for column, form, read in columns})


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
    ("limit_units", text_array, lambda hold: int_array(units for _, units in hold.limits)),
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
