"""Explaining: which limits work falls under, what each has left, and which decides.

For people who were refused and want to know why, and for those who set limits and want to
know what they would do. Reads only; figures are of now, not of when work was refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tallystick.clock import format_time
from tallystick.enforcement.budgets.matching import ActiveBudgets, WindowPart
from tallystick.enforcement.budgets.model import LEDGER_ASSETS, WindowView
from tallystick.enforcement.budgets.rules import capacity_of
from tallystick.enforcement.budgets.service import Budgets
from tallystick.enforcement.budgets.showing import amount_text
from tallystick.errors import NotFound
from tallystick.ledger import Ledger, LimitPart
from tallystick.units import CREDIT, format_amount


class Question(msgspec.Struct, frozen=True):
    """Work that someone asks about: `units` by the ledger's assets."""

    account_id: str
    tenant_id: str
    units: Mapping[str, int]
    attribution: Mapping[str, str]
    limits: tuple[LimitPart, ...] = ()
    """Parts of limits that the work names itself: the budget of its run."""


def explain(budgets: Budgets, ledger: Ledger, question: Question, at: int) -> dict[str, Any]:
    """Every limit that the work falls under at a moment, and what would decide on it."""
    owner = budgets.load_tenants([question.account_id]).get(question.account_id, "")
    if not owner or question.tenant_id not in ("", owner):
        raise NotFound("there is no such account; create it with PUT", code="unknown_account")
    active = ActiveBudgets()
    budgets.refresh(active)
    parts = active.match(owner, question.attribution, at)
    views = budgets.load_windows([part.limit_id for part in parts])
    limits = [_credit_limit(ledger, question)]
    limits += [_budget_limit(part, views.get(part.limit_id), question.units) for part in parts]
    limits += _named_limits(ledger, question.limits)
    deciding = [one for one in limits if not one["fits"] and one["enforcement"] == "hard"]
    return {
        "would_be": "declined" if deciding else "held",
        "decided_by": deciding[0]["decided_by"] if deciding else None,
        "limits": limits,
    }


def _credit_limit(ledger: Ledger, question: Question) -> dict[str, Any]:
    balance = ledger.balance(question.account_id)
    asked = question.units[str(CREDIT)]
    limit = balance.overage_limit_units
    room = None if limit is None else max(balance.available + limit, 0)
    return {
        "decided_by": f"account:{question.account_id}",
        "limit_id": "",
        "enforcement": "hard",
        "asset": "CREDIT",
        "asked": format_amount(asked, CREDIT),
        "held": format_amount(balance.held + balance.leased, CREDIT),
        "room": None if room is None else format_amount(room, CREDIT),
        "fits": room is None or asked <= room,
    }


def _named_limits(ledger: Ledger, parts: Sequence[LimitPart]) -> list[dict[str, Any]]:
    asked = {part.limit_id: part.units for part in parts}
    names = {units: asset for asset, units in LEDGER_ASSETS.items()}
    found = ledger.load_limits(list(asked)) if asked else []
    return [
        {
            "decided_by": f"limit:{one.limit_id}",
            "limit_id": one.limit_id,
            "enforcement": one.kind,
            **_figures(names[one.asset], asked[one.limit_id], one.capacity, one.used, one.held),
        }
        for one in found
    ]


def _budget_limit(
    part: WindowPart, view: WindowView | None, units: Mapping[str, int]
) -> dict[str, Any]:
    terms = part.budget.terms
    capacity = view.capacity if view else capacity_of(terms, 0)
    used, held = (view.used, view.held) if view else (0, 0)
    end_at = part.window.end_at
    return {
        "decided_by": f"budget:{part.budget.budget_id}",
        "limit_id": part.limit_id,
        "enforcement": terms.kind,
        "name": terms.name,
        "scope": dict(terms.scope),
        "each": dict(part.each),
        "starts_at": format_time(part.window.start_at) if end_at is not None else None,
        "resets_at": format_time(end_at) if end_at is not None else None,
        **_figures(terms.asset, units[part.asset], capacity, used, held),
    }


def _figures(asset: str, asked: int, capacity: int, used: int, held: int) -> dict[str, Any]:
    room = max(capacity - used - held, 0)
    return {
        "asset": asset,
        "asked": amount_text(asked, asset),
        "capacity": amount_text(capacity, asset),
        "used": amount_text(used, asset),
        "held": amount_text(held, asset),
        "room": amount_text(room, asset),
        "fits": max(asked, 1) <= room,
    }
