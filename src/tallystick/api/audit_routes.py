"""Routes of the audit trail: searched by page, and written out as NDJSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import read_limit, read_range, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.errors import InvalidInput

_FILTERS = ("subject", "service_id", "route", "decision")
_KNOWN = {*_FILTERS, "tenant_id", "from", "to", "cursor", "limit", "format"}
_LIMIT_MAX = 10_000
_LAST = 2**62
_lines = msgspec.json.Encoder()


async def get_audit(services: Services, request: Request) -> Response:
    """Records of requests, newest first."""
    query = dict(request.query_params)
    query["tenant_id"] = tenant_of(request, query.get("tenant_id", ""))
    page = await asyncio.to_thread(page_of, services, query)
    if query.get("format") != "ndjson":
        return respond(page)
    headers = {"X-Next-Cursor": page["next_cursor"]} if page["next_cursor"] else {}
    body = _lines.encode_lines(page["records"])
    return Response(body, media_type="application/x-ndjson", headers=headers)


def page_of(services: Services, query: Mapping[str, str]) -> dict[str, Any]:
    """One page of records as shown."""
    for name in query:
        if name not in _KNOWN:
            raise InvalidInput(f"unknown parameter {name[:40]!r}", field=name[:40])
    cursor = query.get("cursor", str(_LAST))
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
        raise InvalidInput("cursor is not one of ours", code="bad_cursor", field="cursor")
    limit = min(read_limit(query, 100), _LIMIT_MAX)
    from_at, to_at = read_range(query, services.clock.now())
    rows = services.audit.search(
        tenant_id=query.get("tenant_id", ""),
        from_at=from_at,
        to_at=to_at,
        before=int(cursor),
        limit=limit,
        filters={name: query[name] for name in _FILTERS if name in query},
    )
    next_cursor = str(rows[-1]["record_id"]) if len(rows) == limit else None
    return {"records": [_shown(row) for row in rows], "next_cursor": next_cursor}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "at": format_time(row["at"])}


ROUTES = (
    RouteEntry(
        "GET",
        "/v1/audit",
        get_audit,
        "Who asked for what, when, and what was decided; newest first, also as NDJSON",
        {
            "records": [
                {
                    "at": "2026-11-20T09:30:00Z",
                    "subject": "key:7f3a9c21",
                    "tenant_id": "acme",
                    "method": "POST",
                    "route": "/v1/grants",
                    "status": 201,
                    "decision": "allowed",
                }
            ],
            "next_cursor": None,
        },
        query=("tenant_id", *_FILTERS, "from", "to", "cursor", "limit", "format"),
        needs="audit:read",
        other_types=("application/x-ndjson",),
    ),
)
