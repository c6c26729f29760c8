"""The OpenAPI 3.1 document, made from the table of routes and the typed bodies."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tallystick import __version__
from tallystick.api.other_paths import SCHEMAS, other_paths
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

_MEANS = {
    400: "The request is not valid; `field` says what",
    401: "No key or token that is good",
    402: "Declined: credit or a limit has no room, nothing was taken",
    403: "Not with this key",
    404: "There is none, or it is another tenant's",
    409: "It changed, or the same key was sent with other content",
    413: "The body is too large",
    415: "The body is in a form that is not taken",
    422: "Understood, but it cannot be done",
    429: "Too many requests; `Retry-After` says when to come back",
    503: "A store is away or full; try again after `Retry-After`",
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
        "paths": {**paths, **other_paths()},
        "components": {
            "schemas": {**components, "Problem": _PROBLEM, **SCHEMAS},
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
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            str(route.status): {
                "description": "OK",
                "content": {
                    route.media_type: {"example": route.example},
                    **{name: {} for name in route.other_types},
                },
            },
            **_problems(route),
        },
    }
    if route.body_example is not None:
        content: dict[str, Any] = {"example": route.body_example}
        if route.body is not None:
            content["schema"] = by_body[route.body]
        kinds = {name: content if name.endswith("json") else {} for name in route.body_types}
        operation["requestBody"] = {"required": True, "content": kinds}
    return operation


def _problems(route: RouteEntry) -> dict[str, Any]:
    """The failures of a route by status; each is a problem, or in the form of its protocol."""
    statuses = [400, 401, 403, 429, 503]
    if _PATH_PARAMETER.search(route.path) or route.body is not None:
        statuses.append(404)
    if route.method != "GET":
        statuses += [402, 409, 422]
    if route.method != "GET" and route.body_example is not None:
        statuses += [413, 415]
    problem = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        **{name: {} for name in route.other_types},
    }
    return {
        str(status): {"description": _MEANS[status], "content": problem}
        for status in sorted(statuses)
    }
