"""Drift: rows that are not what history says, and the operation that puts them right.

History is append-only and sealed, so it is the truth. A row that differs is located to the
first entry from which it is wrong, and is set right only by an operation of kind `repair`
that records what the row was and what it is: nothing is mended in silence.
"""

from __future__ import annotations

from typing import Any

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.ids import IdSource
from tallystick.ledger.group import read_accounts
from tallystick.ledger.store import Connection, drive
from tallystick.ledger.writing import write_book
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode() for name, text in load_statements("tallystick.ledger", "drift.sql").items()
}


class Difference(msgspec.Struct, frozen=True):
    """Two things that should be equal and are not."""

    area: str
    """balance, lot, hold, run_charge, charge_lines or rollup."""
    where: str
    account_id: str
    first_bad: str
    """The entry from which it is wrong: "a/9", or "after a/17" when all entries are sound."""
    expected: dict[str, int]
    found: dict[str, int]
    is_repairable: bool
    """By `repair`; the others are named for a person, or converge by themselves."""


class Drift:
    """Compares the ledger's rows with its history, and repairs them by an operation."""

    def __init__(self, pool: ConnectionPool, clock: Clock, ids: IdSource) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids

    def differences(self) -> list[Difference]:
        """All rows that differ, as of one moment."""
        everything = {"account_id": ""}
        with transaction(self._pool) as connection:
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            found = []
            for account_id, expected, actual in connection.execute(
                _SQL["load_balance_drift"], everything
            ).fetchall():
                where = _locate(connection, account_id)
                found.append(
                    Difference(
                        "balance", account_id, account_id, where, *_only(expected, actual), True
                    )
                )
            for area in ("lot", "hold", "run"):
                rows = connection.execute(_SQL[f"load_{area}_drift"], everything).fetchall()
                for account_id, name, expected, actual in rows:
                    where = _locate(connection, account_id)
                    shown = "run_charge" if area == "run" else area
                    parts = _only(expected, actual)
                    found.append(Difference(shown, name, account_id, where, *parts, area == "lot"))
        return found

    def repair(self, account_id: str) -> int:
        """Set an account's balance and lots to what history says; how many rows changed.

        Posts one `repair` operation that records each change.
        """
        arguments = {"account_id": account_id}
        with transaction(self._pool) as connection:
            drive(connection, read_accounts(self._ids, self._clock, [account_id]))  # the lock
            changes: list[dict[str, Any]] = []
            for _, expected, actual in connection.execute(
                _SQL["load_balance_drift"], arguments
            ).fetchall():
                connection.execute(_SQL["repair_balance"], {**arguments, **expected})
                changes.append({"balance": account_id, "was": actual, "is": expected})
            for _, lot_id, expected, actual in connection.execute(
                _SQL["load_lot_drift"], arguments
            ).fetchall():
                connection.execute(_SQL["repair_lot"], {"lot_id": lot_id, **expected})
                changes.append({"lot": lot_id, "was": actual, "is": expected})
            if changes:
                book = drive(connection, read_accounts(self._ids, self._clock, [account_id]))
                details = msgspec.json.encode({"repaired": changes}).decode()
                book.record(book.accounts[account_id], "repair", details)
                drive(connection, write_book(book))
        return len(changes)


def _only(expected: dict[str, int], found: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """The parts that differ."""
    names = [name for name in expected if expected[name] != found[name]]
    return {name: expected[name] for name in names}, {name: found[name] for name in names}


def _locate(connection: Connection, account_id: str) -> str:
    """The first entry that is wrong, or the last when all of them are sound."""
    arguments = {"account_id": account_id}
    row = connection.execute(_SQL["load_first_bad"], arguments).fetchone()
    if row is not None:
        return f"{account_id}/{row[0]}"
    last = connection.execute(_SQL["load_last_sequence"], arguments).fetchone()
    return f"after {account_id}/{last[0] if last else 0}"
