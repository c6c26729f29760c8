"""The auditor: history is replayed into the reference, and every figure must agree.

It may not use any rule of the ledger. Requests reach the ledger late, twice, in any order
and through failures; what it must have answered follows from the order that history gives
them, one by one.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from tallystick.ledger import Ledger, Outcome, Request, RunTarget
from tests.simulation.reference import Reference, Refused

_HISTORY = b"""
SELECT operation_id::text, kind, outcome, code, moved, shortfall, available, posted_at,
    key_hash::text, hold_id::text, run_id, reason, units
FROM ledger.operation WHERE account_id = %s ORDER BY sequence
"""


class Auditor:
    """Checks one account against its reference."""

    def __init__(self, reference: Reference, account_id: str, tenant_id: str) -> None:
        self.reference = reference
        self.account_id = account_id
        self.tenant_id = tenant_id
        self.requests: dict[str, Request] = {}
        """By the hash of their key."""
        self.seen = 0
        self.answers: dict[bytes, Outcome] = {}

    def heard(self, request: Request, outcome: Outcome) -> None:
        """The same key and content has the same outcome for ever."""
        name = type(request).__name__.encode() + msgspec.msgpack.encode(request)
        first = self.answers.setdefault(name, outcome)
        assert first == outcome, f"INV-04: {request} was answered {first} and {outcome}"

    def replay(
        self, connection: psycopg.Connection[Any], converged: dict[str, RunTarget] | None = None
    ) -> None:
        """Apply the operations that are new in history, in their order."""
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_HISTORY, (self.account_id,)).fetchall()
        for row in rows[self.seen :]:
            if row["key_hash"] is not None:
                self._check(row, self.requests[row["key_hash"]])
            elif row["kind"] == "lot_expiry":
                self.reference.expire_one(row["posted_at"], row["units"])
            elif row["kind"] in ("hold_expiry", "unknown", "resolve") and not (
                converged and row["code"] == "settled_by_facts"
            ):
                self._check_due(row)
        self.seen = len(rows)
        for target in (converged or {}).values():
            self.reference.converge(target.run_id, target.target_units, rows[-1]["posted_at"])

    def _check(self, row: dict[str, Any], request: Request) -> None:
        told = (row["outcome"], row["code"], row["moved"], row["shortfall"], row["available"])
        try:
            meant = self.reference.apply(request, row["posted_at"], row["operation_id"])
        except Refused as refused:
            raise AssertionError(f"{request} should have been refused: {refused}") from refused
        assert told == meant, f"{request}: the ledger {told}, the reference {meant}"

    def _check_due(self, row: dict[str, Any]) -> None:
        from tallystick.ledger import DueRequest

        told = (row["outcome"], row["code"], row["moved"], row["shortfall"], row["available"])
        request = DueRequest(hold_id=row["hold_id"])
        meant = self.reference.apply(request, row["posted_at"], row["operation_id"])
        assert told == meant, f"{request}: the ledger {told}, the reference {meant}"

    def balances(self, ledger: Ledger, now: int) -> None:
        """Every figure of the balance, and the limits."""
        reference = self.reference
        overdue = sum(box.free for box in reference.boxes if box.until <= now)
        balance = ledger.balance(self.account_id)
        found = (
            balance.available,
            balance.held,
            balance.leased,
            balance.granted,
            balance.captured - balance.refunded,
            balance.expired,
            balance.refunded,
            balance.overage,
        )
        assert found == (
            reference.available - overdue,
            reference.held("hold"),
            reference.held("lease"),
            reference.granted,
            reference.captured - reference.refunded,
            reference.expired + overdue,
            reference.refunded,
            reference.debt,
        ), "available, held, leased, granted, captured, expired, refunded, overage"
        total = balance.available + balance.held + balance.leased + balance.captured
        assert balance.granted == total + balance.expired - balance.refunded, "INV-15"
        for limit in ledger.load_limits(list(reference.windows)):
            window = reference.windows[limit.limit_id]
            counted = (limit.used, limit.held, limit.let_through)
            assert counted == (window[2], window[3], window[5]), limit.limit_id
