"""Writing a book: everything that its operations changed, each table by one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from tallystick.errors import Raced
from tallystick.ledger.book import Book
from tallystick.ledger.rules import HoldState
from tallystick.ledger.store import Batch, Plan, Query
from tallystick.plumbing.arrays import Column, by_set, id_array, int_array, text_array


def write_book(book: Book) -> Plan[None]:
    """Write what changed, in one round trip."""
    queries = [*_lots(book), *_holds(book)]
    if book.touched_limits:
        limits = [book.limits[limit_id] for limit_id in sorted(book.touched_limits)]
        queries.append(_by_set("update_limits", limits, _LIMIT_COLUMNS))
        queries += _slices(book)
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


def _slices(book: Book) -> Iterator[Query]:
    if book.rolled_limits:
        yield Query("delete_slices", {"limit_ids": text_array(book.rolled_limits)})
    if book.slices:
        yield _by_set("add_slices", [(*key, used) for key, used in book.slices.items()], _SLICES)


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


def _ids(*names: str) -> list[Column]:
    return [Column(name, "uuid", attrgetter(name)) for name in names]


def _numbers(*names: str) -> list[Column]:
    return [Column(name, "bigint", attrgetter(name)) for name in names]


def _texts(*names: str) -> list[Column]:
    return [Column(name, "text", attrgetter(name)) for name in names]


def _flags(*names: str) -> list[Column]:
    return [Column(name, "boolean", attrgetter(name)) for name in names]


def _lot_ids(hold: HoldState) -> str:
    return id_array(lot_id for lot_id, _ in hold.lots)


def _lot_units(hold: HoldState) -> str:
    return int_array(units for _, units in hold.lots)


def _limit_ids(hold: HoldState) -> str:
    return text_array(limit_id for limit_id, _ in hold.limits)


def _limit_units(hold: HoldState) -> str:
    return int_array(units for _, units in hold.limits)


_LIMIT_COLUMNS = [
    *_texts("limit_id"),
    *_numbers("used", "held", "overrun", "let_through", "rolled", "rolls_at"),
]
_SLICES = [
    Column("limit_id", "text", itemgetter(0)),
    Column("slice_at", "bigint", itemgetter(1)),
    Column("used", "bigint", itemgetter(2)),
]
_BALANCE_COLUMNS = [
    *_texts("account_id"),
    *_numbers("sequence", "credited", "debited", "refunded", "expired", "held", "leased"),
    *_numbers("overage", "overage_held"),
]
_NEW_LOT_COLUMNS = [
    *_ids("lot_id"),
    *_texts("account_id", "source"),
    Column("priority", "smallint", attrgetter("priority")),
    *_numbers("expires_at", "created_at", "granted"),
]
_LOT_COLUMNS = [*_ids("lot_id"), *_numbers("consumed", "held", "expired")]
_HOLD_COLUMNS = [
    *_ids("hold_id"),
    *_texts("status"),
    *_numbers("held", "drawn", "overage", "due_at"),
    *_flags("has_started"),
    Column("epoch", "integer", attrgetter("epoch")),
    Column("lot_ids", "uuid[]", _lot_ids),
    Column("lot_units", "bigint[]", _lot_units),
    Column("limit_units", "bigint[]", _limit_units),
]
_NEW_HOLD_COLUMNS = [
    *_HOLD_COLUMNS,
    *_texts("account_id", "tenant_id", "kind", "run_id"),
    Column("limit_ids", "text[]", _limit_ids),
]
_OPERATION_COLUMNS = [
    *_ids("operation_id", "hold_id", "refers_to", "key_hash", "digest"),
    *_texts("account_id", "tenant_id", "kind", "outcome", "code", "decided_by", "source"),
    *_texts("target", "run_id", "reason", "details"),
    *_numbers("sequence", "units", "available", "balance_after", "posted_at", "moved"),
    *_numbers("shortfall", "held", "leased", "overage", "overage_held", "due_at"),
    Column("epoch", "integer", attrgetter("epoch")),
    Column("lot_ids", "uuid[]", lambda one: id_array(one.lot_ids)),
    Column("lot_consumed", "bigint[]", lambda one: int_array(one.lot_consumed)),
    Column("lot_held", "bigint[]", lambda one: int_array(one.lot_held)),
    Column("limit_ids", "text[]", lambda one: text_array(one.limit_ids)),
    Column("limit_used", "bigint[]", lambda one: int_array(one.limit_used)),
    Column("limit_held", "bigint[]", lambda one: int_array(one.limit_held)),
]
_RUN_COLUMNS = [
    *_texts("tenant_id", "run_id", "account_id"),
    *_numbers("target", "charged", "shortfall", "refunded", "captured", "updated_at"),
    *_flags("has_facts", "is_stale"),
    Column("revision", "integer", attrgetter("revision")),
]


def _by_set(name: str, rows: Sequence[Any], columns: Sequence[Column]) -> Query:
    arguments, parts = by_set(rows, columns)
    return Query(name, arguments, parts)
