"""How an account is shown: credit that is over its time counts as expired at once."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.ledger.model import Balance, Bucket
from tallystick.ledger.rules import AccountState, LotState


def balance_of(account: AccountState, lots: Sequence[LotState], now: int) -> Balance:
    """Show an account with its lots (all that are not spent, newest first), as of `now`."""
    overdue = sum(lot.free for lot in lots if lot.is_expired(now))
    return Balance(
        account_id=account.account_id,
        tenant_id=account.tenant_id,
        sequence=account.sequence,
        available=account.available - overdue,
        held=account.held,
        leased=account.leased,
        granted=account.credited - account.refunded,
        captured=account.debited - account.expired,
        expired=account.expired + overdue,
        refunded=account.refunded,
        overage=account.overage,
        overage_limit_units=account.overage_limit_units,
        buckets=[bucket_of(lot, now) for lot in lots],
    )


def bucket_of(lot: LotState, now: int) -> Bucket:
    """Show one lot."""
    overdue = lot.free if lot.is_expired(now) else 0
    return Bucket(
        lot_id=lot.lot_id,
        source=lot.source,
        priority=lot.priority,
        expires_at=lot.expires_at,
        granted=lot.granted,
        available=lot.free - overdue,
        held=lot.held,
        captured=lot.consumed,
        expired=lot.expired + overdue,
    )
