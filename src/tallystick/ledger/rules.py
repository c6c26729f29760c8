"""Decisions of the ledger, on state in memory. Pure: no store, no clock.

An account's free credit is the sum of its lots' rests minus its overage. Credit is spent
from lots in the order priority, soonest expiry, age, id, then as overage up to the limit.
A grant pays back overage first. A refund gives back the newest spend first, to the lots
that it came from; what no lot can take back becomes a new lot of source "refund".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from tallystick.invariant import check

ISSUED = "@issued"
REVENUE = "@revenue"
EXPIRED = "@expired"
NEVER = 2**63 - 1


class LotState(msgspec.Struct):
    """A lot under lock."""

    lot_id: UUID
    account_id: str
    source: str
    priority: int
    expires_at: int | None
    created_at: int
    granted: int
    consumed: int = 0
    held: int = 0
    expired: int = 0

    @property
    def free(self) -> int:
        """Units that can still be spent, unless it has expired."""
        return self.granted - self.consumed - self.held - self.expired

    def is_expired(self, now: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def spend_order(self) -> tuple[int, int, int, UUID]:
        """Sorts lots into the order in which they are spent."""
        expiry = NEVER if self.expires_at is None else self.expires_at
        return (self.priority, expiry, self.created_at, self.lot_id)


class AccountState(msgspec.Struct):
    """An account under lock, with its lots that have credit."""

    account_id: str
    credited: int
    debited: int
    held: int
    leased: int
    overage: int
    overage_limit_units: int | None
    lots: list[LotState]

    @property
    def available(self) -> int:
        """What may be spent before the limit, expiry aside; negative when in overage."""
        return self.credited - self.debited - self.held - self.leased

    def check(self) -> None:
        """Raise when the limit is broken."""
        limit = self.overage_limit_units
        check(
            limit is None or self.available >= -limit,
            "INV-03",
            f"account {self.account_id} is below its limit",
        )


class Spend(NamedTuple):
    """Where units come from (or go back to, then negative): lots, then overage."""

    lots: tuple[tuple[UUID, int], ...]
    overage: int

    @property
    def total(self) -> int:
        """All units moved."""
        return sum(units for _, units in self.lots) + self.overage


def plan_expiry(account: AccountState, now: int) -> list[tuple[LotState, int]]:
    """Return lots whose time is over with what is left in them."""
    return [(lot, lot.free) for lot in account.lots if lot.is_expired(now) and lot.free > 0]


def plan_spend(account: AccountState, units: int, now: int) -> Spend:
    """Take up to `units`: all that fits, from lots in order and then as overage."""
    taken: list[tuple[UUID, int]] = []
    rest = units
    for lot in sorted(account.lots, key=lambda lot: lot.spend_order):
        part = 0 if lot.is_expired(now) else min(rest, lot.free)
        if part > 0:
            taken.append((lot.lot_id, part))
            rest -= part
    return Spend(tuple(taken), max(min(rest, _room_under_limit(account, units - rest)), 0))


def _room_under_limit(account: AccountState, spent: int) -> int:
    """How much overage the limit still allows after `spent` from lots."""
    if account.overage_limit_units is None:
        return NEVER
    return account.available - spent + account.overage_limit_units


def plan_refund(spent: Sequence[Spend], units: int, overage_now: int) -> Spend:
    """Give back up to `units` of earlier spends (oldest first), newest spend first.

    `spent` may hold earlier refunds as negative amounts; they reduce what can be given back.
    Overage that a grant has paid back meanwhile (beyond `overage_now`) is not given back here.
    """
    overage = min(sum(spend.overage for spend in spent), overage_now)
    order: dict[UUID, int] = {}
    for spend in spent:
        for lot_id, amount in spend.lots:
            order[lot_id] = order.get(lot_id, 0) + amount
    back_overage = min(units, max(overage, 0))
    rest = units - back_overage
    lots: list[tuple[UUID, int]] = []
    for lot_id, amount in reversed(order.items()):
        part = min(rest, amount)
        if part > 0:
            lots.append((lot_id, -part))
            rest -= part
    return Spend(tuple(lots), -back_overage)


def apply_spend(account: AccountState, spend: Spend, lots: dict[UUID, LotState]) -> None:
    """Move the state by a spend (or, with negative amounts, by a refund)."""
    for lot_id, units in spend.lots:
        lots[lot_id].consumed += units
    account.overage += spend.overage
    if spend.total >= 0:
        account.debited += spend.total
    else:
        account.credited -= spend.total
    account.check()


def plan_convergence(target: int, charged: int, shortfall: int, refunded: int) -> int:
    """Return what to post for a run: target minus posted, never below what was refunded.

    >>> plan_convergence(100, 70, 0, 0), plan_convergence(60, 100, 0, 30)
    (30, -40)
    """
    delta = target - charged - shortfall
    if delta >= 0:
        return delta
    return -min(-delta, shortfall + charged - refunded)


def total_free(lots: Iterable[LotState], now: int) -> int:
    """Free credit in lots that have not expired."""
    return sum(lot.free for lot in lots if not lot.is_expired(now))
