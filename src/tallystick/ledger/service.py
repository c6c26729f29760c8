"""The ledger's service: requests in, one outcome each, in one transaction.

A request's key is looked up under the account's lock, so of two requests with one key the
second sees the first one's outcome. Declines are outcomes: they are stored and replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import class_row, dict_row
from psycopg_pool import ConnectionPool

from tallystick.bounds import ID_LENGTH_MAX
from tallystick.clock import Clock
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.ids import IdSource
from tallystick.ledger.convergence import converge
from tallystick.ledger.model import (
    Account,
    Balance,
    ChargeRequest,
    EntryView,
    GrantRequest,
    Outcome,
    RefundRequest,
    RunCharge,
    RunChargeOutcome,
    RunTarget,
    Violation,
)
from tallystick.ledger.posting import Posting
from tallystick.ledger.rules import LotState, Spend
from tallystick.ledger.store import (
    SQL,
    Connection,
    account_state,
    load_run_charges,
    load_run_spends,
    store_run_charges,
)
from tallystick.ledger.views import balance_of
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements
from tallystick.units import INT64_MAX

_VERIFY = load_statements("tallystick.ledger", "verify.sql")
_POLICIES = ("reject", "cap", "overage")
_SOURCES = ("plan", "topup", "promo")
_EXAMPLES_MAX = 10
ENTRIES_MAX = 1000
UNITS_MAX = 10**16
"""Ten billion credits in one request: sums of many stay within 64 bits."""


class Ledger:
    """Accounts and everything that moves them."""

    def __init__(self, pool: ConnectionPool, clock: Clock, ids: IdSource) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids

    # Accounts

    def put_account(
        self,
        account_id: str,
        *,
        tenant_id: str,
        overage_limit_units: int | None = 0,
        capture_policy: str = "cap",
    ) -> Account:
        """Make an account or change its settings; its tenant never changes (Conflict)."""
        check_id(account_id, "account_id")
        check_id(tenant_id, "tenant_id")
        if capture_policy not in _POLICIES:
            raise InvalidInput(
                f"capture_policy must be one of {', '.join(_POLICIES)}", field="capture_policy"
            )
        if overage_limit_units is not None:
            check_units(overage_limit_units, "overage_limit", least=0)
        arguments = {
            "account_id": account_id,
            "tenant_id": tenant_id,
            "capture_policy": capture_policy,
            "overage_limit_units": overage_limit_units,
            "now": self._clock.now(),
        }
        with transaction(self._pool) as connection:
            connection.execute(SQL["insert_account"], arguments)
            connection.execute(SQL["insert_balance"], arguments)
            if self._account(connection, account_id).tenant_id != tenant_id:
                raise Conflict("the account belongs to another tenant", code="tenant_mismatch")
            connection.execute(SQL["update_policy"], arguments)
            try:
                connection.execute(SQL["update_limit"], arguments)
            except psycopg.errors.CheckViolation as error:
                raise Conflict(
                    "the balance is below this overage_limit already", code="limit_below_balance"
                ) from error
            return self._account(connection, account_id)

    def list_accounts(self, tenant_id: str = "") -> list[Account]:
        """Accounts of a tenant, or all."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(Account))
            return cursor.execute(SQL["list_tenant_accounts"], {"tenant_id": tenant_id}).fetchall()

    # Movements

    def grant(self, request: GrantRequest) -> Outcome:
        """Give credit; the same key answers the same for ever."""
        check_units(request.units, "amount")
        if request.source not in _SOURCES:
            raise InvalidInput(f"source must be one of {', '.join(_SOURCES)}", field="source")
        if not 0 <= request.priority < 2**15:
            raise InvalidInput("priority must be from 0 to 32767", field="priority")

        def post(posting: Posting) -> Outcome:
            if request.expires_at is not None and request.expires_at <= posting.now:
                raise InvalidInput(
                    "expires_at must be in the future", code="expires_in_past", field="expires_at"
                )
            operation, lot_id = posting.grant(
                request.account_id,
                request.units,
                request.source,
                request.priority,
                request.expires_at,
            )
            available = posting.account(request.account_id).available
            return Outcome(
                operation_id=str(operation.operation_id),
                kind="grant",
                status="posted",
                account_id=request.account_id,
                units=request.units,
                available=available,
                lot_id=str(lot_id),
            )

        return self._once(request.account_id, request.idempotency_key, request, post)

    def charge(self, request: ChargeRequest) -> Outcome:
        """Take credit, or decline when it does not fit; a decline is replayed too.

        With a `run_id` it is the run's one charge: a second one is a Conflict.
        """
        check_units(request.units, "amount")
        if request.run_id:
            check_id(request.run_id, "run_id")

        def post(posting: Posting, connection: Connection, tenant_id: str) -> Outcome:
            run = (tenant_id, request.run_id)
            if request.run_id and load_run_charges(connection, [run]):
                raise Conflict(
                    "this run is charged already; late usage is posted as a delta",
                    code="run_already_charged",
                )
            operation = posting.charge(
                request.account_id,
                request.units,
                is_partial=False,
                run_id=request.run_id,
                reason=request.reason,
            )
            is_posted = operation.outcome == "posted"
            if request.run_id and is_posted:
                charge = RunCharge(
                    *run, request.account_id, request.units, request.units, 0, 0, 1, posting.now
                )
                store_run_charges(connection, [charge])
            return Outcome(
                operation_id=str(operation.operation_id),
                kind="charge",
                status=operation.outcome,
                account_id=request.account_id,
                units=request.units,
                available=posting.account(request.account_id).available,
                code="" if is_posted else "credit_exhausted",
            )

        return self._once_in(request.account_id, request.idempotency_key, request, post)

    def refund(self, request: RefundRequest) -> Outcome:
        """Give back part or the rest of a charge, to the lots that it came from."""
        if request.units is not None:
            check_units(request.units, "amount")
        if (request.charge_id is None) == (request.run_id is None):
            raise InvalidInput("give either charge_id or run_id", field="charge_id")
        account_id, run = self._refund_target(request)

        def post(posting: Posting, connection: Connection, tenant_id: str) -> Outcome:
            refers_to = UUID(request.charge_id) if request.charge_id else None
            charge = load_run_charges(connection, [run]).get(run) if run else None
            if run is not None and charge is not None:
                spent = load_run_spends(connection, [run]).get(run, [])
                rest = charge.charged - charge.refunded
            else:
                spent, rest = self._charge_spends(connection, account_id, refers_to)
            units = rest if request.units is None else request.units
            if units > rest or units <= 0:
                raise InvalidInput(
                    "more than what is left of the charge", code="refund_too_large", field="amount"
                )
            operation = posting.refund(
                account_id,
                units,
                spent,
                run_id=run[1] if run else "",
                refers_to=refers_to,
                reason=request.reason,
            )
            if charge is not None:
                charge.refunded += units
                charge.revision += 1
                charge.updated_at = posting.now
                store_run_charges(connection, [charge])
            return Outcome(
                operation_id=str(operation.operation_id),
                kind="refund",
                status="posted",
                account_id=account_id,
                units=units,
                available=posting.account(account_id).available,
            )

        return self._once_in(account_id, request.idempotency_key, request, post)

    def _refund_target(self, request: RefundRequest) -> tuple[str, tuple[str, str] | None]:
        with transaction(self._pool) as connection:
            if request.run_id is not None:
                run = (request.tenant_id, request.run_id)
                charge = load_run_charges(connection, [run]).get(run)
                if charge is None:
                    raise NotFound("this run has no charge", code="unknown_charge")
                return charge.account_id, run
            try:
                charge_id = UUID(request.charge_id or "")
            except ValueError:
                raise NotFound("there is no such charge", code="unknown_charge") from None
            row = connection.execute(SQL["find_charge"], {"charge_id": charge_id}).fetchone()
            if row is None or row[2] != "charge" or row[3] != "posted":
                raise NotFound("there is no such charge", code="unknown_charge")
            if request.tenant_id and row[1] != request.tenant_id:
                raise NotFound("there is no such charge", code="unknown_charge")
            return row[0], (row[1], row[4]) if row[4] else None

    @staticmethod
    def _charge_spends(
        connection: Connection, account_id: str, charge_id: UUID | None
    ) -> tuple[list[Spend], int]:
        arguments = {"charge_id": charge_id, "account_id": account_id}
        rows = connection.execute(SQL["load_charge"], arguments).fetchall()
        spends = [Spend(tuple(zip(row[6], row[7], strict=True)), row[8]) for row in rows]
        rest = sum(row[4] if row[3] == "charge" else -row[4] for row in rows)
        return spends, rest

    def converge_run_charges(self, targets: Sequence[RunTarget]) -> list[RunChargeOutcome]:
        """Post target minus posted for each run; repeating it posts zero."""
        if not targets:
            return []
        for target in targets:
            check_units(target.target_units, "target", least=0)
        with transaction(self._pool) as connection:
            return converge(connection, self._ids, self._clock.now(), targets)

    # Reading

    def balance(self, account_id: str) -> Balance:
        """What the account has now, by bucket."""
        with transaction(self._pool) as connection:
            account = self._account(connection, account_id)
            arguments = {"account_ids": [account_id], "account_id": account_id}
            row = connection.execute(SQL["load_balances"], arguments).fetchone()
            rows = connection.execute(SQL["load_all_lots"], arguments).fetchall()
        if row is None:
            raise _unknown_account()
        lots = [LotState(*lot) for lot in rows]
        state = account_state(row, lots)
        return balance_of(state, account.tenant_id, lots, self._clock.now())

    def entries(
        self, account_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[EntryView], str | None]:
        """Entries of an account, newest first, and the cursor of the next page."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise InvalidInput("cursor is not one of ours", code="bad_cursor", field="cursor")
        size = min(max(limit, 1), ENTRIES_MAX)
        arguments = {
            "account_id": account_id,
            "before": int(cursor) if cursor else INT64_MAX,
            "limit": size + 1,
        }
        with transaction(self._pool) as connection:
            self._account(connection, account_id)
            reader = connection.cursor(row_factory=class_row(EntryView))
            found = reader.execute(SQL["load_entries"], arguments).fetchall()
        page = found[:size]
        return page, str(page[-1].sequence) if len(found) > size else None

    def load_run_charge(self, tenant_id: str, run_id: str) -> RunCharge | None:
        """The one charge of a run."""
        with transaction(self._pool) as connection:
            return load_run_charges(connection, [(tenant_id, run_id)]).get((tenant_id, run_id))

    def load_run_operations(self, tenant_id: str, run_id: str) -> list[dict[str, Any]]:
        """The operations of a run, oldest first."""
        arguments = {"tenant_id": tenant_id, "run_id": run_id}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(SQL["load_run_operations"], arguments).fetchall()

    def load_run_targets(self) -> dict[tuple[str, str], int]:
        """What each run should have been charged, zero left out."""
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL["load_run_targets"]).fetchall()
        return {(row[0], row[1]): row[2] for row in rows if row[2]}

    def verify(self) -> list[Violation]:
        """Check the ledger's invariants over all rows."""
        violations = []
        with transaction(self._pool) as connection:
            for invariant_id, sql in _VERIFY.items():
                found = [row[0] for row in connection.execute(sql.encode()).fetchall()]
                if found:
                    violations.append(Violation(invariant_id, len(found), found[:_EXAMPLES_MAX]))
        return violations

    # One request, one outcome

    def _once(
        self,
        account_id: str,
        key: str,
        request: msgspec.Struct,
        post: Callable[[Posting], Outcome],
    ) -> Outcome:
        return self._once_in(account_id, key, request, lambda posting, _, __: post(posting))

    def _once_in(
        self,
        account_id: str,
        key: str,
        request: msgspec.Struct,
        post: Callable[[Posting, Connection, str], Outcome],
    ) -> Outcome:
        check_key(key)
        digest = hashlib.sha256(
            type(request).__name__.encode() + msgspec.msgpack.encode(request)
        ).digest()
        with transaction(self._pool) as connection:
            tenant_id = self._account(connection, account_id).tenant_id
            posting = Posting(connection, self._ids, self._clock.now(), {account_id: tenant_id})
            name = {"account_id": account_id, "idempotency_key": key}
            known = connection.execute(SQL["load_request_key"], name).fetchone()
            if known is not None:
                return self._replay(known, digest)
            outcome = post(posting, connection, tenant_id)
            posting.write()
            content = {"digest": digest, "outcome": msgspec.msgpack.encode(outcome)}
            connection.execute(SQL["insert_request_key"], {**name, **content})
            return outcome

    @staticmethod
    def _replay(known: tuple[Any, ...], digest: bytes) -> Outcome:
        if bytes(known[0]) != digest:
            raise Conflict("this idempotency key was used before with other content")
        return msgspec.msgpack.decode(known[1], type=Outcome)

    @staticmethod
    def _account(connection: Connection, account_id: str) -> Account:
        cursor = connection.cursor(row_factory=class_row(Account))
        found = cursor.execute(SQL["load_accounts"], {"account_ids": [account_id]}).fetchone()
        if found is None:
            raise _unknown_account()
        return found


def _unknown_account() -> NotFound:
    return NotFound("there is no such account; create it with PUT", code="unknown_account")


def check_units(units: int, field: str, *, least: int = 1) -> None:
    """Refuse amounts that are not positive or beyond 64 bits."""
    if units < least:
        raise InvalidInput(
            f"{field} must be {'positive' if least else 'at least 0'}",
            code="amount_not_positive",
            field=field,
        )
    if units > UNITS_MAX:
        raise InvalidInput(f"{field} is too large", code="amount_too_large", field=field)


def check_id(value: str, field: str) -> None:
    """Refuse ids that are empty, too long or hold control characters."""
    if not 0 < len(value) <= ID_LENGTH_MAX or not value.isprintable() or value[0] == "@":
        raise InvalidInput(
            f"{field} must have 1 to {ID_LENGTH_MAX} printable characters, the first not @",
            code="bad_id",
            field=field,
        )


def check_key(key: str) -> None:
    """Refuse keys that are missing or too long."""
    if not key:
        raise InvalidInput(
            "send an Idempotency-Key header or idempotency_key",
            code="key_missing",
            field="idempotency_key",
        )
    if len(key.encode()) > ID_LENGTH_MAX or "\0" in key:
        raise InvalidInput(
            f"an idempotency key may have at most {ID_LENGTH_MAX} bytes",
            code="key_too_long",
            field="idempotency_key",
        )
