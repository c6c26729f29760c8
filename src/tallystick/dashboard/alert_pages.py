"""The pages of alerts: the list, and one alert with forms to acknowledge and to mute it.

A form changes something, so it carries a token bound to the session.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from tallystick.api.requests import tenant_of
from tallystick.api.services import Services
from tallystick.dashboard.forms import form_token_of, read_form, require_form
from tallystick.errors import InvalidInput, TallystickError

_FILTERS = ("tenant_id", "status", "severity", "kind")


async def list_content(services: Services, request: Request) -> dict[str, Any]:
    """What the list shows: by default what is open."""
    query = request.query_params
    filters = {name: query.get(name, "") for name in _FILTERS}
    if "status" not in query:
        filters["status"] = "open"
    page = await asyncio.to_thread(
        services.alerts.page,
        tenant_of(request, filters["tenant_id"]),
        filters,
        cursor=query.get("cursor", ""),
    )
    return {"filters": filters, **page}


async def alert_content(
    services: Services, request: Request, error: TallystickError | None
) -> dict[str, Any]:
    """What the page of one alert shows; `error` is why a form was refused."""
    alert_id = request.path_params["alert_id"]
    alert = await asyncio.to_thread(services.alerts.get, tenant_of(request), alert_id)
    told = await asyncio.to_thread(services.alerts.deliveries, tenant_of(request), alert_id)
    return {
        "alert": alert,
        "deliveries": told["deliveries"],
        "form_token": form_token_of(services, request),
        "error": error,
    }


async def act(services: Services, request: Request) -> None:
    """Do what the form says."""
    form = await read_form(request)
    principal = require_form(services, request, form, "alerts:write")
    alert_id, reason = request.path_params["alert_id"], form.get("reason", "")
    if form.get("action") == "acknowledge":
        await asyncio.to_thread(
            services.alerts.acknowledge,
            principal.tenant_id,
            alert_id,
            reason=reason,
            by=principal.subject,
        )
    elif form.get("action") == "mute":
        seconds = _seconds_of(form.get("hours", ""))
        await asyncio.to_thread(
            services.alerts.mute,
            principal.tenant_id,
            alert_id,
            seconds=seconds,
            reason=reason,
            by=principal.subject,
        )
    else:
        raise InvalidInput("the form says neither acknowledge nor mute", field="action")


def _seconds_of(hours: str) -> int:
    if not (hours.isascii() and hours.isdigit() and len(hours) < 5):
        raise InvalidInput("hours must be a whole number", field="hours")
    return int(hours) * 3600
