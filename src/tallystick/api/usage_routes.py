"""Routes of usage: events in; stats, runs, freshness, rate cards and verification out."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.analytics.stats import DIMENSIONS, StatsQuery
from tallystick.api.requests import (
    credits_text,
    read_body,
    read_json,
    read_limit,
    read_moment,
    read_range,
    respond,
    tenant_of,
)
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.errors import InvalidInput
from tallystick.reconcile.verify import CHECKED

_STATS_PARAMETERS = {"from", "to", "interval", "group_by", "tenant_id"}
_RUN_PARAMETERS = {"cursor", "limit", "tenant_id"}


class RateCardVersionBody(msgspec.Struct):
    """Body of POST /v1/rate-cards/{rate_card_id}/versions."""

    kind: str
    content: dict[str, Any]
    effective_at: str
    tenant_id: str = ""
    source: str = "api"


class ReconciliationBody(msgspec.Struct):
    """Body of POST /v1/reconciliations/ledger."""

    repair: bool = False


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
    group_by = tuple(name for name in parameters.get("group_by", "").split(",") if name)
    query = StatsQuery(
        from_at, to_at, parameters.get("interval", "none"), tuple(dict.fromkeys(group_by)), filters
    )
    rows = await asyncio.to_thread(services.stats.query, query)
    return respond({"from": format_time(from_at), "to": format_time(to_at), "rows": rows})


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
    page = await asyncio.to_thread(
        services.runs.page,
        filters,
        cursor=parameters.get("cursor"),
        limit=read_limit(parameters, 50),
    )
    return respond(page)


async def get_run(services: Services, request: Request) -> Response:
    """What happened in one run."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", "")) or None
    return respond(
        await asyncio.to_thread(run_story, services, request.path_params["run_id"], tenant_id)
    )


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


async def get_freshness(services: Services, request: Request) -> Response:
    """How far each follower is."""
    return respond(await asyncio.to_thread(services.freshness.report))


async def get_verification(services: Services, request: Request) -> Response:
    """Check the invariants on live data; with `ledger=true` also every sealed operation."""
    has_seals = request.query_params.get("ledger") == "true"
    head = request.query_params.get("expected_head", "")
    return respond(await asyncio.to_thread(verification, services, has_seals, head))


def verification(services: Services, has_seals: bool, expected_head: str) -> dict[str, Any]:
    """What holds; `seal_head` is the newest block's hash, to be kept elsewhere."""
    violations = services.verifier.violations()
    checked = dict(CHECKED)
    answer: dict[str, Any] = {}
    if has_seals:
        violations += services.verifier.sealed(expected_head)
        checked |= {"SEAL": "no operation differs from its sealed hash"}
        answer["seal_head"] = services.verifier.seal_head()
    found = [msgspec.to_builtins(broken) for broken in violations]
    return {"checked": checked, "holds": not found, "violations": found, **answer}


async def post_ledger_reconciliation(services: Services, request: Request) -> Response:
    """Compare the ledger with history, facts and rollups; with `repair` set rows right."""
    body = await read_json(request, ReconciliationBody, allow_empty=True)
    return respond(
        await asyncio.to_thread(
            services.reconciler.report, services.clock.now(), is_repairing=body.repair
        )
    )


async def list_rate_cards(services: Services, request: Request) -> Response:
    """Rate cards."""
    cards = await asyncio.to_thread(services.catalog.list_cards, tenant_of(request))
    return respond({"rate_cards": cards})


async def list_rate_card_versions(services: Services, request: Request) -> Response:
    """Versions of a rate card, newest first."""
    card_id = request.path_params["rate_card_id"]
    return respond(await _versions_of(services, card_id, tenant_of(request)))


async def _versions_of(services: Services, card_id: str, tenant_id: str) -> dict[str, Any]:
    versions = await asyncio.to_thread(services.catalog.list_versions, card_id, tenant_id)
    for version in versions:
        version["effective_at"] = format_time(version["effective_at"])
        version["recorded_at"] = format_time(version["recorded_at"])
    return {"rate_card_id": card_id, "versions": versions}


async def post_rate_card_version(services: Services, request: Request) -> Response:
    """Record a version of a rate card; it rates events from effective_at on."""
    body = await read_json(request, RateCardVersionBody)
    card_id = request.path_params["rate_card_id"]
    await asyncio.to_thread(
        services.catalog.add_version,
        card_id,
        kind=body.kind,
        tenant_id=body.tenant_id,
        content=body.content,
        effective_at=read_moment(body.effective_at, "effective_at"),
        source=body.source,
        clock=services.clock,
    )
    return respond(await _versions_of(services, card_id, tenant_of(request)), 201)
