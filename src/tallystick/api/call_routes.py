"""Routes of calls: authorize, top up, settle, cancel; budgets of runs; insights.

For callers that go to a provider themselves (the SDK, other gateways). An authorization is
a hold of the ledger; any process can settle it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import (
    credits_text,
    idempotency_key,
    principal_of,
    read_json,
    read_limit,
    read_range,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.bounds import ID_LENGTH_MAX
from tallystick.clock import format_time
from tallystick.enforcement.calls import CallAsk, CallPermit, CallReceipt, RunBudget, Usage
from tallystick.errors import InvalidInput
from tallystick.units import CREDIT, USD, format_amount, parse_amount

_ASSETS = {"CREDIT": CREDIT, "USD": USD}


class AuthorizationBody(msgspec.Struct):
    """Body of POST /v1/authorizations."""

    provider: str
    model: str
    tokens_input: int
    tokens_output_max: int | None = None
    answers: int = 1
    has_cache_write: bool = False
    has_audio: bool = False
    service_tier: str = ""
    is_batch: bool = False
    tools: dict[str, int] = {}
    account_id: str = ""
    run_id: str = ""
    parent_run_id: str = ""
    root_run_id: str = ""
    attempt: int = 1
    request_id: str = ""
    attribution: dict[str, str] = {}
    ttl_seconds: int = 300
    idempotency_key: str = ""


class UsageBody(msgspec.Struct):
    """What a call used; `tokens_input` includes cached tokens, `tokens_output` reasoning."""

    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cache_read: int = 0
    tokens_cache_write_5m: int = 0
    tokens_cache_write_1h: int = 0
    tokens_reasoning: int = 0
    tokens_input_audio: int = 0
    tokens_output_audio: int = 0
    tools: dict[str, int] = {}
    service_tier: str | None = None
    quality: str = "exact"


class SettleBody(msgspec.Struct):
    """Body of POST /v1/authorizations/{authorization_id}/settle."""

    usage: UsageBody
    outcome: str = "completed"
    error_code: str = ""
    latency_ms: float | None = None
    provider_request_id: str = ""
    served_model: str = ""
    idempotency_key: str = ""


class CancelBody(msgspec.Struct):
    """Body of POST /v1/authorizations/{authorization_id}/cancel."""

    reason: str = ""
    idempotency_key: str = ""


class TopUpBody(msgspec.Struct):
    """Body of POST /v1/authorizations/{authorization_id}/extend."""

    tokens_output: int
    ttl_seconds: int = 300
    idempotency_key: str = ""


class RunBudgetBody(msgspec.Struct):
    """Body of POST /v1/run-budgets."""

    run_id: str
    amount: str
    asset: str = "USD"
    tenant_id: str = ""
    idempotency_key: str = ""


async def post_authorization(services: Services, request: Request) -> Response:
    """Set aside the most that a call may cost, or decline with 402 or 429."""
    body = await read_json(request, AuthorizationBody)
    key = idempotency_key(request, body.idempotency_key)
    if not key:
        raise InvalidInput(
            "send an Idempotency-Key header or idempotency_key",
            code="key_missing",
            field="idempotency_key",
        )
    said = msgspec.structs.asdict(body)
    if not body.request_id and (len(key) > ID_LENGTH_MAX or not key.isprintable()):
        raise InvalidInput(
            f"idempotency_key may have {ID_LENGTH_MAX} printable characters: it is the request_id "
            "of a call that names none",
            field="idempotency_key",
        )
    said["idempotency_key"] = key
    said["request_id"] = body.request_id or key
    permit = await services.calls.authorize(CallAsk(principal=principal_of(request), **said))
    return respond(permit_json(permit), 201)


async def post_settle(services: Services, request: Request) -> Response:
    """Charge what a call used, and count it."""
    body = await read_json(request, SettleBody)
    receipt = await services.calls.settle(
        await _permit(services, request),
        Usage(**msgspec.structs.asdict(body.usage)),
        outcome=body.outcome,
        error_code=body.error_code,
        latency_ms=body.latency_ms,
        provider_request_id=body.provider_request_id,
        served_model=body.served_model,
    )
    return respond(receipt_json(receipt))


async def post_cancel(services: Services, request: Request) -> Response:
    """Free what was set aside: the call was not made."""
    body = await read_json(request, CancelBody, allow_empty=True)
    permit = await _permit(services, request)
    await services.calls.cancel(permit, reason=body.reason)
    return respond({"authorization_id": permit.hold_id, "status": "cancelled"})


async def post_extend(services: Services, request: Request) -> Response:
    """Set more aside for an answer that grows longer."""
    body = await read_json(request, TopUpBody)
    permit = await services.calls.top_up(
        await _permit(services, request),
        tokens_output=body.tokens_output,
        ttl_seconds=body.ttl_seconds,
    )
    return respond(permit_json(permit))


async def list_authorizations(services: Services, request: Request) -> Response:
    """Calls under way, and those of which nobody knows how they ended."""
    query = request.query_params
    status = query.get("status", "")
    if status not in ("", "held", "unknown"):
        raise InvalidInput("status is held or unknown", field="status")
    tenant_id = tenant_of(request, query.get("tenant_id", ""))
    limit = min(read_limit(query, 100), 1000)
    found = await asyncio.to_thread(services.calls.list_open, tenant_id, status, limit)
    return respond(
        {
            "authorizations": [
                {
                    "authorization_id": one.hold_id,
                    "tenant_id": one.tenant_id,
                    "account_id": one.account_id,
                    "run_id": one.run_id,
                    "status": one.status,
                    "credits": credits_text(one.units),
                    "due_at": format_time(one.due_at),
                }
                for one in found
            ]
        }
    )


async def post_run_budget(services: Services, request: Request) -> Response:
    """Give a root run a budget that all runs below it draw from."""
    body = await read_json(request, RunBudgetBody)
    asset = _ASSETS.get(body.asset)
    if asset is None:
        raise InvalidInput("asset is CREDIT or USD", field="asset")
    budget = await services.calls.run_budgets.put(
        _tenant(request, body.tenant_id),
        body.run_id,
        asset=str(asset),
        amount_units=parse_amount(body.amount, asset),
    )
    return respond(run_budget_json(budget), 201)


async def get_run_budget(services: Services, request: Request) -> Response:
    """A run's budget and what is left of it."""
    tenant_id = _tenant(request, request.query_params.get("tenant_id", ""))
    budget = await services.calls.run_budgets.load(tenant_id, request.path_params["run_id"])
    return respond(run_budget_json(budget))


async def get_cache_insights(services: Services, request: Request) -> Response:
    """How prompt caching pays: hit rate, what was written and never read, break-even."""
    query = dict(request.query_params)
    from_at, to_at = read_range(query, services.clock.now())
    rows = await services.calls.insights.cache(
        tenant_of(request, query.get("tenant_id", "")), from_at, to_at, query.get("by", "feature")
    )
    return respond({"from": format_time(from_at), "to": format_time(to_at), "rows": rows})


async def get_hold_insights(services: Services, request: Request) -> Response:
    """How much calls hold for what they cost, by model."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    return respond({"rows": await services.calls.insights.holds(tenant_id)})


def _tenant(request: Request, asked: str) -> str:
    tenant_id = tenant_of(request, asked)
    if not tenant_id:
        raise InvalidInput("name the tenant", field="tenant_id")
    return tenant_id


async def _permit(services: Services, request: Request) -> CallPermit:
    return await services.calls.permit(
        request.path_params["authorization_id"], principal_of(request)
    )


def permit_json(permit: CallPermit) -> dict[str, Any]:
    """Show a permit."""
    return {
        "authorization_id": permit.hold_id,
        "hold_id": permit.hold_id,
        "status": "held",
        "account_id": permit.account_id,
        "run_id": permit.run_id,
        "request_id": permit.request_id,
        "credits": credits_text(permit.credit_units),
        "cost_usd_max": format_amount(permit.usd_units, USD),
        "tokens_output_max": permit.tokens_output,
        "available": credits_text(permit.available_units),
        "expires_at": format_time(permit.expires_at),
    }


def receipt_json(receipt: CallReceipt) -> dict[str, Any]:
    """Show what became of a call."""
    return {
        "authorization_id": receipt.hold_id,
        "status": "settled",
        "event_id": receipt.event_id,
        "cost_usd": format_amount(receipt.cost_usd_units, USD),
        "cost_quality": receipt.cost_quality,
        "credits": credits_text(receipt.credit_units),
        "charged": credits_text(receipt.charged_units),
        "shortfall": credits_text(receipt.shortfall_units),
        "available": credits_text(receipt.available_units),
    }


def run_budget_json(budget: RunBudget) -> dict[str, Any]:
    """Show a run's budget."""
    asset = CREDIT if budget.asset == str(CREDIT) else USD
    return {
        "run_id": budget.run_id,
        "tenant_id": budget.tenant_id,
        "limit_id": budget.limit_id,
        "asset": asset.name,
        "amount": format_amount(budget.amount_units, asset),
        "remaining": format_amount(budget.remaining_units, asset),
    }


_PERMIT = {
    "authorization_id": "0190…",
    "hold_id": "0190…",
    "status": "held",
    "credits": "0.9",
    "cost_usd_max": "0.0075",
    "available": "87.5",
    "expires_at": "2026-11-20T09:35:00Z",
}
_BUDGET = {"run_id": "run-42", "asset": "USD", "amount": "2.5", "remaining": "2.31"}
_KEY = {"idempotency_key": "call-1001"}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/authorizations",
        post_authorization,
        "Set aside the most that a model call may cost, over credit and every limit",
        _PERMIT,
        201,
        AuthorizationBody,
        {
            "provider": "openai",
            "model": "gpt-4o",
            "tokens_input": 1000,
            "tokens_output_max": 500,
            "attribution": {"feature": "support-chat"},
            **_KEY,
        },
        needs="holds:write",
    ),
    RouteEntry(
        "GET",
        "/v1/authorizations",
        list_authorizations,
        "Calls under way; status=unknown: those of which nobody knows how they ended",
        {"authorizations": [{"authorization_id": "0190…", "status": "held"}]},
        query=("tenant_id", "status", "limit"),
        needs="ledger:read",
    ),
    RouteEntry(
        "POST",
        "/v1/authorizations/{authorization_id}/settle",
        post_settle,
        "Charge what the call used, free the rest, and count it; once",
        {
            "event_id": "call:0190…",
            "cost_usd": "0.00275",
            "credits": "0.33",
            "charged": "0.33",
            "available": "88.07",
        },
        200,
        SettleBody,
        {"usage": {"tokens_input": 900, "tokens_output": 100}, **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/authorizations/{authorization_id}/cancel",
        post_cancel,
        "Free what was set aside: the call was not made, or cost nothing",
        {"authorization_id": "0190…", "status": "cancelled"},
        200,
        CancelBody,
        {"reason": "the provider refused", **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/authorizations/{authorization_id}/extend",
        post_extend,
        "Set more aside for an answer that grows beyond its hold",
        _PERMIT,
        200,
        TopUpBody,
        {"tokens_output": 2000, **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/run-budgets",
        post_run_budget,
        "Give a root run a budget that every run below it draws from, or change its amount",
        _BUDGET,
        201,
        RunBudgetBody,
        {"run_id": "run-42", "amount": "2.5", "asset": "USD", "tenant_id": "acme"},
        needs="holds:write",
    ),
    RouteEntry(
        "GET",
        "/v1/run-budgets/{run_id}",
        get_run_budget,
        "A run's budget and what is left of it",
        _BUDGET,
        query=("tenant_id",),
        needs="ledger:read",
    ),
    RouteEntry(
        "GET",
        "/v1/insights/cache",
        get_cache_insights,
        "Prompt caching by model and key or feature: hit rate, waste, break-even",
        {"rows": [{"model": "claude-sonnet-4-5", "hit_rate": 0.62, "saved_usd": "1.2"}]},
        query=("from", "to", "tenant_id", "by"),
        needs="usage:read",
    ),
    RouteEntry(
        "GET",
        "/v1/insights/holds",
        get_hold_insights,
        "What calls hold for what they cost, by model",
        {"rows": [{"model": "gpt-4o", "calls": 120, "hold_ratio": 3.1}]},
        query=("tenant_id",),
        needs="ledger:read",
    ),
)
"""Entries of the table of routes."""
