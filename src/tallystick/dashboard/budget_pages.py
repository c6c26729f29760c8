"""The page of budgets: each with its windows under way, what is used, held and left of them.

It only reads. Budgets are set by `tallystick budget set` or `PUT /v1/budgets/{id}`, which keep
who did it; the bars are drawn with attributes, for the page allows no style of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from tallystick.api.requests import principal_of, tenant_of
from tallystick.api.services import Services
from tallystick.enforcement.budgets import Budget
from tallystick.enforcement.budgets.model import WindowView
from tallystick.enforcement.budgets.showing import amount_text, show_budget, show_window
from tallystick.errors import Forbidden

_BUDGETS_SHOWN = 25
_WINDOWS_SHOWN = 12
"""Of each budget: with one for each user there may be thousands, those used most come first."""


async def list_content(services: Services, request: Request) -> dict[str, Any]:
    """What the page shows: a page of budgets in order of id."""
    if not principal_of(request).may("budgets:read"):
        raise Forbidden("this needs the permission budgets:read")
    asked = request.query_params.get("tenant_id", "")
    cursor = request.query_params.get("cursor", "")
    return await asyncio.to_thread(_gather, services, tenant_of(request, asked), cursor)


def _gather(services: Services, tenant_id: str, cursor: str) -> dict[str, Any]:
    after_tenant, _, after_budget = cursor.rpartition("/")
    after = (after_tenant, after_budget)
    found = services.budgets.list_all(tenant_id, after, _BUDGETS_SHOWN + 1)
    page = found[:_BUDGETS_SHOWN]
    now = services.clock.now()
    last = page[-1] if len(found) > _BUDGETS_SHOWN else None
    return {
        "tenant_id": tenant_id,
        "budgets": [_shown(services, budget, now) for budget in page],
        "next_cursor": f"{last.tenant_id}/{last.budget_id}" if last else "",
    }


def _shown(services: Services, budget: Budget, now: int) -> dict[str, Any]:
    views = services.budgets.windows(budget.tenant_id, budget.budget_id, _WINDOWS_SHOWN)
    current = [view for view in views if view.end_at is None or view.end_at > now]
    return {
        **show_budget(budget),
        "scope": _words_of(budget.terms.scope) or "the whole tenant",
        "windows": [_window(view, budget.terms.asset) for view in current],
    }


def _window(view: WindowView, asset: str) -> dict[str, Any]:
    used = min(share_of(view.used, view.capacity), 100)
    return {
        **show_window(view, asset),
        "who": _words_of(view.each),
        "used_share": used,
        "held_share": min(share_of(view.held, view.capacity), 100 - used),
        "left": amount_text(view.room, asset),
    }


def share_of(units: int, capacity: int) -> float:
    """How many percent of a capacity: all of it when there is none.

    >>> share_of(1, 8), share_of(0, 0)
    (12.5, 100.0)
    """
    return round(units * 100 / capacity, 2) if capacity else 100.0


def _words_of(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in pairs.items())
