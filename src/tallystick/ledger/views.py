"""How an account is shown: credit that is over its time counts as expired at once."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.ledger.model import Balance, Bucket
from tallystick.ledger.rules import AccountState, LotState

_BUCKETS_MAX = 1000


def balance_of(
    account: AccountState, tenant_id: str, lots: Sequence[LotState], now: int
) -> Balance:
    """Show an account with its lots (newest first), as of `now`."""
    overdue = sum(lot.free for lot in lots if lot.is_expired(now))
    granted = sum(lot.granted for lot in lots if lot.source != "refund")
    expired = sum(lot.expired for lot in lots)
    return Balance(
        account_id=account.account_id,
        tenant_id=tenant_id,
        available=account.available - overdue,
        held=account.held,
        leased=account.leased,
        granted=granted,
        captured=account.debited - expired,
        expired=expired + overdue,
        refunded=account.credited - granted,
        overage=account.overage,
        overage_limit_units=account.overage_limit_units,
        buckets=[bucket_of(lot, now) for lot in lots[:_BUCKETS_MAX]],
    )


def bucket_of(lot: LotState, now: int) -> Bucket:
    """Show one lot."""
    overdue = lot.free if lot.is_expired(now) else 0
    return Bucket(
        lot_id=str(lot.lot_id),
        source=lot.source,
        priority=lot.priority,
        expires_at=lot.expires_at,
        granted=lot.granted,
        available=lot.free - overdue,
        held=lot.held,
        captured=lot.consumed,
        expired=lot.expired + overdue,
    )
