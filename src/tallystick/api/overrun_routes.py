"""Routes of overruns: what ran away and why, drivers of any change, planned launches."""

from __future__ import annotations

import asyncio
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.mitigation_routes import mitigation_json, tenant_named
from tallystick.api.requests import read_json, read_limit, read_moment, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.clock import format_time
from tallystick.enforcement.overrun.model import Kind, Overrun, PlannedLaunch
from tallystick.enforcement.overrun.service import check_scope
from tallystick.errors import InvalidInput
from tallystick.units import USD, format_amount, parse_amount


class LaunchBody(msgspec.Struct):
    """Body of POST /v1/planned-launches: a factor of usual usage, or an amount on top."""

    from_: str = msgspec.field(name="from")
    to: str
    reason: str
    scope: dict[str, str] = {}
    expected_factor: str = "1"
    expected_amount_usd: str = "0"
    tenant_id: str = ""


class DriversBody(msgspec.Struct):
    """Body of POST /v1/drivers."""

    from_: str = msgspec.field(name="from")
    to: str
    compare_from: str
    compare_to: str
    scope: dict[str, str] = {}
    tenant_id: str = ""


async def post_launch(services: Services, request: Request) -> Response:
    """Put a planned launch on file."""
    body = await read_json(request, LaunchBody)
    launch = await asyncio.to_thread(
        services.overruns.launches.plan,
        tenant_named(request, body.tenant_id),
        body.scope,
        (read_moment(body.from_, "from"), read_moment(body.to, "to")),
        (
            _factor(body.expected_factor),
            parse_amount(body.expected_amount_usd, USD, field="expected_amount_usd"),
        ),
        body.reason,
        request.state.principal.subject,
    )
    return respond(launch_json(launch), 201)


async def list_launches(services: Services, request: Request) -> Response:
    """Planned launches that are not over."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    found = await asyncio.to_thread(services.overruns.launches.on_file, tenant_id)
    return respond({"planned_launches": [launch_json(one) for one in found]})


async def delete_launch(services: Services, request: Request) -> Response:
    """Take a planned launch back."""
    found = await asyncio.to_thread(
        services.overruns.launches.withdraw, tenant_of(request), request.path_params["launch_id"]
    )
    return respond(launch_json(found))


async def list_overruns(services: Services, request: Request) -> Response:
    """The newest overruns."""
    query = request.query_params
    found = await asyncio.to_thread(
        services.overruns.launches.overruns,
        tenant_of(request, query.get("tenant_id", "")),
        is_open=query.get("open") == "true",
        limit=read_limit(query, 50),
    )
    return respond({"overruns": [overrun_json(one) for one in found]})


async def get_overrun(services: Services, request: Request) -> Response:
    """One overrun: what was done about it and what drove it."""
    found, taken = await asyncio.to_thread(
        services.overruns.launches.overrun, tenant_of(request), request.path_params["overrun_id"]
    )
    causes = await ask_facts(services.overruns.causes.of_overrun, found)
    shown = [mitigation_json(one) for one in taken]
    return respond({**overrun_json(found), "mitigations": shown, "causes": causes})


async def post_drivers(services: Services, request: Request) -> Response:
    """What drove the change of cost between two ranges."""
    body = await read_json(request, DriversBody)
    check_scope(body.scope)
    tenant_id = tenant_named(request, body.tenant_id)
    before = _range(body.compare_from, body.compare_to, "compare_from", "compare_to")
    after = _range(body.from_, body.to, "from", "to")
    found = await asyncio.to_thread(
        services.overruns.causes.compare, tenant_id, body.scope, before, after
    )
    return respond(found)


def _range(first: str, last: str, first_field: str, last_field: str) -> tuple[int, int]:
    range_ = (read_moment(first, first_field), read_moment(last, last_field))
    if range_[0] >= range_[1]:
        reason = f"{first_field} must be before {last_field}"
        raise InvalidInput(reason, code="empty_range", field=first_field)
    return range_


def overrun_json(one: Overrun) -> dict[str, Any]:
    """Show an overrun; its amounts are USD, or counts when it is a storm."""
    is_storm = one.kind in (Kind.ERROR_STORM, Kind.RETRY_STORM)

    def amount(units: int) -> str:
        return str(units) if is_storm else format_amount(units, USD)

    return {
        "overrun_id": one.overrun_id,
        "tenant_id": one.tenant_id,
        "kind": one.kind,
        "scope": {one.dimension: one.value},
        "severity": one.severity,
        "detector": one.detector,
        "since": format_time(one.since),
        "seen_at": format_time(one.seen_at),
        "last_at": format_time(one.last_at),
        "closed_at": _moment(one.closed_at),
        "observed": amount(one.observed_units),
        "expected": amount(one.expected_units),
        "excess_usd": format_amount(one.excess_units, USD),
        "detail": one.detail,
    }


def launch_json(one: PlannedLaunch) -> dict[str, Any]:
    """Show a planned launch."""
    return {
        "launch_id": one.launch_id,
        "tenant_id": one.tenant_id,
        "scope": {one.dimension: one.value},
        "from": format_time(one.from_at),
        "to": format_time(one.to_at),
        "expected_factor": str(one.factor),
        "expected_amount_usd": format_amount(one.extra_units, USD),
        "reason": one.reason,
        "created_by": one.created_by,
        "withdrawn_at": _moment(one.withdrawn_at),
    }


def _moment(micros: int | None) -> str | None:
    return None if micros is None else format_time(micros)


def _factor(text: str) -> Decimal:
    try:
        found = Decimal(text) if len(text) <= 20 else Decimal("nan")
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite():
        raise InvalidInput('a factor is a decimal text such as "3"', field="expected_factor")
    return found


_SCOPE = {"key": "key_9f2c"}
_MITIGATION = {"mitigation_id": "0190…", "step": "block", "ended_at": None}
_OVERRUN = {
    "overrun_id": "0190…",
    "tenant_id": "acme",
    "kind": "burn_rate",
    "scope": _SCOPE,
    "severity": "critical",
    "since": "2026-11-20T09:30:00.000000Z",
    "observed": "41.2",
    "expected": "1.1",
    "excess_usd": "40.1",
}
_LAUNCH = {
    "launch_id": "0190…",
    "scope": {"feature": "support-chat"},
    "from": "2026-11-20T09:00:00.000000Z",
    "to": "2026-11-21T09:00:00.000000Z",
    "expected_factor": "3",
    "reason": "launch in Spain",
}
_CAUSES = {
    "before_usd": "1.1",
    "after_usd": "41.2",
    "difference_usd": "40.1",
    "effects": {"volume": "38.9", "mix": "0", "tokens_per_call": "1.2", "remainder": "0"},
    "contributions": [{"scope": _SCOPE, "usd": "39.8"}],
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/overruns",
        list_overruns,
        "What ran away, newest first",
        {"overruns": [_OVERRUN]},
        query=("tenant_id", "open", "limit"),
        needs="overrun:read",
    ),
    RouteEntry(
        "GET",
        "/v1/overruns/{overrun_id}",
        get_overrun,
        "One overrun: what was done about it and what drove it",
        {**_OVERRUN, "mitigations": [_MITIGATION], "causes": _CAUSES},
        needs="overrun:read",
    ),
    RouteEntry(
        "POST",
        "/v1/drivers",
        post_drivers,
        "What drove the change of cost between two ranges; effects add up exactly",
        _CAUSES,
        200,
        DriversBody,
        {
            "tenant_id": "acme",
            "scope": {"feature": "support-chat"},
            "from": "2026-11-20T00:00:00Z",
            "to": "2026-11-21T00:00:00Z",
            "compare_from": "2026-11-13T00:00:00Z",
            "compare_to": "2026-11-14T00:00:00Z",
        },
        needs="overrun:read",
    ),
    RouteEntry(
        "POST",
        "/v1/planned-launches",
        post_launch,
        "Announce usage, so that it raises no alarm; what goes beyond it still does",
        _LAUNCH,
        201,
        LaunchBody,
        {
            "tenant_id": "acme",
            "scope": {"feature": "support-chat"},
            "from": "2026-11-20T09:00:00Z",
            "to": "2026-11-21T09:00:00Z",
            "expected_factor": "3",
            "reason": "launch in Spain",
        },
        needs="overrun:write",
    ),
    RouteEntry(
        "GET",
        "/v1/planned-launches",
        list_launches,
        "Planned launches that are not over",
        {"planned_launches": [_LAUNCH]},
        query=("tenant_id",),
        needs="overrun:read",
    ),
    RouteEntry(
        "DELETE",
        "/v1/planned-launches/{launch_id}",
        delete_launch,
        "Take a planned launch back",
        {**_LAUNCH, "withdrawn_at": "2026-11-20T09:41:00.000000Z"},
        needs="overrun:write",
    ),
)
"""Entries of the table of routes."""
