"""Routes of quotas: what was assigned, spent, held and remains."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import read_json, read_moment, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.clock import DAY
from tallystick.enforcement.vault.model import DIMENSIONS
from tallystick.enforcement.vault.service import month_of
from tallystick.errors import InvalidInput

_OTHERS = {"tenant_id", "from", "to"}
_ALIASES = {"user_id": "user", "project_id": "project", "key_id": "key"}


class QuotaReconciliationBody(msgspec.Struct):
    """Body of POST /v1/reconciliations/quotas."""

    tenant_id: str = ""
    from_: str = msgspec.field(name="from", default="")
    to: str = ""


async def get_quotas(services: Services, request: Request) -> Response:
    """Quotas of a tenant, or of a scope in it."""
    parameters = dict(request.query_params)
    tenant_id = tenant_of(request, parameters.get("tenant_id", ""))
    if not tenant_id:
        raise InvalidInput("tenant_id is missing", code="missing_field", field="tenant_id")
    scope = scope_of(parameters)
    now = services.clock.now()
    window = None
    if "from" in parameters or "to" in parameters:
        month = month_of(now)
        window = (
            read_moment(parameters["from"], "from") if "from" in parameters else month[0],
            read_moment(parameters["to"], "to") if "to" in parameters else month[1],
        )
        if window[0] >= window[1]:
            raise InvalidInput("from must be before to", code="empty_range", field="from")
    return respond(await asyncio.to_thread(services.quotas.report, tenant_id, scope, now, window))


def scope_of(parameters: dict[str, str]) -> dict[str, str]:
    """The scope that query parameters name."""
    scope = {}
    for given, value in parameters.items():
        if given in _OTHERS:
            continue
        name = _ALIASES.get(given, given)
        if name not in DIMENSIONS:
            raise InvalidInput(
                f"unknown parameter {given[:40]!r}; known: {', '.join((*_OTHERS, *DIMENSIONS))}",
                code="unknown_parameter",
                field=given[:40],
            )
        scope[name] = value
    return scope


async def post_quota_reconciliation(services: Services, request: Request) -> Response:
    """Compare what the vault counted with analytics."""
    body = await read_json(request, QuotaReconciliationBody, allow_empty=True)
    tenant_id = tenant_of(request, body.tenant_id)
    return respond(await ask_facts(quota_report, services, tenant_id, body.from_, body.to))


def quota_report(
    services: Services, tenant_id: str, from_text: str, to_text: str
) -> dict[str, Any]:
    """Where the vault and analytics differ; by default over all time."""
    to_at = read_moment(to_text, "to") if to_text else services.clock.now() + DAY
    from_at = read_moment(from_text, "from") if from_text else 0
    if from_at >= to_at:
        raise InvalidInput("from must be before to", code="empty_range", field="from")
    return services.quota_reconciler.report(from_at, to_at, tenant_id)


ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/quotas",
        get_quotas,
        "Assigned, spent, held and remaining, for a tenant or a scope in it",
        {
            "tenant_id": "acme",
            "scope": {"user": "u-1"},
            "from": "2026-11-01T00:00:00.000000Z",
            "to": "2026-12-01T00:00:00.000000Z",
            "spent": {"cost_usd": "12.25", "requests": 420},
            "quotas": [
                {
                    "budget_id": "b-1",
                    "asset": "USD",
                    "assigned": "50",
                    "spent": "12.25",
                    "held": "0.5",
                    "remaining": "37.25",
                    "percent_used": "24.50",
                    "thresholds": [{"at": "0.8", "action": "alert", "is_crossed": False}],
                }
            ],
        },
        query=("tenant_id", "from", "to", *DIMENSIONS, *_ALIASES),
        needs="budgets:read",
    ),
    RouteEntry(
        "POST",
        "/v1/reconciliations/quotas",
        post_quota_reconciliation,
        "Compare what the vault counted with analytics, to the nano-dollar",
        {
            "agrees": True,
            "is_settled": True,
            "compared": 124,
            "vault_usd": "18.442",
            "analytics_usd": "18.442",
            "differing": 0,
            "differences": [],
        },
        body=QuotaReconciliationBody,
        body_example={"tenant_id": "acme"},
        needs="operations:read",
    ),
)
