"""Routes of rate cards: list them and their versions, record a version."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import read_json, read_moment, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.clock import format_time


class RateCardVersionBody(msgspec.Struct):
    """Body of POST /v1/rate-cards/{rate_card_id}/versions."""

    kind: str
    content: dict[str, Any]
    effective_at: str
    tenant_id: str = ""
    source: str = "api"


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


ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/rate-cards",
        list_rate_cards,
        "Rate cards",
        {"rate_cards": [{"rate_card_id": "credits", "kind": "credit", "versions": 1}]},
        needs="prices:read",
    ),
    RouteEntry(
        "GET",
        "/v1/rate-cards/{rate_card_id}/versions",
        list_rate_card_versions,
        "Versions of a rate card, newest first",
        {"rate_card_id": "credits", "versions": [{"version_id": 2}]},
        needs="prices:read",
    ),
    RouteEntry(
        "POST",
        "/v1/rate-cards/{rate_card_id}/versions",
        post_rate_card_version,
        "Record a version of a rate card",
        {"rate_card_id": "credits", "versions": [{"version_id": 3}]},
        201,
        RateCardVersionBody,
        {
            "kind": "credit",
            "effective_at": "2026-12-01T00:00:00Z",
            "content": {"token_markup": "1.3"},
        },
        needs="prices:write",
        is_for_operator=True,
    ),
)
"""Entries of the table of routes."""
