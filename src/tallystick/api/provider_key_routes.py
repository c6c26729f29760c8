"""Routes of provider keys: tell one, see which there are, forget one. No answer has a key."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import principal_of, read_json, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.gateway.keys import KeyView


class ProviderKeyBody(msgspec.Struct):
    """Body of PUT /v1/provider-keys/{upstream}; the operator may name a tenant."""

    key: str
    tenant_id: str = ""


async def list_provider_keys(services: Services, request: Request) -> Response:
    """Which keys there are: a tenant's own; for the operator all, or those of one tenant."""
    asked = request.query_params.get("tenant_id")
    everyones = asked is None and not principal_of(request).tenant_id
    tenant_id = None if everyones else tenant_of(request, asked or "")
    keys = await asyncio.to_thread(services.provider_keys.list, tenant_id)
    return respond({"provider_keys": [view_of(key) for key in keys]})


async def put_provider_key(services: Services, request: Request) -> Response:
    """Keep a key; every gateway uses it within seconds."""
    body = await read_json(request, ProviderKeyBody)
    key = await asyncio.to_thread(
        services.provider_keys.put,
        tenant_of(request, body.tenant_id),
        request.path_params["upstream"],
        body.key,
        principal_of(request).subject,
    )
    return respond(view_of(key))


async def delete_provider_key(services: Services, request: Request) -> Response:
    """Forget a key; the one after it in line is used within seconds."""
    upstream = request.path_params["upstream"]
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    await asyncio.to_thread(services.provider_keys.delete, tenant_id, upstream)
    return respond({"tenant_id": tenant_id, "upstream": upstream, "status": "deleted"})


def view_of(key: KeyView) -> dict[str, Any]:
    """A key as an answer tells of it."""
    return {**msgspec.structs.asdict(key), "set_at": format_time(key.set_at)}


_VIEW = {
    "tenant_id": "",
    "upstream": "openai",
    "last_four": "x7Qa",
    "set_at": "2026-11-20T09:00:00Z",
    "set_by": "key_9f2c",
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/provider-keys",
        list_provider_keys,
        "Keys of providers that are kept: which upstream, last four characters, since when",
        {"provider_keys": [_VIEW]},
        query=("tenant_id",),
        needs="operations:read",
    ),
    RouteEntry(
        "PUT",
        "/v1/provider-keys/{upstream}",
        put_provider_key,
        "Keep a provider's key, sealed; it replaces the one before within seconds",
        _VIEW,
        200,
        ProviderKeyBody,
        {"key": "the provider's key"},
        needs="operations:write",
    ),
    RouteEntry(
        "DELETE",
        "/v1/provider-keys/{upstream}",
        delete_provider_key,
        "Forget a provider's key",
        {"tenant_id": "", "upstream": "openai", "status": "deleted"},
        query=("tenant_id",),
        needs="operations:write",
    ),
)
"""Entries of the table of routes."""
