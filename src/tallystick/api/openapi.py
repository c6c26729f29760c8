"""The OpenAPI 3.1 document, made from the table of routes and the typed bodies."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tallystick import __version__
from tallystick.api.route_entry import RouteEntry
from tallystick.api.routes import ROUTES

_PATH_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "retryable"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "retryable": {"type": "boolean"},
        "decided_by": {"type": ["string", "null"]},
        "field": {"type": "string"},
    },
}


def build_openapi() -> dict[str, Any]:
    """Return the document, ready for JSON."""
    bodies = [route.body for route in ROUTES if route.body is not None]
    schemas, components = msgspec.json.schema_components(
        bodies, ref_template="#/components/schemas/{name}"
    )
    by_body = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        path = route.path.replace(":path", "")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, by_body)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tallystick",
            "version": __version__,
            "description": "Metered once, charged once, explained afterwards.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: RouteEntry, by_body: dict[type, dict[str, Any]]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in route.query
    ]
    problem = {
        "description": "A problem (RFC 9457)",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            str(route.status): {
                "description": "OK",
                "content": {route.media_type: {"example": route.example}},
            },
            "4XX": problem,
            "5XX": problem,
        },
    }
    if route.body_example is not None:
        content: dict[str, Any] = {"example": route.body_example}
        if route.body is not None:
            content["schema"] = by_body[route.body]
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation
