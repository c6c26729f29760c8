"""Failures of ours in the shape that each provider's SDK expects.

OpenAI: {"error": {"message", "type", "param", "code"}}; Anthropic: {"type": "error",
"error": {"type", "message"}}. `code`, `decided_by` and `operation_id` are as in our own problems.
402 is for money, 429 (with Retry-After) for rates.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from tallystick.errors import TallystickError

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def refusal_body(speaks: str, error: TallystickError) -> bytes:
    """The body of an error answer."""
    status, decided_by = error.http_status, getattr(error, "decided_by", "")
    inner: dict[str, Any] = {"message": error.message}
    if speaks == "anthropic":
        inner["type"] = _ANTHROPIC_TYPES.get(status, "api_error")
    else:
        inner["type"] = _OPENAI_TYPES.get(status, "api_error")
        inner["param"] = error.field
    inner["code"] = error.code
    if decided_by:
        inner["decided_by"] = decided_by
    if operation_id := getattr(error, "operation_id", ""):
        inner["operation_id"] = operation_id  # GET /v1/refusals/{operation_id} says why
    if speaks == "anthropic":
        return msgspec.json.encode({"type": "error", "error": inner})
    return msgspec.json.encode({"error": inner})


def refusal(speaks: str, error: TallystickError) -> Response:
    """An error answer. What will not change by itself must not be tried again by an SDK."""
    headers: dict[str, str] = {}
    wait = getattr(error, "retry_after_seconds", None)
    if wait is not None:
        headers["Retry-After"] = str(wait)
    if not error.retryable:
        headers["X-Should-Retry"] = "false"
    if error.http_status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tallystick"'
    return Response(
        refusal_body(speaks, error),
        status_code=error.http_status,
        media_type="application/json",
        headers=headers,
    )
