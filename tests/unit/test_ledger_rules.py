"""The ledger's rules as an accountant would read them."""

from __future__ import annotations

import pytest

from tallystick.errors import InvariantBroken
from tallystick.ledger.rules import (
    AccountState,
    LotState,
    Spend,
    plan_convergence,
    plan_expiry,
    plan_refund,
    plan_spend,
    sort_lots,
)

NOW = 1000


def lot(number: int, granted: int, priority: int = 100, expires_at: int | None = None) -> LotState:
    return LotState(str(number), "a", "topup", priority, expires_at, number, granted)


def account(lots: list[LotState], limit: int | None = 0) -> AccountState:
    credited = sum(one.granted for one in lots)
    moved = (credited, 0, 0, 0, 0, 0, 0, 0)
    ordered = sort_lots(lots)
    return AccountState("a", "t", "cap", "capture", 0, *moved, limit, "CREDIT/6", 0, ordered)


def test_spend_order() -> None:
    """lots:   3 promo 10 (priority 1) | 1 expires soon 5 | 2 never 5;   spend 17
    takes:  10 from 3                | 5 from 1         | 2 from 2"""
    lots = [lot(1, 5, expires_at=2000), lot(2, 5), lot(3, 10, priority=1)]
    spend = plan_spend(account(lots), 17, NOW)
    assert spend == Spend((("3", 10), ("1", 5), ("2", 2)), 0)


def test_an_expired_lot_gives_nothing() -> None:
    """lot 1: 5, its time over at 1000;   lot 2: 5;   spend 7 -> 5 from lot 2, no more."""
    lots = [lot(1, 5, expires_at=NOW), lot(2, 5)]
    state = account(lots)
    for expired, units in plan_expiry(state, NOW):
        expired.expired += units
        state.debited += units
    assert plan_spend(state, 7, NOW).total == 5


@pytest.mark.parametrize(("limit", "total"), [(0, 10), (5, 15), (None, 100)])
def test_overage_up_to_the_limit(limit: int | None, total: int) -> None:
    """lot 10, spend 100: the limit decides how much goes below zero."""
    assert plan_spend(account([lot(1, 10)], limit), 100, NOW).total == total


def test_a_refund_gives_back_the_newest_spend_first() -> None:
    """spent: 10 from lot 1, then 4 from lot 2, then 6 overage;   refund 9
    back:  6 overage, 3 to lot 2"""
    spent = [Spend((("1", 10), ("2", 4)), 0), Spend((), 6)]
    assert plan_refund(spent, 9, overage_now=6) == Spend((("2", -3),), -6)
    assert plan_refund(spent, 9, overage_now=0) == Spend((("2", -4), ("1", -5)), 0)


def test_convergence_posts_target_minus_posted() -> None:
    assert plan_convergence(100, 0, 0, 0) == 100
    assert plan_convergence(100, 60, 40, 0) == 0
    assert plan_convergence(30, 60, 40, 0) == -70
    assert plan_convergence(0, 60, 0, 50) == -10


def test_the_limit_is_checked_whatever_the_plan_says() -> None:
    """INV-03"""
    state = account([lot(1, 10)])
    state.debited += 11
    with pytest.raises(InvariantBroken, match="INV-03"):
        state.check()
