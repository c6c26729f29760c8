"""Routes of broken messages: list, show, fix one or many, dismiss."""

from __future__ import annotations

import asyncio
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
from tallystick.api.services import Services
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
    return respond(await asyncio.to_thread(page_of, services, parameters))


async def get_broken(services: Services, request: Request) -> Response:
    """One broken message."""
    broken_id = request.path_params["broken_id"]
    return respond(await asyncio.to_thread(services.broken.get, broken_id, tenant_of(request)))


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
    dismissed = await asyncio.to_thread(
        services.broken.dismiss,
        broken_id,
        body.reason,
        principal_of(request).subject,
        tenant_id=tenant_of(request),
    )
    return respond(dismissed)
