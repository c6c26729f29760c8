"""The page of the audit trail: who asked for what, when, and what was decided.

It only reads, and shows what `GET /v1/audit` shows. Nothing can change a record.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from tallystick.api.audit_routes import page_of
from tallystick.api.requests import principal_of, tenant_of
from tallystick.api.services import Services
from tallystick.errors import Forbidden

_FILTERS = ("tenant_id", "subject", "route", "decision", "from", "to")
_RECORDS_SHOWN = 100


async def list_content(services: Services, request: Request) -> dict[str, Any]:
    """What the page shows: the newest records of the last day, or of the range asked for."""
    if not principal_of(request).may("audit:read"):
        raise Forbidden("this needs the permission audit:read")
    asked = request.query_params
    filters = {name: asked.get(name, "") for name in _FILTERS}
    filters["tenant_id"] = tenant_of(request, filters["tenant_id"])
    query = {name: value for name, value in filters.items() if value}
    query["limit"] = str(_RECORDS_SHOWN)
    if asked.get("cursor"):
        query["cursor"] = asked["cursor"]
    page = await asyncio.to_thread(page_of, services, query)
    return {"filters": filters, **page}
