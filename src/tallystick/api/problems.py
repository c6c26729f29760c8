"""Errors as RFC 9457 problems: `code` for machines, `detail` for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.errors import TallystickError

_OF_DECLINES = ("retry", "operation_id")
"""What a decline says besides: whether waiting can help, and by which id it is explained."""


def problem_content(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    decided_by: str | None = None,
    field: str | None = None,
) -> dict[str, Any]:
    """The members of a problem."""
    content: dict[str, Any] = {
        "type": f"urn:tallystick:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
        "retryable": retryable,
        "decided_by": decided_by,
    }
    if field:
        content["field"] = field
    return content


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    decided_by: str | None = None,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Make an application/problem+json response; `more` are members besides the usual."""
    content = problem_content(
        status, code, detail, retryable=retryable, decided_by=decided_by, field=field
    )
    content |= more or {}
    return Response(
        msgspec.json.encode(content),
        status_code=status,
        media_type="application/problem+json",
        headers=dict(headers or {}),
    )


def from_error(error: TallystickError) -> Response:
    """Make the problem of a failure of ours."""
    headers = {}
    if (retry_after := getattr(error, "retry_after_seconds", None)) is not None:
        headers["Retry-After"] = str(retry_after)
    if error.http_status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tallystick"'
    return problem(
        error.http_status,
        error.code,
        error.message,
        retryable=error.retryable,
        decided_by=getattr(error, "decided_by", None),
        field=error.field,
        headers=headers,
        more={name: said for name in _OF_DECLINES if (said := getattr(error, name, ""))},
    )


async def on_http_error(_: Request, error: Exception) -> Response:
    """Starlette's handler for its own errors (404, 405)."""
    status = getattr(error, "status_code", 500)
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    detail = {404: "there is no such route", 405: "this route does not take this method"}.get(
        status, "the request could not be answered"
    )
    return problem(status, code, detail, headers=getattr(error, "headers", None))


async def on_disconnect(_: Request, error: Exception) -> Response:
    """Who went away before the request was here gets nothing, and fills no log."""
    return Response(status_code=400)


async def on_unexpected_error(_: Request, error: Exception) -> Response:
    """The last resort: says nothing of the inside."""
    return problem(500, "internal_error", "an unexpected failure; it is in the server's log")
