"""Routes of broken messages: list, show, fix one or many, dismiss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import (
    principal_of,
    read_json,
    read_limit,
    read_moment,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.broken import BrokenFilter
from tallystick.errors import InvalidInput

_PARAMETERS = {"tenant_id", "code", "from", "to", "status", "cursor", "limit"}


class FixBody(msgspec.Struct):
    """Body of POST /v1/broken-messages/{broken_id}/fix: fields by name, null to leave out."""

    set: dict[str, Any] = {}


class FixManyBody(msgspec.Struct):
    """Body of POST /v1/broken-messages:fix."""

    code: str
    set: dict[str, Any] = {}
    tenant_id: str = ""
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    dry_run: bool = False
    cursor: str | None = None


class DismissBody(msgspec.Struct):
    """Body of POST /v1/broken-messages/{broken_id}/dismiss."""

    reason: str


def filter_of(parameters: Mapping[str, str]) -> BrokenFilter:
    """Which messages the parameters name; raises InvalidInput."""
    unknown = next((name for name in parameters if name not in _PARAMETERS), None)
    if unknown is not None:
        raise InvalidInput(
            f"unknown parameter {unknown[:40]!r}; known: {', '.join(sorted(_PARAMETERS))}",
            code="unknown_parameter",
            field=unknown[:40],
        )
    moments = {
        name: read_moment(parameters[name], name) if parameters.get(name) else None
        for name in ("from", "to")
    }
    return BrokenFilter(
        parameters.get("tenant_id", ""),
        parameters.get("code", ""),
        moments["from"],
        moments["to"],
    )


def page_of(services: Services, parameters: Mapping[str, str]) -> dict[str, Any]:
    """One page of the list."""
    return services.broken.page(
        filter_of(parameters),
        status=parameters.get("status", ""),
        cursor=parameters.get("cursor") or None,
        limit=read_limit(parameters, 50),
    )


def own_parameters(request: Request, parameters: dict[str, str]) -> dict[str, str]:
    """The parameters of a list, within the tenant of who asks."""
    tenant_id = tenant_of(request, parameters.get("tenant_id", ""))
    return {**parameters, "tenant_id": tenant_id} if tenant_id else parameters


async def list_broken(services: Services, request: Request) -> Response:
    """Broken messages, newest first."""
    parameters = own_parameters(request, dict(request.query_params))
    return respond(await ask_facts(page_of, services, parameters))


async def get_broken(services: Services, request: Request) -> Response:
    """One broken message."""
    broken_id = request.path_params["broken_id"]
    return respond(await ask_facts(services.broken.get, broken_id, tenant_of(request)))


async def post_fix(services: Services, request: Request) -> Response:
    """Set fields and store the event."""
    body = await read_json(request, FixBody, allow_empty=True)
    fixed = await services.broken.fix(
        request.path_params["broken_id"],
        body.set,
        principal_of(request).subject,
        tenant_id=tenant_of(request),
    )
    return respond(fixed)


async def post_fix_many(services: Services, request: Request) -> Response:
    """Fix the open messages of one code."""
    body = await read_json(request, FixManyBody)
    body.tenant_id = tenant_of(request, body.tenant_id)
    return respond(await fix_many(services, body, principal_of(request).subject))


async def fix_many(services: Services, body: FixManyBody, by: str) -> dict[str, Any]:
    """Fix what the body names."""
    if not body.code:
        raise InvalidInput("code says which messages; it may not be empty", field="code")
    wanted = filter_of(
        {"tenant_id": body.tenant_id, "code": body.code, "from": body.from_, "to": body.to}
    )
    return await services.broken.fix_many(
        wanted, body.set, by, is_dry_run=body.dry_run, cursor=body.cursor
    )


async def post_dismiss(services: Services, request: Request) -> Response:
    """Dismiss one message."""
    body = await read_json(request, DismissBody)
    broken_id = request.path_params["broken_id"]
    dismissed = await ask_facts(
        services.broken.dismiss,
        broken_id,
        body.reason,
        principal_of(request).subject,
        tenant_id=tenant_of(request),
    )
    return respond(dismissed)


_BROKEN = {
    "broken_id": "broken:5f1d…",
    "tenant_id": "acme",
    "received_at": "2026-11-20T09:30:01.000000Z",
    "code": "wrong_type",
    "field": "tokens_input",
    "reason": "tokens_input must be a whole number",
    "draft": {"event_id": "e7", "tokens_input": "hmac:0f3c9a7be1d24c55"},
    "times_seen": 2,
    "status": "open",
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/broken-messages",
        list_broken,
        "Broken messages, newest first: why, a redacted draft, how often, what was done",
        {"broken_messages": [_BROKEN], "next_cursor": None},
        query=("tenant_id", "code", "from", "to", "status", "cursor", "limit"),
        needs="usage:read",
    ),
    RouteEntry(
        "GET",
        "/v1/broken-messages/{broken_id}",
        get_broken,
        "One broken message and everything that was done about it",
        {**_BROKEN, "actions": []},
        needs="usage:read",
    ),
    RouteEntry(
        "POST",
        "/v1/broken-messages/{broken_id}/fix",
        post_fix,
        "Set fields of the draft and store the event; 422 when it would still be broken",
        {"broken_id": "broken:5f1d…", "status": "fixed", "outcome": "accepted", "event_id": "e7"},
        200,
        FixBody,
        {"set": {"tokens_input": 1200}},
        needs="usage:write",
    ),
    RouteEntry(
        "POST",
        "/v1/broken-messages:fix",
        post_fix_many,
        "Fix the open messages of one code with the same fields; dry_run counts and shows samples",
        {"dry_run": True, "examined": 12, "repairable": 11, "fixed": 0, "next_cursor": None},
        200,
        FixManyBody,
        {"code": "naive_time", "set": {"event_time": "2026-01-31T12:00:00Z"}, "dry_run": True},
        needs="usage:write",
    ),
    RouteEntry(
        "POST",
        "/v1/broken-messages/{broken_id}/dismiss",
        post_dismiss,
        "Say that a broken message needs no fix",
        {"broken_id": "broken:5f1d…", "status": "dismissed"},
        200,
        DismissBody,
        {"reason": "a test of the producer"},
        needs="usage:write",
    ),
)
"""Entries of the table of routes."""
