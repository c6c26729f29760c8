"""Routes of rate limits, and the headers that tell a caller where it stands.

Headers are those of draft-ietf-httpapi-ratelimit-headers-06 (RateLimit-Limit, -Remaining,
-Reset, RateLimit-Policy); later drafts fold them into one structured field.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import principal_of, read_json, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services


class RateLimitBody(msgspec.Struct):
    """Body of PUT /v1/rate-limits; without a burst it is `per_minute`."""

    kind: str
    per_minute: int
    asset: str = "requests"
    name: str = ""
    tenant_id: str = ""
    burst: int = 0
    weight: int = 1


async def list_rate_limits(services: Services, request: Request) -> Response:
    """Limits of a tenant."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    return respond(await services.rates.list(tenant_id))


async def put_rate_limit(services: Services, request: Request) -> Response:
    """Make or change a limit."""
    body = await read_json(request, RateLimitBody)
    made = await services.rates.put(
        tenant_of(request, body.tenant_id),
        kind=body.kind,
        name=body.name,
        asset=body.asset,
        per_minute=body.per_minute,
        burst=body.burst,
        weight=body.weight,
        by=principal_of(request).subject,
    )
    return respond(made)


async def delete_rate_limit(services: Services, request: Request) -> Response:
    """Take a limit away."""
    limit_id = request.path_params["limit_id"]
    return respond(await services.rates.delete(tenant_of(request), limit_id))


_LIMIT = {
    "tenant_id": "acme",
    "kind": "key",
    "name": "key_9f2c",
    "asset": "requests",
    "per_minute": 600,
    "burst": 100,
    "weight": 1,
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/rate-limits",
        list_rate_limits,
        "Rate limits: of the installation, a tenant, a tier, a service or a key",
        {"rate_limits": [{"limit_id": "rl_5f1d…", **_LIMIT}]},
        query=("tenant_id",),
        needs="budgets:read",
    ),
    RouteEntry(
        "PUT",
        "/v1/rate-limits",
        put_rate_limit,
        "Set a rate limit; the one of the same kind, name and asset gets the new numbers",
        {"limit_id": "rl_5f1d…", **_LIMIT},
        200,
        RateLimitBody,
        _LIMIT,
        needs="budgets:write",
    ),
    RouteEntry(
        "DELETE",
        "/v1/rate-limits/{limit_id}",
        delete_rate_limit,
        "Take a rate limit away",
        {"limit_id": "rl_5f1d…", "status": "deleted"},
        needs="budgets:write",
    ),
)
"""Entries of the table of routes."""
