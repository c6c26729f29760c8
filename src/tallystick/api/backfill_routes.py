"""Routes of backfills: ask for one, list, show with its report, pause, resume, revert."""

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
    read_moment,
    respond,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.backfill import EVENTS_PER_SECOND, BackfillRequest


class BackfillBody(msgspec.Struct):
    """Body of POST /v1/backfills."""

    from_: str = msgspec.field(name="from")
    to: str
    reason: str
    idempotency_key: str = ""
    tenant_ids: list[str] = []
    models: list[str] = []
    rate_card_version: int | None = None
    dry_run: bool = False
    events_per_second_max: int = EVENTS_PER_SECOND


class RevertBody(msgspec.Struct):
    """Body of POST /v1/backfills/{backfill_id}/revert."""

    reason: str
    idempotency_key: str = ""


class EventReconciliationBody(msgspec.Struct):
    """Body of POST /v1/reconciliations/events."""

    repair: bool = False


def request_of(body: BackfillBody, key: str) -> BackfillRequest:
    """What the body asks for."""
    return BackfillRequest(
        from_at=read_moment(body.from_, "from"),
        to_at=read_moment(body.to, "to"),
        reason=body.reason,
        idempotency_key=key,
        tenant_ids=tuple(body.tenant_ids),
        models=tuple(body.models),
        rate_card_version=body.rate_card_version or 0,
        is_dry_run=body.dry_run,
        events_per_second_max=body.events_per_second_max,
    )


async def post_backfill(services: Services, request: Request) -> Response:
    """Plan a backfill; followers do it."""
    body = await read_json(request, BackfillBody)
    wanted = request_of(body, idempotency_key(request, body.idempotency_key))
    by = principal_of(request).subject
    return respond(await asyncio.to_thread(services.backfills.create, wanted, by), 201)


async def list_backfills(services: Services, request: Request) -> Response:
    """The newest backfills."""
    limit = read_limit(request.query_params, 50)
    return respond(await asyncio.to_thread(services.backfills.list, limit))


async def get_backfill(services: Services, request: Request) -> Response:
    """One backfill with its report."""
    return respond(await asyncio.to_thread(services.backfills.get, _id_of(request)))


async def post_backfill_revert(services: Services, request: Request) -> Response:
    """Plan the backfill that inverts another."""
    body = await read_json(request, RevertBody)
    key = idempotency_key(request, body.idempotency_key)
    made = await asyncio.to_thread(
        services.backfills.revert,
        _id_of(request),
        body.reason,
        key,
        principal_of(request).subject,
    )
    return respond(made, 201)


async def post_backfill_pause(services: Services, request: Request) -> Response:
    """Stop before the next piece."""
    return respond(await asyncio.to_thread(services.backfills.pause, _id_of(request)))


async def post_backfill_resume(services: Services, request: Request) -> Response:
    """Go on."""
    return respond(await asyncio.to_thread(services.backfills.resume, _id_of(request)))


async def post_event_reconciliation(services: Services, request: Request) -> Response:
    """Find events that count twice; with `repair` reverse the later ones."""
    body = await read_json(request, EventReconciliationBody, allow_empty=True)
    return respond(await ask_facts(event_report, services, body.repair))


def event_report(services: Services, is_repairing: bool) -> dict[str, Any]:
    """What counts twice, and what was reversed."""
    return services.doubles.report(is_repairing=is_repairing)


def _id_of(request: Request) -> str:
    found: str = request.path_params["backfill_id"]
    return found


_BACKFILL = {
    "backfill_id": "0190…",
    "status": "running",
    "progress": {"examined": 120_000, "corrected": 41_007, "skipped": 0, "pieces": 24},
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/backfills",
        post_backfill,
        "Rate facts of a range again and correct what differs; dry_run only reports",
        {"backfill_id": "0190…", "status": "planned"},
        201,
        BackfillBody,
        {
            "from": "2026-11-16T00:00:00Z",
            "to": "2026-11-20T00:00:00Z",
            "reason": "gpt-4o was priced as gpt-4o-mini since Monday",
            "models": ["gpt-4o"],
            "dry_run": True,
            "idempotency_key": "order-1001",
        },
        needs="operations:write",
        is_for_operator=True,
    ),
    RouteEntry(
        "GET",
        "/v1/backfills",
        list_backfills,
        "Backfills, newest first",
        {"backfills": [_BACKFILL]},
        query=("limit",),
        needs="operations:read",
        is_for_operator=True,
    ),
    RouteEntry(
        "GET",
        "/v1/backfills/{backfill_id}",
        get_backfill,
        "One backfill: where it stands, and its report before and after",
        {**_BACKFILL, "report": {"affected_runs": 812, "by_tenant_and_model": []}},
        needs="operations:read",
        is_for_operator=True,
    ),
    RouteEntry(
        "POST",
        "/v1/backfills/{backfill_id}/revert",
        post_backfill_revert,
        "Undo a backfill by another one, which inverts its rows",
        {"backfill_id": "0190…", "status": "planned"},
        201,
        RevertBody,
        {"reason": "the old price was right", "idempotency_key": "order-1001"},
        needs="operations:write",
        is_for_operator=True,
    ),
    RouteEntry(
        "POST",
        "/v1/backfills/{backfill_id}/pause",
        post_backfill_pause,
        "Stop a backfill before its next piece",
        {"backfill_id": "0190…", "status": "paused"},
        needs="operations:write",
        is_for_operator=True,
    ),
    RouteEntry(
        "POST",
        "/v1/backfills/{backfill_id}/resume",
        post_backfill_resume,
        "Let a paused or failed backfill go on where it stopped",
        {"backfill_id": "0190…", "status": "running"},
        needs="operations:write",
        is_for_operator=True,
    ),
    RouteEntry(
        "POST",
        "/v1/reconciliations/events",
        post_event_reconciliation,
        "Find events that count more than once; with repair reverse the later ones",
        {"agrees": True, "doubles": 0, "examples": [], "reversed_rows": 0},
        200,
        EventReconciliationBody,
        {"repair": False},
        needs="operations:write",
        is_for_operator=True,
    ),
)
"""Entries of the table of routes."""
