"""Showing budgets to people, the same in every answer.

Amounts are decimal text in the asset's main unit, times RFC 3339.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from tallystick.clock import format_time
from tallystick.enforcement.budgets.model import ASSETS, Budget, WindowView
from tallystick.enforcement.budgets.service import Budgets
from tallystick.units import format_amount


def amount_text(units: int, asset: str) -> str:
    """Write an amount of a budget's asset."""
    return format_amount(units, ASSETS[asset])


def show_budget(budget: Budget) -> dict[str, Any]:
    """A budget as it was set."""
    terms = budget.terms
    return {
        "budget_id": budget.budget_id,
        "tenant_id": budget.tenant_id,
        "name": terms.name,
        "scope": dict(terms.scope),
        "asset": terms.asset,
        "amount": amount_text(terms.amount, terms.asset),
        "window": terms.window,
        "rolling_hours": terms.rolling_hours or None,
        "anchor_day": terms.anchor_day,
        "time_zone": terms.time_zone,
        "carry_over_max": amount_text(terms.carry_over_max, terms.asset),
        "enforcement": "hard" if terms.is_hard else "soft",
        "shadow": terms.is_shadow,
        "thresholds": [{"at": _number(one.at), "action": one.action} for one in terms.thresholds],
        "status": budget.status,
        "revision": budget.revision,
        "created_at": format_time(budget.created_at) if budget.created_at else None,
        "changed_at": format_time(budget.changed_at),
        "changed_by": budget.changed_by,
    }


def _number(share: Decimal) -> msgspec.Raw:
    """A share as a JSON number, digit by digit."""
    return msgspec.Raw(f"{share.normalize():f}".encode())


def show_window(view: WindowView, asset: str) -> dict[str, Any]:
    """A window with what was used of it; `percent` is of its capacity."""
    counted = view.used + view.held
    return {
        "limit_id": view.limit_id,
        "each": dict(view.each),
        "starts_at": format_time(view.start_at) if view.end_at is not None else None,
        "resets_at": format_time(view.end_at) if view.end_at is not None else None,
        "capacity": amount_text(view.capacity, asset),
        "carried": amount_text(view.carried, asset),
        "used": amount_text(view.used, asset),
        "held": amount_text(view.held, asset),
        "available": amount_text(view.room, asset),
        "overrun": amount_text(view.overrun, asset),
        "percent": _percent(counted, view.capacity),
        "would_have_blocked": view.let_through,
    }


def _percent(counted: int, capacity: int) -> float:
    if not capacity:
        return 100.0
    return round(counted * 100 / capacity, 2)


def show_decisions(budgets: Budgets, limit_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The windows in which budgets decided, as they are now, by their ids."""
    views = budgets.load_windows(limit_ids)
    found: dict[tuple[str, str], Budget] = {}
    shown = {}
    for limit_id, view in views.items():
        name = (view.tenant_id, view.budget_id)
        budget = found.get(name) or budgets.load(*name, is_any=True)
        found[name] = budget
        shown[limit_id] = {
            "budget_id": budget.budget_id,
            "name": budget.terms.name,
            "asset": budget.terms.asset,
            "enforcement": budget.terms.kind,
            **show_window(view, budget.terms.asset),
        }
    return shown
