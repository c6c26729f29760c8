"""Quotas: what was assigned, spent, held and remains, for one scope and moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tallystick.clock import format_time, from_datetime, to_datetime
from tallystick.enforcement.vault.model import (
    ASSETS,
    Assignment,
    Assignments,
    Spent,
)
from tallystick.enforcement.vault.rules import is_crossed, percent_used, remaining_units
from tallystick.enforcement.vault.store import VaultStore, column_of
from tallystick.units import CREDIT, USD, format_amount


class Quotas:
    """Answers what is spent and what remains, from the vault alone."""

    def __init__(self, store: VaultStore, assignments: Assignments) -> None:
        self._store = store
        self._assignments = assignments

    def report(
        self,
        tenant_id: str,
        scope: Mapping[str, str],
        at: int,
        window: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """Every budget that limits this scope, and what the scope spent in a window.

        Without a window: the month (UTC) of `at`. Raises InvalidInput on an unknown dimension.
        """
        for name in scope:
            column_of(name)
        from_at, to_at = window or month_of(at)
        spent = self._store.load_spent(tenant_id, scope, from_at, to_at)
        assigned = self._assignments.matching(tenant_id, scope, at)
        return {
            "tenant_id": tenant_id,
            "scope": dict(scope),
            "from": format_time(from_at),
            "to": format_time(to_at),
            "spent": spent_json(spent),
            "quotas": [self.quota(one, at) for one in assigned],
        }

    def quota(self, assignment: Assignment, at: int) -> dict[str, Any]:
        """One budget: what it assigns, what is spent, held and remains."""
        asset = ASSETS[assignment.asset]
        from_at, to_at = window_of(assignment, at)
        spent = self._store.load_spent(
            assignment.tenant_id, assignment.scope, from_at, to_at
        ).units(assignment.asset)
        assigned, held = assignment.amount_units, assignment.held_units
        return {
            "budget_id": assignment.budget_id,
            "limit_id": assignment.limit_id,
            "scope": dict(assignment.scope),
            "asset": assignment.asset,
            "from": format_time(from_at),
            "to": format_time(to_at),
            "assigned": format_amount(assigned, asset),
            "spent": format_amount(spent, asset),
            "used": format_amount(assignment.used_units, asset),
            "held": format_amount(held, asset),
            "remaining": format_amount(remaining_units(assigned, spent, held), asset),
            "percent_used": percent_used(assigned, spent),
            "thresholds": [
                {
                    "at": one.at,
                    "action": one.action,
                    "is_crossed": is_crossed(one.at, assigned, spent),
                }
                for one in assignment.thresholds
            ],
        }


def spent_json(spent: Spent) -> dict[str, Any]:
    """What was spent, for JSON: amounts as decimal text."""
    return {
        "cost_usd": format_amount(spent.usd_units, USD),
        "credits_rated": format_amount(spent.credit_units, CREDIT),
        "tokens_input": spent.tokens_input,
        "tokens_output": spent.tokens_output,
        "requests": spent.requests,
        "errors": spent.errors,
        "events": spent.events,
    }


def window_of(assignment: Assignment, at: int) -> tuple[int, int]:
    """From when to when a budget counts what is spent; a rolling window ends with this moment."""
    if assignment.span:
        return at - assignment.span, at
    return assignment.from_at, assignment.to_at


def month_of(at: int) -> tuple[int, int]:
    """The month (UTC) of a moment.

    >>> month_of(0)
    (0, 2678400000000)
    """
    first = to_datetime(at).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = (first + timedelta(days=32)).replace(day=1)
    return from_datetime(first), from_datetime(after)
