"""Quotas: the vault's `Assignments` over budgets, so that what nobody asked for counts too.

The vault knows what was spent, budgets know what was set and the ledger what is used and held
of each window. This says, for a scope and a moment, which windows that concerns. For the follower
it also makes windows that are missing: usage can only be counted against a window of the ledger.

A rolling window has no calendar: its usage goes back a span before its budget was made, and what
came to the log later than a span after it occurred never was in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from psycopg_pool import ConnectionPool

from tallystick.clock import HOUR
from tallystick.enforcement.budgets import ActiveBudgets, Budgets, WindowPart, WindowView
from tallystick.enforcement.budgets import store as budget_rows
from tallystick.enforcement.budgets.matching import part_of
from tallystick.enforcement.budgets.rules import each_of
from tallystick.enforcement.vault.model import BUCKET, Assignment, Connection, Threshold
from tallystick.plumbing.postgres import transaction

_REMEMBERED_MAX = 200_000
_FOREVER = 2**62


class BudgetAssignments:
    """Budgets as the vault asks for them; one for each thread that asks."""

    def __init__(
        self, pool: ConnectionPool, budgets: Budgets, *, makes_windows: bool = False
    ) -> None:
        """`makes_windows` is for the follower: whoever only reads makes nothing."""
        self._pool = pool
        self._budgets = budgets
        self._makes_windows = makes_windows
        self._active = ActiveBudgets()
        self._made: set[str] = set()

    def limited(self, connection: Connection) -> Collection[str]:
        """Tenants that have budgets, as of now."""
        self._budgets.refresh(self._active)
        return set(self._active.tenants())

    def matching(self, tenant_id: str, scope: Mapping[str, str], at: int) -> list[Assignment]:
        """Budgets, in their windows at a moment, that limit work of this scope."""
        if not self._makes_windows:
            self._budgets.refresh(self._active)
        parts = self._active.match(tenant_id, scope, at)
        return self._assigned([part for part in parts if _counts(part, at)])

    def current(self, connection: Connection, at: int) -> list[Assignment]:
        """Every budget in its window of now; of "*", windows that somebody worked in."""
        self._budgets.refresh(self._active)
        budgets = [one for tenant in self._active.tenants() for one in self._active.of(tenant)]
        parts = [part_of(one, (), at) for one in budgets if not each_of(one.terms.scope)]
        by_name = {(one.tenant_id, one.budget_id): one for one in budgets}
        for view in budget_rows.load_each(connection, at):
            budget = by_name.get((view.tenant_id, view.budget_id))
            if budget is not None:
                parts.append(part_of(budget, tuple(sorted(view.each.items())), at))
        return self._assigned(parts)

    def _assigned(self, parts: Sequence[WindowPart]) -> list[Assignment]:
        if not parts:
            return []
        if self._makes_windows:
            self._make(parts)
            return [_assignment(part, None) for part in parts]
        with transaction(self._pool) as connection:
            found = budget_rows.load_windows(connection, [part.limit_id for part in parts])
        views = {one.limit_id: one for one in found}
        return [_assignment(part, views.get(part.limit_id)) for part in parts]

    def _make(self, parts: Iterable[WindowPart]) -> None:
        missing = {part.limit_id: part for part in parts if part.limit_id not in self._made}
        if not missing:
            return
        self._budgets.open_windows(list(missing.values()))
        if len(self._made) > _REMEMBERED_MAX:
            self._made.clear()
        self._made.update(missing)


def _counts(part: WindowPart, at: int) -> bool:
    """Whether usage of a moment can be in the window: not when it was over before its budget."""
    budget, window = part.budget, part.window
    if window.end_at is None:
        return at >= _rolling_start(part)
    return window.end_at > budget.created_at


def _rolling_start(part: WindowPart) -> int:
    span = part.budget.terms.rolling_hours * HOUR
    return (part.budget.created_at - span) // BUCKET * BUCKET


def _assignment(part: WindowPart, view: WindowView | None) -> Assignment:
    budget, window, terms = part.budget, part.window, part.budget.terms
    is_rolling = window.end_at is None
    return Assignment(
        budget_id=budget.budget_id,
        limit_id=part.limit_id,
        tenant_id=budget.tenant_id,
        scope={**terms.scope, **dict(part.each)},
        asset=terms.asset,
        amount_units=terms.amount + (view.carried if view else 0),
        from_at=_rolling_start(part) if is_rolling else window.start_at,
        to_at=_FOREVER if window.end_at is None else window.end_at,
        span=terms.rolling_hours * HOUR,
        used_units=view.used if view else 0,
        held_units=view.held if view else 0,
        thresholds=tuple(
            Threshold(f"{one.at.normalize():f}", one.action) for one in terms.thresholds
        ),
        is_soft=terms.kind != "hard",
    )
