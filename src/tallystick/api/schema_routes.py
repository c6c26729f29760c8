"""Routes of schemas: what producers may send, and which versions they do send."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.clock import DAY
from tallystick.errors import NotFound
from tallystick.events.asyncapi import build_asyncapi
from tallystick.events.fields import SCHEMA_VERSION
from tallystick.events.schemas import build_schemas

_DOCUMENTS = {**build_schemas(), "asyncapi.yaml": build_asyncapi()}


async def list_schemas(services: Services, request: Request) -> Response:
    """What is published, and the versions of the last day's events."""
    since = services.clock.now() - DAY
    seen = await ask_facts(services.runs.query_versions, since, tenant_of(request))
    return respond(
        {
            "schema_version": SCHEMA_VERSION,
            "schemas": sorted(_DOCUMENTS),
            "seen_last_day": [
                {"schema_version": version, "events": events, "is_newer": version > SCHEMA_VERSION}
                for version, events in seen
            ],
        }
    )


async def get_schema(services: Services, request: Request) -> Response:
    """One published document."""
    document = _DOCUMENTS.get(request.path_params["name"])
    if document is None:
        raise NotFound("there is no schema of this name", code="unknown_schema")
    is_schema = "$schema" in document
    return respond(
        document, media_type="application/schema+json" if is_schema else "application/json"
    )


ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/schemas",
        list_schemas,
        "Published event schemas, and the versions that producers wrote in the last day",
        {
            "schema_version": 1,
            "schemas": ["event.schema.json"],
            "seen_last_day": [{"schema_version": 1, "events": 36401, "is_newer": False}],
        },
        needs="usage:read",
    ),
    RouteEntry(
        "GET",
        "/v1/schemas/{name}",
        get_schema,
        "One JSON Schema by file name, or asyncapi.yaml (written as JSON)",
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "event"},
        needs="usage:read",
    ),
)
"""Entries of the table of routes."""
