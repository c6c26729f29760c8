"""Reading requests: bodies within bounds, typed JSON, times, amounts and keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tallystick.access import Principal
from tallystick.bounds import BODY_BYTES_MAX
from tallystick.clock import DAY, MINUTE, SECOND
from tallystick.errors import BodyTooLarge, Forbidden, InvalidInput
from tallystick.events.rules import Refused, read_time
from tallystick.units import CREDIT, format_amount, parse_amount

T = TypeVar("T")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_FIELD = re.compile(r"`\$\.(\w+)|required field `(\w+)`$")
"""Where msgspec names the field of the body."""

_SMALL_BODY_BYTES_MAX = 1024 * 1024
_YEAR_2200 = 7_258_118_400 * SECOND
_encoder = msgspec.json.Encoder()


async def read_body(request: Request, limit: int = BODY_BYTES_MAX) -> bytes:
    """Read a body; raise BodyTooLarge as soon as it is over the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    total = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        piece = message.get("body", b"")
        total += len(piece)
        if total > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join([*pieces, piece])
        pieces.append(piece)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"a body may have at most {limit} bytes; send smaller batches")


def check_path(request: Request) -> None:
    """Raise InvalidInput for a path or query with a NUL, which no store can look for."""
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidInput("a path or query may not have a NUL", code="bad_text")


async def read_json(
    request: Request,
    shape: type[T],
    limit: int = _SMALL_BODY_BYTES_MAX,
    *,
    allow_empty: bool = False,
) -> T:
    """Read a typed JSON body; raise InvalidInput naming the field."""
    body = await read_body(request, limit)
    if allow_empty and not body:
        body = b"{}"
    has_nul = b"\\u0000" in body and _NUL.search(body) is not None
    try:
        if has_nul:
            raise _nul_refused(msgspec.json.decode(body))
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        reason = str(error)  # says the wanted type and the path, not the value
        field = _FIELD.search(reason)
        raise InvalidInput(
            f"body: {reason}", code="bad_body", field=field and (field[1] or field[2])
        ) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput("body: not valid JSON", code="bad_body") from error


def _nul_refused(content: Any) -> InvalidInput:
    fields = content.items() if isinstance(content, dict) else ()
    with_nul = (str(name) for name, value in fields if b"u0000" in msgspec.json.encode(value))
    return InvalidInput("body: no text may have a NUL", code="bad_body", field=next(with_nul, None))


def respond(content: Any, status: int = 200, *, media_type: str = "application/json") -> Response:
    """Answer with JSON."""
    return Response(_encoder.encode(content), status_code=status, media_type=media_type)


def idempotency_key(request: Request, in_body: str) -> str:
    """The key of the header, or else of the body; both must agree."""
    in_header = request.headers.get("idempotency-key", "")
    if in_header and in_body and in_header != in_body:
        raise InvalidInput(
            "Idempotency-Key and idempotency_key differ; send one", code="key_mismatch"
        )
    return in_header or in_body


def read_moment(text: str, field: str) -> int:
    """Read a time of a query parameter into micros."""
    try:
        return read_time(text.replace(" ", "+"), field, _YEAR_2200)
    except Refused as refused:
        raise InvalidInput(refused.reason, code=refused.code, field=field) from refused


def read_range(query: Mapping[str, str], now: int) -> tuple[int, int]:
    """The range [from, to); by default the last 24 hours up to the next whole minute."""
    end = (now // MINUTE + 1) * MINUTE
    to_at = read_moment(query["to"], "to") if "to" in query else end
    from_at = read_moment(query["from"], "from") if "from" in query else to_at - DAY
    return from_at, to_at


def read_limit(query: Mapping[str, str], default: int) -> int:
    """The page size."""
    return read_count(query, "limit", default)


def read_count(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of at most five digits."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 6):
        raise InvalidInput(f"{name} must be a whole number", code=f"bad_{name}", field=name)
    return int(text)


def principal_of(request: Request) -> Principal:
    """Who asks, as the gate found it."""
    found: Principal = request.state.principal
    return found


def tenant_of(request: Request, asked: str = "") -> str:
    """Whose data is meant: the tenant of who asks, else what was asked; "" is every tenant.

    Raises Forbidden when a tenant names another one.
    """
    own = principal_of(request).tenant_id
    if own and asked not in ("", own):
        raise Forbidden("this key belongs to another tenant", code="tenant_mismatch")
    return own or asked


def credits_of(text: object, field: str = "amount") -> int:
    """Read an amount of credits."""
    return parse_amount(text, CREDIT, field=field)


def credits_text(units: int) -> str:
    """Write an amount of credits."""
    return format_amount(units, CREDIT)
