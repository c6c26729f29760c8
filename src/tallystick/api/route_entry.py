"""One route of the table: path, method, handler, and what the OpenAPI document says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.services import Services

Handler = Callable[[Services, Request], Awaitable[Response]]


class RouteEntry(NamedTuple):
    """One route; `query` names its parameters, `body` its typed request."""

    method: str
    path: str
    handler: Handler
    summary: str
    example: Any
    status: int = 200
    body: type | None = None
    body_example: Any = None
    query: tuple[str, ...] = ()
    media_type: str = "application/json"
    needs: str = "admin"
    """The permission of who may ask; a route that names none is for the operator alone."""
    is_for_operator: bool = False
    """Only for who belongs to no tenant: it shows or moves what belongs to all of them."""
    body_types: tuple[str, ...] = ("application/json",)
    """What a body may be sent as."""
    other_types: tuple[str, ...] = ()
    """Media types of answers besides the first, also of failures."""
