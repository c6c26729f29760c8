"""Routes of usage: events in; stats and runs out."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tallystick.analytics.stats import DIMENSIONS, ROWS_MAX, StatsQuery
from tallystick.api.requests import (
    credits_text,
    read_body,
    read_count,
    read_limit,
    read_moment,
    read_range,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.clock import format_time
from tallystick.errors import InvalidInput

_STATS_PARAMETERS = {
    *("from", "to", "interval", "group_by", "metrics", "top", "top_by", "tenant_id"),
}
_RUN_PARAMETERS = {"cursor", "limit", "tenant_id"}


async def post_events(services: Services, request: Request) -> Response:
    """Take events; answers once they are durable."""
    receipt = await services.door.accept(
        await read_body(request),
        content_type=request.headers.get("content-type", ""),
        content_encoding=request.headers.get("content-encoding", ""),
        headers=request.headers,
        tenant_id=tenant_of(request),
    )
    services.metrics.count_receipt(receipt)
    return respond(receipt)


async def get_stats(services: Services, request: Request) -> Response:
    """Usage over time and by dimension."""
    parameters = dict(request.query_params)
    filters = _dimension_filters(request, parameters, _STATS_PARAMETERS)
    from_at, to_at = read_range(parameters, services.clock.now())
    query = StatsQuery(
        from_at,
        to_at,
        parameters.get("interval", "none"),
        _names_in(parameters.get("group_by", "")),
        filters,
        _names_in(parameters.get("metrics", "")),
        rows_max=ROWS_MAX + 1,
        top=read_count(parameters, "top", 0),
        top_by=parameters.get("top_by", "cost_usd"),
    )
    rows = await ask_facts(services.stats.query, query)
    answer = {"from": format_time(from_at), "to": format_time(to_at), "rows": rows[:ROWS_MAX]}
    return respond({**answer, "has_more": len(rows) > ROWS_MAX})


def _names_in(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in text.split(",") if name))


def _own_filters(request: Request, parameters: dict[str, str], known: set[str]) -> dict[str, str]:
    """The dimensions that are asked for, within the tenant of who asks."""
    filters = {name: value for name, value in parameters.items() if name not in known}
    if "tenant_id" in parameters:
        filters["tenant"] = parameters["tenant_id"]
    tenant_id = tenant_of(request, filters.get("tenant", ""))
    return {**filters, "tenant": tenant_id} if tenant_id else filters


def _dimension_filters(
    request: Request, parameters: dict[str, str], known: set[str]
) -> dict[str, str]:
    filters = _own_filters(request, parameters, known)
    for name in ("user_id", "project_id"):
        if name in filters:
            filters[name.removesuffix("_id")] = filters.pop(name)
    for name in filters:
        if name not in DIMENSIONS:
            raise InvalidInput(
                f"unknown parameter {name[:40]!r}; known: {', '.join(sorted(known))}, "
                f"{', '.join(DIMENSIONS)}",
                code="unknown_parameter",
                field=name[:40],
            )
    return filters


async def list_runs(services: Services, request: Request) -> Response:
    """Runs, newest first."""
    parameters = dict(request.query_params)
    filters = _own_filters(request, parameters, _RUN_PARAMETERS)
    for name in ("from", "to"):
        if name in filters:
            filters[name] = str(read_moment(filters[name], name))
    page = await ask_facts(
        services.runs.page,
        filters,
        cursor=parameters.get("cursor"),
        limit=read_limit(parameters, 50),
    )
    return respond(page)


async def get_run(services: Services, request: Request) -> Response:
    """What happened in one run."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", "")) or None
    return respond(await ask_facts(run_story, services, request.path_params["run_id"], tenant_id))


def run_story(services: Services, run_id: str, tenant_id: str | None) -> dict[str, Any]:
    """The run's facts with the ledger's part: its charge and its operations."""
    story = services.runs.get(run_id, tenant_id)
    charge = services.ledger.load_run_charge(story["tenant_id"], run_id)
    operations = services.ledger.load_run_operations(story["tenant_id"], run_id)
    story["charge"] = charge and {
        "account_id": charge.account_id,
        "target": credits_text(charge.target),
        "charged": credits_text(charge.charged),
        "shortfall": credits_text(charge.shortfall),
        "refunded": credits_text(charge.refunded),
        "revision": charge.revision,
        "updated_at": format_time(charge.updated_at),
    }
    story["ledger_operations"] = [
        {
            **{name: operation[name] for name in ("operation_id", "account_id", "kind", "outcome")},
            "amount": credits_text(operation["units"]),
            "shortfall": credits_text(operation["shortfall"]),
            "reason": operation["reason"],
            "posted_at": format_time(operation["posted_at"]),
        }
        for operation in operations
    ]
    return story


_EVENT = {
    "event_id": "evt-1",
    "event_type": "token_usage",
    "event_time": "2026-11-20T09:30:00Z",
    "tenant_id": "acme",
    "run_id": "run-42",
    "attempt": 1,
    "provider": "openai",
    "model": "gpt-4o",
    "tokens_input": 1200,
    "tokens_output": 250,
    "tokens_cache_read": 1024,
    "feature": "support-chat",
}
_EVENTS = (
    "application/json",
    "application/x-ndjson",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
)
_STATS_ROW = {
    "model": "gpt-4o",
    "runs": 1,
    "calls": 1,
    "tokens_input": 1200,
    "cost_usd": "0.00422",
    "cost_coverage": 1.0,
    "credits": "0.5064",
}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/events",
        post_events,
        "Take events: one object, an array, NDJSON or CloudEvents; answers once durable",
        {"accepted": 1, "duplicates": 0, "rejected": []},
        body_example=[_EVENT],
        needs="usage:write",
        body_types=_EVENTS,
    ),
    RouteEntry(
        "GET",
        "/v1/stats",
        get_stats,
        "Usage, cost and credits over time and by dimension",
        {
            "from": "2026-11-20T00:00:00Z",
            "to": "2026-11-21T00:00:00Z",
            "rows": [_STATS_ROW],
            "has_more": False,
        },
        query=("from", "to", "interval", "group_by", "metrics", "top", "top_by", "tenant_id"),
        needs="usage:read",
    ),
    RouteEntry(
        "GET",
        "/v1/runs",
        list_runs,
        "Runs, newest first; by status, dimension, or an event that they have, in the range "
        "or else by their start",
        {"runs": [{"run_id": "run-42", "status": "completed"}], "next_cursor": None},
        query=(
            "tenant_id",
            "status",
            "model",
            "tool",
            "error_code",
            "from",
            "to",
            "limit",
            "cursor",
        ),
        needs="usage:read",
    ),
    RouteEntry(
        "GET",
        "/v1/runs/{run_id:path}",
        get_run,
        "What happened in one run: timeline, attempts, cost, charges, what came late or twice",
        {
            "run_id": "run-42",
            "status": "completed",
            "timeline": [],
            "is_timeline_cut": False,
            "expired_before": None,
            "charge": None,
        },
        query=("tenant_id",),
        needs="usage:read",
    ),
)
"""Entries of the table of routes."""
