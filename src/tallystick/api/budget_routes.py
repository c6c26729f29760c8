"""Routes of budgets: set, change, show, watch and end them; why work is or was refused."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import read_json, read_limit, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.enforcement.attribution import attributed
from tallystick.enforcement.budgets import Budget, BudgetTerms, Threshold
from tallystick.enforcement.budgets.explaining import Question, explain
from tallystick.enforcement.budgets.model import ASSETS
from tallystick.enforcement.budgets.showing import show_budget, show_window
from tallystick.enforcement.refusals import explain_refusal
from tallystick.errors import InvalidInput, NotFound
from tallystick.ids import Uuid7Source
from tallystick.units import CREDIT, USD, parse_amount


class ThresholdBody(msgspec.Struct):
    """A threshold: a share of the amount, and what happens there."""

    at: Decimal
    action: str = "alert"


class BudgetBody(msgspec.Struct):
    """Body of PUT /v1/budgets/{budget_id} and POST /v1/budgets: all terms of a budget."""

    asset: str
    amount: str
    budget_id: str = ""
    tenant_id: str = ""
    name: str = ""
    scope: dict[str, str] = {}
    window: str = "month"
    rolling_hours: int | None = None
    anchor_day: int = 1
    time_zone: str = "UTC"
    carry_over_max: str = "0"
    enforcement: str = "hard"
    shadow: bool = False
    thresholds: list[ThresholdBody] = []
    status: str = "active"
    revision: int | None = None


class BudgetChange(msgspec.Struct):
    """Body of PATCH /v1/budgets/{budget_id}: what is left out stays."""

    tenant_id: str = ""
    name: str | None = None
    amount: str | None = None
    carry_over_max: str | None = None
    enforcement: str | None = None
    shadow: bool | None = None
    thresholds: list[ThresholdBody] | None = None
    status: str | None = None
    revision: int | None = None


class ExplainBody(msgspec.Struct):
    """Body of POST /v1/budgets:explain: work as POST /v1/holds would be asked for it."""

    account_id: str
    amount: str = "0"
    cost_usd: str | None = None
    tokens: int | None = None
    attribution: dict[str, str] = {}


async def put_budget(services: Services, request: Request) -> Response:
    """Set a budget; repeating it changes nothing."""
    body = await read_json(request, BudgetBody)
    return await _put(services, request, request.path_params["budget_id"], body, 200)


async def post_budget(services: Services, request: Request) -> Response:
    """Make a budget under an id of ours, or the one that the body gives."""
    body = await read_json(request, BudgetBody)
    budget_id = body.budget_id or Uuid7Source(services.clock).next_id()
    if body.revision is None:
        body.revision = 0
    return await _put(services, request, budget_id, body, 201)


async def _put(
    services: Services, request: Request, budget_id: str, body: BudgetBody, status: int
) -> Response:
    budget = await asyncio.to_thread(
        services.budgets.put,
        _tenant(request, body.tenant_id),
        budget_id,
        _terms_of(body),
        changed_by=request.state.principal.subject,
        status=_status_of(body.status),
        revision=_revision_of(request, body.revision),
    )
    return _answer(services, budget, status)


async def patch_budget(services: Services, request: Request) -> Response:
    """Change some terms of a budget."""
    body = await read_json(request, BudgetChange)
    tenant_id = _tenant(request, body.tenant_id)
    budget_id = request.path_params["budget_id"]
    found = await asyncio.to_thread(services.budgets.load, tenant_id, budget_id)
    said = _revision_of(request, body.revision)
    budget = await asyncio.to_thread(
        services.budgets.put,
        tenant_id,
        budget_id,
        _changed(found.terms, body),
        changed_by=request.state.principal.subject,
        status=found.status if body.status is None else _status_of(body.status),
        revision=found.revision if said is None else said,
    )
    return _answer(services, budget, 200)


async def delete_budget(services: Services, request: Request) -> Response:
    """End a budget; its windows and history stay."""
    budget = await asyncio.to_thread(
        services.budgets.delete,
        _tenant(request),
        request.path_params["budget_id"],
        changed_by=request.state.principal.subject,
        revision=_revision_of(request, None),
    )
    return _answer(services, budget, 200)


async def get_budget(services: Services, request: Request) -> Response:
    """Show a budget with its revisions."""
    tenant_id, budget_id = _tenant(request), request.path_params["budget_id"]
    budget = await asyncio.to_thread(services.budgets.load, tenant_id, budget_id)
    revisions = await asyncio.to_thread(services.budgets.revisions, tenant_id, budget_id)
    shown = show_budget(budget)
    shown["revisions"] = [show_budget(one) for one in revisions]
    response = respond(shown)
    response.headers["ETag"] = f'"{budget.revision}"'
    return response


async def list_budgets(services: Services, request: Request) -> Response:
    """Budgets of a tenant, in order of id."""
    query = request.query_params
    tenant_id = tenant_of(request, query.get("tenant_id", ""))
    after_tenant, _, after_budget = query.get("cursor", "").rpartition("/")
    limit = min(max(read_limit(query, 100), 1), 1000)
    found = await asyncio.to_thread(
        services.budgets.list_all, tenant_id, (after_tenant, after_budget), limit + 1
    )
    page = found[:limit]
    cursor = f"{page[-1].tenant_id}/{page[-1].budget_id}" if len(found) > limit else None
    return respond({"budgets": [show_budget(one) for one in page], "next_cursor": cursor})


async def get_windows(services: Services, request: Request) -> Response:
    """Windows of a budget, newest first, with what was used and is held."""
    tenant_id, budget_id = _tenant(request), request.path_params["budget_id"]
    budget = await asyncio.to_thread(services.budgets.load, tenant_id, budget_id, is_any=True)
    limit = min(max(read_limit(request.query_params, 100), 1), 1000)
    windows = await asyncio.to_thread(services.budgets.windows, tenant_id, budget_id, limit)
    return respond(
        {
            "budget_id": budget_id,
            "asset": budget.terms.asset,
            "windows": [show_window(one, budget.terms.asset) for one in windows],
        }
    )


async def post_explain(services: Services, request: Request) -> Response:
    """What would decide on work now: every limit that it falls under."""
    body = await read_json(request, ExplainBody)
    principal = request.state.principal
    question = Question(
        account_id=body.account_id,
        tenant_id=principal.tenant_id,
        units={
            str(CREDIT): parse_amount(body.amount, CREDIT),
            str(USD): parse_amount(body.cost_usd or "0", USD, field="cost_usd"),
            "tokens": body.tokens or 0,
            "requests": 1,
        },
        attribution={**body.attribution, **attributed(body.attribution, principal)},
    )
    return respond(
        await asyncio.to_thread(
            explain, services.budgets, services.ledger, question, services.clock.now()
        )
    )


async def get_refusal(services: Services, request: Request) -> Response:
    """Why an operation was declined: every limit that it fell under, as it is now."""
    answer = await asyncio.to_thread(
        explain_refusal,
        services.budgets,
        services.ledger,
        request.path_params["operation_id"],
        request.state.principal.tenant_id,
    )
    if answer is None:
        raise NotFound("there is no such refusal", code="unknown_refusal")
    return respond(answer)


def _answer(services: Services, budget: Budget, status: int) -> Response:
    services.enforcing.forget()
    response = respond(show_budget(budget), status)
    response.headers["ETag"] = f'"{budget.revision}"'
    return response


def _tenant(request: Request, in_body: str = "") -> str:
    tenant_id = tenant_of(request, in_body or request.query_params.get("tenant_id", ""))
    if not tenant_id:
        raise InvalidInput("tenant_id says whose budget it is", field="tenant_id")
    return tenant_id


def _revision_of(request: Request, in_body: int | None) -> int | None:
    """The revision that the caller saw: If-Match, or the body's, or none."""
    text = request.headers.get("if-match", "").strip().strip('"')
    if not text or text == "*":
        return in_body
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput("If-Match is a budget's ETag", field="revision")
    return int(text)


def _status_of(status: str) -> str:
    if status not in ("active", "paused"):
        raise InvalidInput("status must be active or paused", field="status")
    return status


def _terms_of(body: BudgetBody) -> BudgetTerms:
    return BudgetTerms(
        name=body.name,
        scope=body.scope,
        asset=body.asset,
        amount=_amount(body.amount, body.asset, "amount"),
        window=body.window,
        rolling_hours=body.rolling_hours or 0,
        anchor_day=body.anchor_day,
        time_zone=body.time_zone,
        carry_over_max=_amount(body.carry_over_max, body.asset, "carry_over_max"),
        is_hard=_is_hard(body.enforcement),
        is_shadow=body.shadow,
        thresholds=_thresholds(body.thresholds),
    )


def _changed(terms: BudgetTerms, body: BudgetChange) -> BudgetTerms:
    changes: dict[str, Any] = {}
    if body.name is not None:
        changes["name"] = body.name
    if body.amount is not None:
        changes["amount"] = _amount(body.amount, terms.asset, "amount")
    if body.carry_over_max is not None:
        changes["carry_over_max"] = _amount(body.carry_over_max, terms.asset, "carry_over_max")
    if body.enforcement is not None:
        changes["is_hard"] = _is_hard(body.enforcement)
    if body.shadow is not None:
        changes["is_shadow"] = body.shadow
    if body.thresholds is not None:
        changes["thresholds"] = _thresholds(body.thresholds)
    return msgspec.structs.replace(terms, **changes)


def _amount(text: str, asset: str, field: str) -> int:
    if asset not in ASSETS:
        raise InvalidInput(f"asset must be one of {', '.join(ASSETS)}", field="asset")
    return parse_amount(text, ASSETS[asset], field=field)


def _is_hard(enforcement: str) -> bool:
    if enforcement not in ("hard", "soft"):
        raise InvalidInput("enforcement must be hard or soft", field="enforcement")
    return enforcement == "hard"


def _thresholds(bodies: list[ThresholdBody]) -> tuple[Threshold, ...]:
    return tuple(Threshold(one.at.normalize(), one.action) for one in bodies)


_BUDGET = {
    "budget_id": "search-monthly",
    "tenant_id": "acme",
    "scope": {"team": "search"},
    "asset": "USD",
    "amount": "500",
    "window": "month",
    "enforcement": "hard",
    "thresholds": [{"at": 0.8, "action": "alert"}],
    "status": "active",
    "revision": 1,
}
_WINDOW = {
    "limit_id": "budget:acme/search-monthly/1793491200",
    "resets_at": "2026-12-01T00:00:00.000000Z",
    "capacity": "500",
    "used": "420.5",
    "held": "1.2",
    "available": "78.3",
    "percent": 84.34,
}
_LIMIT = {"decided_by": "budget:search-monthly", "room": "78.3", "asked": "90", "fits": False}
_TERMS = {
    "tenant_id": "acme",
    "scope": {"team": "search"},
    "asset": "USD",
    "amount": "500",
    "window": "month",
    "thresholds": [{"at": 0.8, "action": "alert"}],
}

ROUTES = (
    RouteEntry(
        "POST",
        "/v1/budgets",
        post_budget,
        "Make a budget",
        _BUDGET,
        201,
        BudgetBody,
        _TERMS,
        needs="budgets:write",
    ),
    RouteEntry(
        "GET",
        "/v1/budgets",
        list_budgets,
        "Budgets of a tenant",
        {"budgets": [_BUDGET], "next_cursor": None},
        query=("tenant_id", "cursor", "limit"),
        needs="budgets:read",
    ),
    RouteEntry(
        "POST",
        "/v1/budgets:explain",
        post_explain,
        "What would decide on work now: every limit that it falls under",
        {"would_be": "declined", "decided_by": "budget:search-monthly", "limits": [_LIMIT]},
        body=ExplainBody,
        body_example={"account_id": "acme", "cost_usd": "90", "attribution": {"team": "search"}},
        needs="budgets:read",
    ),
    RouteEntry(
        "PUT",
        "/v1/budgets/{budget_id}",
        put_budget,
        "Set a budget: all its terms; If-Match or revision guards against lost edits",
        _BUDGET,
        body=BudgetBody,
        body_example=_TERMS,
        needs="budgets:write",
    ),
    RouteEntry(
        "GET",
        "/v1/budgets/{budget_id}",
        get_budget,
        "A budget and its revisions",
        {**_BUDGET, "revisions": [_BUDGET]},
        query=("tenant_id",),
        needs="budgets:read",
    ),
    RouteEntry(
        "PATCH",
        "/v1/budgets/{budget_id}",
        patch_budget,
        "Change some terms of a budget; windows under way change at once",
        _BUDGET,
        body=BudgetChange,
        body_example={"amount": "750", "tenant_id": "acme"},
        needs="budgets:write",
    ),
    RouteEntry(
        "DELETE",
        "/v1/budgets/{budget_id}",
        delete_budget,
        "End a budget; its history stays",
        {**_BUDGET, "status": "deleted"},
        query=("tenant_id",),
        needs="budgets:write",
    ),
    RouteEntry(
        "GET",
        "/v1/budgets/{budget_id}/windows",
        get_windows,
        "Windows of a budget: used, held, capacity, overrun, percent, when it resets",
        {"budget_id": "search-monthly", "asset": "USD", "windows": [_WINDOW]},
        query=("tenant_id", "limit"),
        needs="budgets:read",
    ),
    RouteEntry(
        "GET",
        "/v1/refusals/{operation_id}",
        get_refusal,
        "Why work was refused: every limit that it fell under",
        {"operation_id": "0190…", "decided_by": "budget:search-monthly", "limits": [_LIMIT]},
        needs="budgets:read",
    ),
)
