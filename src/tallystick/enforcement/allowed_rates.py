"""Allowed rates: the even pace of each budget in dollars, for the watch of overruns.

A budget of 50 dollars a day allows 0.035 a minute; who spends at many times that pace is seen
before the cap is reached. Only budgets whose scope is one series of the watch count: none but the
tenant, or one dimension. Of several on one series the strictest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.clock import HOUR, MINUTE, SECOND, Clock
from tallystick.enforcement.budgets import ActiveBudgets, Budgets
from tallystick.enforcement.budgets import store as budget_rows
from tallystick.enforcement.budgets.model import EACH, Budget
from tallystick.enforcement.budgets.rules import window_at
from tallystick.enforcement.overrun.model import DIMENSIONS, SeriesKey
from tallystick.plumbing.postgres import transaction

_LOOK_EVERY = 10 * SECOND


class AllowedRates:
    """What budgets allow a minute; looked up again every ten seconds."""

    def __init__(self, pool: ConnectionPool, budgets: Budgets, clock: Clock) -> None:
        self._pool = pool
        self._budgets = budgets
        self._clock = clock
        self._active = ActiveBudgets()
        self._rates: Mapping[SeriesKey, float] = {}
        self._looked_at = 0

    def rates(self) -> Mapping[SeriesKey, float]:
        """USD/9 a minute, of each series that has a budget."""
        now = self._clock.now()
        if now - self._looked_at >= _LOOK_EVERY:
            self._looked_at = now
            self._rates = self._look(now)
        return self._rates

    def _look(self, now: int) -> Mapping[SeriesKey, float]:
        self._budgets.refresh(self._active)
        budgets = {
            (one.tenant_id, one.budget_id): one
            for tenant_id in self._active.tenants()
            for one in self._active.of(tenant_id)
        }
        found = [(one, dict(one.terms.scope)) for one in budgets.values()]
        with transaction(self._pool) as connection:
            views = budget_rows.load_each(connection, now)
        for view in views:  # a window of each value, of those that work
            budget = budgets.get((view.tenant_id, view.budget_id))
            if budget is not None:
                found.append((budget, {**budget.terms.scope, **view.each}))
        rates: dict[SeriesKey, float] = {}
        for budget, scope in found:
            key = series_of(budget, scope)
            if key is not None:
                rate = rate_of(budget, now)
                rates[key] = min(rate, rates.get(key, rate))
        return rates


def series_of(budget: Budget, scope: Mapping[str, Any]) -> SeriesKey | None:
    """The series that a budget limits as a whole; None when there is no such series."""
    if budget.terms.asset != "USD" or budget.terms.kind == "shadow" or len(scope) > 1:
        return None
    for dimension, value in scope.items():
        is_watched = dimension in DIMENSIONS and value != EACH
        return SeriesKey(budget.tenant_id, dimension, value) if is_watched else None
    return SeriesKey(budget.tenant_id, "tenant", budget.tenant_id)


def rate_of(budget: Budget, now: int) -> float:
    """The even pace of a budget in its window of now, USD/9 a minute."""
    window = window_at(budget.terms, now)
    length = (
        budget.terms.rolling_hours * HOUR
        if window.end_at is None
        else window.end_at - window.start_at
    )
    return budget.terms.amount * MINUTE / length
