"""Routes of alerts: list, show, acknowledge, mute; channels and routes; what was delivered."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import (
    idempotency_key,
    principal_of,
    read_json,
    read_limit,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.enforcement.alerts.channels import OVERLAP_SECONDS
from tallystick.enforcement.alerts.model import Step


class AcknowledgeBody(msgspec.Struct):
    """Body of POST /v1/alerts/{alert_id}/acknowledge."""

    reason: str = ""


class MuteBody(msgspec.Struct):
    """Body of POST /v1/alerts/{alert_id}/mute; 0 seconds end the quiet."""

    seconds: int
    reason: str = ""


class ChannelBody(msgspec.Struct):
    """Body of POST /v1/alert-channels."""

    name: str
    kind: str
    target: str
    tenant_id: str = ""
    idempotency_key: str = ""


class ChannelChangeBody(msgspec.Struct):
    """Body of PATCH /v1/alert-channels/{channel_id}: what is to change."""

    name: str | None = None
    target: str | None = None
    is_enabled: bool | None = None


class RotateBody(msgspec.Struct):
    """Body of POST /v1/alert-channels/{channel_id}/rotate."""

    overlap_seconds: int = OVERLAP_SECONDS


class RouteBody(msgspec.Struct):
    """Body of PUT /v1/alert-routes/{route_id}."""

    steps: list[Step]
    tenant_id: str = ""
    position: int = 100
    severities: list[str] = []
    kinds: list[str] = []
    scope: str = ""


async def list_alerts(services: Services, request: Request) -> Response:
    """Alerts, newest first."""
    query = request.query_params
    page = await asyncio.to_thread(
        services.alerts.page,
        tenant_of(request, query.get("tenant_id", "")),
        {name: query.get(name, "") for name in ("status", "kind", "severity")},
        cursor=query.get("cursor", ""),
        limit=read_limit(query, 50),
    )
    return respond(page)


async def get_alert(services: Services, request: Request) -> Response:
    """One alert."""
    return respond(await asyncio.to_thread(services.alerts.get, *_alert_of(request)))


async def get_deliveries(services: Services, request: Request) -> Response:
    """Who was told of an alert, with every try."""
    return respond(await asyncio.to_thread(services.alerts.deliveries, *_alert_of(request)))


async def post_acknowledge(services: Services, request: Request) -> Response:
    """Say that someone takes care."""
    body = await read_json(request, AcknowledgeBody, allow_empty=True)
    by = principal_of(request).subject
    done = await asyncio.to_thread(
        services.alerts.acknowledge, *_alert_of(request), reason=body.reason, by=by
    )
    return respond(done)


async def post_mute(services: Services, request: Request) -> Response:
    """Quiet the signal of an alert."""
    body = await read_json(request, MuteBody)
    by = principal_of(request).subject
    done = await asyncio.to_thread(
        services.alerts.mute, *_alert_of(request), seconds=body.seconds, reason=body.reason, by=by
    )
    return respond(done)


async def list_channels(services: Services, request: Request) -> Response:
    """Where a tenant is told."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    return respond(await asyncio.to_thread(services.channels.list, tenant_id))


async def post_channel(services: Services, request: Request) -> Response:
    """Make a channel."""
    body = await read_json(request, ChannelBody)
    made = await asyncio.to_thread(
        services.channels.create,
        tenant_of(request, body.tenant_id),
        name=body.name,
        kind=body.kind,
        target=body.target,
        key=idempotency_key(request, body.idempotency_key),
        by=principal_of(request).subject,
    )
    return _with_secret(made, 201)


async def get_channel(services: Services, request: Request) -> Response:
    """One channel and what it was sent."""
    return respond(await asyncio.to_thread(services.channels.get, *_channel_of(request)))


async def patch_channel(services: Services, request: Request) -> Response:
    """Change a channel."""
    body = await read_json(request, ChannelChangeBody)
    changed = await asyncio.to_thread(
        services.channels.update,
        *_channel_of(request),
        name=body.name,
        target=body.target,
        is_enabled=body.is_enabled,
    )
    return respond(changed)


async def delete_channel(services: Services, request: Request) -> Response:
    """Tell a channel nothing more."""
    return respond(await asyncio.to_thread(services.channels.delete, *_channel_of(request)))


async def post_rotate(services: Services, request: Request) -> Response:
    """Give a webhook a new secret."""
    body = await read_json(request, RotateBody, allow_empty=True)
    channel = _channel_of(request)
    rotated = await asyncio.to_thread(services.channels.rotate, *channel, body.overlap_seconds)
    return _with_secret(rotated)


def _with_secret(content: Any, status: int = 200) -> Response:
    """An answer that nobody keeps: it has the webhook's secret."""
    answer = respond(content, status)
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def post_test(services: Services, request: Request) -> Response:
    """Send a test message."""
    by = principal_of(request).subject
    queued = await asyncio.to_thread(services.channels.test, *_channel_of(request), by)
    return respond(queued, 202)


async def list_routes(services: Services, request: Request) -> Response:
    """Whom to tell of what, in order."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    return respond(await asyncio.to_thread(services.channels.routes, tenant_id))


async def put_route(services: Services, request: Request) -> Response:
    """Make or replace a route."""
    body = await read_json(request, RouteBody)
    made = await asyncio.to_thread(
        services.channels.put_route,
        tenant_of(request, body.tenant_id),
        request.path_params["route_id"],
        position=body.position,
        severities=body.severities,
        kinds=body.kinds,
        scope=body.scope,
        steps=body.steps,
        by=principal_of(request).subject,
    )
    return respond(made)


async def delete_route(services: Services, request: Request) -> Response:
    """Take a route away."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    route_id = request.path_params["route_id"]
    return respond(await asyncio.to_thread(services.channels.delete_route, tenant_id, route_id))


def _alert_of(request: Request) -> tuple[str, str]:
    return tenant_of(request), request.path_params["alert_id"]


def _channel_of(request: Request) -> tuple[str, str]:
    return tenant_of(request), request.path_params["channel_id"]


_ALERT: dict[str, Any] = {
    "alert_id": "alr_5f1d…",
    "kind": "budget",
    "severity": "warning",
    "status": "open",
    "who": "team=search",
    "what": "has used 80 percent of its monthly budget",
    "how_much": "80.50 of 100 USD",
    "since": "2026-11-20T09:30:00Z",
    "next_step": "at 100 percent its calls are refused",
    "how_to_stop": "raise the budget or stop the nightly evaluation",
}
_CHANNEL = {
    "channel_id": "chn_5f1d…",
    "tenant_id": "acme",
    "name": "on-call",
    "kind": "webhook",
    "target": "https://example.com/...",
    "is_enabled": True,
}
_TARGET = "https://example.com/hooks/tallystick"
_ROUTE = {
    "tenant_id": "acme",
    "position": 10,
    "severities": ["critical"],
    "kinds": ["budget"],
    "scope": "team=search",
    "steps": [
        {"after_seconds": 0, "channels": ["chn_5f1d…"]},
        {"after_seconds": 900, "channels": ["chn_77aa…"]},
    ],
}
_READ, _WRITE = "alerts:read", "alerts:write"

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/alerts",
        list_alerts,
        "Alerts, newest first: who, what, how much, since when, what will happen, how to stop it",
        {"alerts": [_ALERT], "next_cursor": None},
        query=("tenant_id", "status", "kind", "severity", "cursor", "limit"),
        needs=_READ,
    ),
    RouteEntry(
        "GET",
        "/v1/alerts/{alert_id}",
        get_alert,
        "One alert and what people did about it",
        {**_ALERT, "actions": []},
        needs=_READ,
    ),
    RouteEntry(
        "GET",
        "/v1/alerts/{alert_id}/deliveries",
        get_deliveries,
        "Who was told of an alert, with every try, its status, latency and error",
        {"alert_id": "alr_5f1d…", "deliveries": [{"status": "sent", "attempts": []}]},
        needs=_READ,
    ),
    RouteEntry(
        "POST",
        "/v1/alerts/{alert_id}/acknowledge",
        post_acknowledge,
        "Say that someone takes care: no further steps until it gets worse",
        {**_ALERT, "acknowledged_by": "admin"},
        200,
        AcknowledgeBody,
        {"reason": "looking into it"},
        needs=_WRITE,
    ),
    RouteEntry(
        "POST",
        "/v1/alerts/{alert_id}/mute",
        post_mute,
        "Quiet the signal of an alert for a while, also if it opens again; 0 seconds end it",
        {**_ALERT, "muted_by": "admin"},
        200,
        MuteBody,
        {"seconds": 3600, "reason": "a planned load test"},
        needs=_WRITE,
    ),
    RouteEntry(
        "GET",
        "/v1/alert-channels",
        list_channels,
        "Where a tenant is told: webhooks, mail, Slack",
        {"channels": [_CHANNEL]},
        query=("tenant_id",),
        needs=_READ,
    ),
    RouteEntry(
        "POST",
        "/v1/alert-channels",
        post_channel,
        "Make a channel; a webhook's signing secret is in this answer only",
        {**_CHANNEL, "secret": "whsec_…"},
        201,
        ChannelBody,
        {"tenant_id": "acme", "name": "on-call", "kind": "webhook", "target": _TARGET},
        needs=_WRITE,
    ),
    RouteEntry(
        "GET",
        "/v1/alert-channels/{channel_id}",
        get_channel,
        "One channel and the newest messages to it, with every try",
        {**_CHANNEL, "deliveries": []},
        needs=_READ,
    ),
    RouteEntry(
        "PATCH",
        "/v1/alert-channels/{channel_id}",
        patch_channel,
        "Change the name or target of a channel, or switch it on or off",
        _CHANNEL,
        200,
        ChannelChangeBody,
        {"is_enabled": False},
        needs=_WRITE,
    ),
    RouteEntry(
        "DELETE",
        "/v1/alert-channels/{channel_id}",
        delete_channel,
        "Tell a channel nothing more; what it was told stays on record",
        {"channel_id": "chn_5f1d…", "status": "deleted"},
        needs=_WRITE,
    ),
    RouteEntry(
        "POST",
        "/v1/alert-channels/{channel_id}/rotate",
        post_rotate,
        "Give a webhook a new secret, shown once; both sign during the overlap",
        {**_CHANNEL, "secret": "whsec_…"},
        200,
        RotateBody,
        {"overlap_seconds": 86400},
        needs=_WRITE,
    ),
    RouteEntry(
        "POST",
        "/v1/alert-channels/{channel_id}/test",
        post_test,
        "Send a test message; GET the channel to see what came of it",
        {"delivery_id": "msg_0190…", "status": "pending"},
        202,
        needs=_WRITE,
    ),
    RouteEntry(
        "GET",
        "/v1/alert-routes",
        list_routes,
        "Whom to tell of what: the first route that matches decides",
        {"routes": [{"route_id": "search-critical", **_ROUTE}]},
        query=("tenant_id",),
        needs=_READ,
    ),
    RouteEntry(
        "PUT",
        "/v1/alert-routes/{route_id}",
        put_route,
        "Make or replace a route: its conditions, and whom to tell after how long",
        {"route_id": "search-critical", **_ROUTE},
        200,
        RouteBody,
        _ROUTE,
        needs=_WRITE,
    ),
    RouteEntry(
        "DELETE",
        "/v1/alert-routes/{route_id}",
        delete_route,
        "Take a route away",
        {"route_id": "search-critical", "status": "deleted"},
        query=("tenant_id",),
        needs=_WRITE,
    ),
)
"""Entries of the table of routes."""
