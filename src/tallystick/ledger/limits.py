"""Limits in decisions: which one refuses, what is counted, and usage that nothing authorized.

A hard limit declines. A soft or shadow limit lets work through and counts that it did: the
difference between the two is only what people are told. Usage that never passed an
authorization is counted by target: each source says what it used in all, and what it has not
posted yet is posted, so that repeating it counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from tallystick.errors import InvalidInput, NotFound
from tallystick.ledger.book import Book, Operation
from tallystick.ledger.model import Actuals, LimitPart
from tallystick.ledger.reading import lock_limits, roll_limits
from tallystick.ledger.rules import AccountState, LimitState
from tallystick.ledger.store import Batch, Plan, Query
from tallystick.ledger.writing import write_book
from tallystick.plumbing.arrays import Column, by_set, text_array

UsageTarget = tuple[str, str, int]
"""(limit id, source key, what the source used of it in all)."""

_USAGE_COLUMNS = [
    Column("limit_id", "text", itemgetter(0)),
    Column("source_key", "text", itemgetter(1)),
    Column("units", "bigint", itemgetter(2)),
]


def check_limits_exist(book: Book, parts: Iterable[LimitPart]) -> None:
    """Raise NotFound for a limit that nobody has made."""
    for part in parts:
        if part.limit_id not in book.limits:
            raise NotFound(f"there is no limit {part.limit_id}", code="unknown_limit")


def find_refusing(book: Book, parts: Sequence[LimitPart]) -> tuple[LimitPart | None, str]:
    """Return the first hard limit without room, or who would have declined: "limit:<id>" or "".

    Limits that let the work through are told so only when nothing refuses it.
    """
    passed: list[LimitState] = []
    for part in parts:
        limit = book.limits[part.limit_id]
        if limit.fits(part.units):
            continue
        if limit.kind == "hard":
            return part, ""
        passed.append(limit)
    for limit in passed:
        limit.let_through += 1
    return None, f"limit:{passed[0].limit_id}" if passed else ""


def decline_for_limit(
    book: Book, account: AccountState, kind: str, units: int, part: LimitPart, **more: Any
) -> Operation:
    """Decline, and say whether the end of other holds could make room."""
    limit = book.limits[part.limit_id]
    could_fit = max(part.units, 1) <= limit.room + limit.held
    return book.decline(
        account,
        kind,
        units,
        code="budget_exceeded",
        decided_by=f"limit:{part.limit_id}",
        reason="wait" if could_fit else "never",
        **more,
    )


def said_of_limits(
    book: Book, limit_ids: Sequence[str], parts: Sequence[LimitPart], actuals: Actuals
) -> dict[str, int]:
    """What a request says of a hold's limits: by asset, or by name, which comes first."""
    by_asset = dict(actuals)
    said = {
        limit_id: by_asset[book.limits[limit_id].asset]
        for limit_id in limit_ids
        if book.limits[limit_id].asset in by_asset
    }
    for part in parts:
        if part.limit_id not in limit_ids:
            raise InvalidInput(f"the hold does not name limit {part.limit_id}", field="limits")
        said[part.limit_id] = part.units
    return said


def count_usage(book: Book, targets: Sequence[UsageTarget]) -> Plan[dict[tuple[str, str], int]]:
    """Post target minus posted of each (limit, source); return what was posted now.

    It has happened, so it is never refused: beyond the capacity it is overrun.
    """
    yield from lock_limits(book, {limit_id for limit_id, _, _ in targets})
    check_limits_exist(book, [LimitPart(limit_id, 0) for limit_id, _, _ in targets])
    yield from roll_limits(book)
    arguments = {
        "limit_ids": text_array({limit_id for limit_id, _, _ in targets}),
        "source_keys": text_array({source_key for _, source_key, _ in targets}),
    }
    (rows,) = yield Batch([Query("load_usage", arguments)])
    posted = {(limit_id, source_key): units for limit_id, source_key, units in rows}
    deltas: dict[tuple[str, str], int] = {}
    for limit_id, source_key, target in targets:
        delta = target - posted.get((limit_id, source_key), 0)
        if delta:
            book.count_limit(limit_id, delta, 0)
            posted[limit_id, source_key] = target
            deltas[limit_id, source_key] = deltas.get((limit_id, source_key), 0) + delta
    yield from write_book(book)
    if deltas:
        found = [(*key, posted[key]) for key in deltas]
        usage, parts = by_set(found, _USAGE_COLUMNS)
        yield Batch([Query("upsert_usage", usage, parts)])
    return deltas


def roll_off(book: Book, limit_ids: Sequence[str]) -> Plan[int]:
    """Let go what has left rolling windows that nobody works in; how many were due."""
    yield from lock_limits(book, limit_ids)
    yield from roll_limits(book)
    rolled = len(book.rolled_limits)
    yield from write_book(book)
    return rolled
