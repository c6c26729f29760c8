"""Routes of mitigations: put a step in force, look, undo; and the policies of the ladder."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import idempotency_key, read_json, read_limit, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.enforcement.overrun.model import Mitigation, Policy, Rung, Severity, Step
from tallystick.errors import InvalidInput

ALL_TENANTS = "*"


class MitigationBody(msgspec.Struct):
    """Body of POST /v1/mitigations; the operator names a tenant, or "*" for every tenant."""

    step: str
    reason: str
    ttl_seconds: int
    scope: dict[str, str] = {}
    per_minute: int = 60
    downgrade_to: str = ""
    tenant_id: str = ""
    idempotency_key: str = ""


class UndoBody(msgspec.Struct):
    """Body of DELETE /v1/mitigations/{mitigation_id}; may be empty."""

    reason: str = "undone by hand"


class RungBody(msgspec.Struct):
    """One step of a policy."""

    step: str
    severity: str = "critical"
    after_seconds: int = 0
    ttl_seconds: int = 3600
    per_minute: int = 60
    downgrade_to: str = ""


class PolicyBody(msgspec.Struct):
    """Body of PUT /v1/mitigation-policies."""

    steps: list[RungBody]
    scope: dict[str, str] = {}
    tenant_id: str = ""


async def post_mitigation(services: Services, request: Request) -> Response:
    """Put a step in force."""
    body = await read_json(request, MitigationBody)
    rung = Rung(
        step=_one_of(Step, body.step, "step"),
        ttl_seconds=body.ttl_seconds,
        per_minute=body.per_minute,
        downgrade_to=body.downgrade_to,
    )
    made = await asyncio.to_thread(
        services.overruns.mitigations.apply,
        tenant_named(request, body.tenant_id, may_be_all=True),
        body.scope,
        rung,
        body.reason,
        request.state.principal.subject,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return respond(mitigation_json(made), 201)


async def list_mitigations(services: Services, request: Request) -> Response:
    """The newest mitigations; with active=true those in force."""
    query = request.query_params
    found = await asyncio.to_thread(
        services.overruns.mitigations.newest,
        tenant_of(request, query.get("tenant_id", "")),
        is_active=query.get("active") == "true",
        limit=read_limit(query, 50),
    )
    return respond({"mitigations": [mitigation_json(one) for one in found]})


async def get_mitigation(services: Services, request: Request) -> Response:
    """One mitigation and its audit trail."""
    found, events = await asyncio.to_thread(
        services.overruns.mitigations.get, tenant_of(request), request.path_params["mitigation_id"]
    )
    shown = [
        {
            "kind": event.kind,
            "reason": event.reason,
            "at": format_time(event.acted_at),
            "by": event.acted_by,
        }
        for event in events
    ]
    return respond({**mitigation_json(found), "events": shown})


async def delete_mitigation(services: Services, request: Request) -> Response:
    """Undo a step."""
    body = await read_json(request, UndoBody, allow_empty=True)
    ended = await asyncio.to_thread(
        services.overruns.mitigations.undo,
        tenant_of(request),
        request.path_params["mitigation_id"],
        body.reason,
        request.state.principal.subject,
    )
    return respond(mitigation_json(ended))


async def put_policy(services: Services, request: Request) -> Response:
    """Set which steps follow by themselves."""
    body = await read_json(request, PolicyBody)
    if len(body.scope) > 1:
        raise InvalidInput("a policy is for one dimension, or for all", field="scope")
    dimension, value = next(iter(body.scope.items()), ("", ""))
    steps = tuple(
        Rung(
            step=_one_of(Step, rung.step, "step"),
            severity=_one_of(Severity, rung.severity, "severity"),
            after_seconds=rung.after_seconds,
            ttl_seconds=rung.ttl_seconds,
            per_minute=rung.per_minute,
            downgrade_to=rung.downgrade_to,
        )
        for rung in body.steps
    )
    policy = Policy(
        tenant_id=tenant_named(request, body.tenant_id),
        dimension=dimension,
        value="" if value == "*" else value,
        steps=steps,
    )
    by = request.state.principal.subject
    saved = await asyncio.to_thread(services.overruns.mitigations.put_policy, policy, by)
    return respond(msgspec.to_builtins(saved))


async def list_policies(services: Services, request: Request) -> Response:
    """Which steps follow by themselves."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    found = await asyncio.to_thread(services.overruns.mitigations.policies, tenant_id)
    return respond({"policies": msgspec.to_builtins(found)})


def mitigation_json(one: Mitigation) -> dict[str, Any]:
    """Show a mitigation."""
    return {
        "mitigation_id": one.mitigation_id,
        "tenant_id": one.tenant_id or ALL_TENANTS,
        "scope": dict(one.scope),
        "step": one.step,
        "per_minute": one.per_minute or None,
        "downgrade_to": one.downgrade_to or None,
        "reason": one.reason,
        "overrun_id": one.overrun_id or None,
        "starts_at": format_time(one.starts_at),
        "expires_at": format_time(one.expires_at),
        "ended_at": None if one.ended_at is None else format_time(one.ended_at),
        "created_by": one.created_by,
    }


def tenant_named(request: Request, asked: str, *, may_be_all: bool = False) -> str:
    """The tenant; the operator names one, so that nothing is meant for all by omission."""
    if asked == ALL_TENANTS and may_be_all and not request.state.principal.tenant_id:
        return ""
    tenant_id = tenant_of(request, asked)
    if not tenant_id or tenant_id == ALL_TENANTS:
        raise InvalidInput("say which tenant_id", code="tenant_missing", field="tenant_id")
    return tenant_id


def _one_of(choices: Any, text: str, field: str) -> Any:
    try:
        return choices(text)
    except ValueError:
        known = ", ".join(choices)
        raise InvalidInput(f"{field} is one of {known}", field=field) from None


_SCOPE = {"key": "key_9f2c"}
_MITIGATION = {
    "mitigation_id": "0190…",
    "tenant_id": "acme",
    "scope": _SCOPE,
    "step": "block",
    "reason": "a loop in the nightly import",
    "expires_at": "2026-11-20T10:30:00.000000Z",
    "ended_at": None,
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/mitigations",
        post_mitigation,
        "Throttle, downgrade, block or kill all work of a scope, for a time",
        _MITIGATION,
        201,
        MitigationBody,
        {
            "tenant_id": "acme",
            "scope": _SCOPE,
            "step": "block",
            "reason": "a loop in the nightly import",
            "ttl_seconds": 3600,
            "idempotency_key": "order-1001",
        },
        needs="overrun:write",
    ),
    RouteEntry(
        "GET",
        "/v1/mitigations",
        list_mitigations,
        "Mitigations, newest first; active=true: those in force",
        {"mitigations": [_MITIGATION]},
        query=("tenant_id", "active", "limit"),
        needs="overrun:read",
    ),
    RouteEntry(
        "GET",
        "/v1/mitigations/{mitigation_id}",
        get_mitigation,
        "One mitigation and its audit trail",
        {**_MITIGATION, "events": [{"kind": "applied", "by": "admin"}]},
        needs="overrun:read",
    ),
    RouteEntry(
        "DELETE",
        "/v1/mitigations/{mitigation_id}",
        delete_mitigation,
        "Undo a mitigation; in force on every process within a second",
        {**_MITIGATION, "ended_at": "2026-11-20T09:41:00.000000Z"},
        needs="overrun:write",
    ),
    RouteEntry(
        "PUT",
        "/v1/mitigation-policies",
        put_policy,
        "Which steps follow by themselves on overruns of a scope; none: alerts only",
        {"tenant_id": "acme", "dimension": "key", "value": "", "steps": []},
        200,
        PolicyBody,
        {
            "tenant_id": "acme",
            "scope": {"key": "*"},
            "steps": [{"step": "throttle"}, {"step": "block", "after_seconds": 300}],
        },
        needs="overrun:write",
    ),
    RouteEntry(
        "GET",
        "/v1/mitigation-policies",
        list_policies,
        "Which steps follow by themselves",
        {"policies": []},
        query=("tenant_id",),
        needs="overrun:read",
    ),
)
"""Entries of the table of routes."""
