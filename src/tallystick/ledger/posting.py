"""Posting under lock: the one way in which accounts move.

A `Posting` collects operations on locked accounts; each method moves the state in memory
by a pure rule and appends one operation; `write` stores everything by set.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tallystick.ids import IdSource
from tallystick.ledger.rules import (
    EXPIRED,
    ISSUED,
    REVENUE,
    AccountState,
    LotState,
    Spend,
    apply_spend,
    plan_expiry,
    plan_refund,
    plan_spend,
)
from tallystick.ledger.store import (
    Connection,
    Leg,
    Locked,
    Operation,
    insert_lot,
    load_missing_lots,
    lock_accounts,
    write_back,
)

_REFUND_PRIORITY = 0


class Posting:
    """Operations of one transaction on locked accounts."""

    def __init__(
        self,
        connection: Connection,
        ids: IdSource,
        now: int,
        tenants: dict[str, str],
    ) -> None:
        """`tenants` maps the accounts to lock to their tenants."""
        self._connection = connection
        self._ids = ids
        self.now = now
        self._tenants = tenants
        self._locked: Locked = lock_accounts(connection, list(tenants))
        self._operations: list[Operation] = []
        for account in self._locked.accounts.values():
            self._expire(account)

    def account(self, account_id: str) -> AccountState:
        """The state of a locked account."""
        return self._locked.accounts[account_id]

    def write(self) -> None:
        """Store what was collected."""
        if self._operations:
            write_back(self._connection, self._locked, self._operations)

    def grant(
        self, account_id: str, units: int, source: str, priority: int, expires_at: int | None
    ) -> tuple[Operation, UUID]:
        """Add a lot; it pays back overage first."""
        account = self.account(account_id)
        repaid = min(account.overage, units)
        lot = self._new_lot(account, units, source, priority, expires_at, consumed=repaid)
        account.credited += units
        account.overage -= repaid
        operation = self._post(
            account, "grant", units, (Leg(ISSUED, account_id, units),), Spend((), -repaid)
        )
        return operation, lot.lot_id

    def charge(
        self, account_id: str, units: int, *, is_partial: bool, run_id: str = "", reason: str = ""
    ) -> Operation:
        """Take units: all, or with `is_partial` what fits; otherwise decline."""
        account = self.account(account_id)
        spend = plan_spend(account, units, self.now)
        if spend.total < units and not is_partial:
            return self._decline(account, units, run_id, reason)
        apply_spend(account, spend, self._locked.lots)
        legs = (Leg(account_id, REVENUE, spend.total),) if spend.total else ()
        return self._post(
            account,
            "charge",
            units,
            legs,
            spend,
            shortfall=units - spend.total,
            run_id=run_id,
            reason=reason,
        )

    def refund(
        self,
        account_id: str,
        units: int,
        spent: Sequence[Spend],
        *,
        run_id: str = "",
        refers_to: UUID | None = None,
        reason: str = "",
    ) -> Operation:
        """Give units back to where they came from; the rest becomes a lot of its own."""
        account = self.account(account_id)
        load_missing_lots(
            self._connection, self._locked, {lot for spend in spent for lot, _ in spend.lots}
        )
        back = plan_refund(spent, units, account.overage)
        apply_spend(account, back, self._locked.lots)
        rest = units + back.total
        if rest:
            self._new_lot(account, rest, "refund", _REFUND_PRIORITY, None)
            account.credited += rest
        return self._post(
            account,
            "refund",
            units,
            (Leg(REVENUE, account_id, units),),
            back,
            run_id=run_id,
            refers_to=refers_to,
            reason=reason,
        )

    def _expire(self, account: AccountState) -> None:
        for lot, units in plan_expiry(account, self.now):
            lot.expired += units
            account.debited += units
            self._post(
                account,
                "expire",
                units,
                (Leg(account.account_id, EXPIRED, units),),
                Spend(((lot.lot_id, 0),), 0),
                reason=f"lot {lot.lot_id} expired",
            )

    def _new_lot(
        self,
        account: AccountState,
        units: int,
        source: str,
        priority: int,
        expires_at: int | None,
        consumed: int = 0,
    ) -> LotState:
        lot = LotState(
            lot_id=self._ids.next_id(),
            account_id=account.account_id,
            source=source,
            priority=priority,
            expires_at=expires_at,
            created_at=self.now,
            granted=units,
            consumed=consumed,
        )
        insert_lot(self._connection, lot)
        self._locked.lots[lot.lot_id] = lot
        account.lots.append(lot)
        return lot

    def _decline(self, account: AccountState, units: int, run_id: str, reason: str) -> Operation:
        return self._post(
            account, "charge", units, (), Spend((), 0), outcome="declined", run_id=run_id,
            reason=reason,
        )  # fmt: skip

    def _post(
        self,
        account: AccountState,
        kind: str,
        units: int,
        legs: tuple[Leg, ...],
        spend: Spend,
        *,
        outcome: str = "posted",
        shortfall: int = 0,
        run_id: str = "",
        refers_to: UUID | None = None,
        reason: str = "",
    ) -> Operation:
        operation = Operation(
            operation_id=self._ids.next_id(),
            account_id=account.account_id,
            tenant_id=self._tenants[account.account_id],
            kind=kind,
            outcome=outcome,
            units=units,
            posted_at=self.now,
            balance_after=account.credited - account.debited,
            legs=legs,
            spend=spend,
            shortfall=shortfall,
            run_id=run_id,
            refers_to=refers_to,
            reason=reason,
        )
        self._operations.append(operation)
        return operation
