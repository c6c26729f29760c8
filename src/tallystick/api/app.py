"""The ASGI application: the table of routes behind a key, health without one."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tallystick.api.auditing import audit
from tallystick.api.oauth import oauth_routes
from tallystick.api.openapi import build_openapi
from tallystick.api.problems import from_error, on_disconnect, on_http_error, on_unexpected_error
from tallystick.api.requests import check_path, respond
from tallystick.api.route_entry import RouteEntry
from tallystick.api.routes import ROUTES
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts, ask_readiness
from tallystick.enforcement.rates import UNLIMITED, rate_headers
from tallystick.errors import TallystickError

Endpoint = Callable[[Request], Awaitable[Response]]
_log = logging.getLogger(__name__)
_BUSY = {("POST", "/v1/holds"), ("POST", "/v1/events")}


async def get_metrics(services: Services, request: Request) -> Response:
    """What Prometheus scrapes."""
    text = await ask_facts(
        services.metrics.render, services.freshness, services.ledger, services.seals
    )
    return Response(text, media_type="text/plain; version=0.0.4")


METRICS = RouteEntry(
    "GET",
    "/metrics",
    get_metrics,
    "Telemetry of the product itself",
    "",
    media_type="text/plain; version=0.0.4",
    needs="operations:read",
    is_for_operator=True,
)


def create_app(
    services: Services,
    pages: Sequence[BaseRoute] = (),
    gateway: Mapping[tuple[str, str], Endpoint] | None = None,
    close_gateway: Callable[[], Awaitable[None]] | None = None,
    *,
    has_routes: bool = True,
) -> ShortWay:
    """Build the application; `pages` are the dashboard's routes, `gateway` the gateway's.

    Without `has_routes` it is the gateway alone, with health and metrics.
    """
    document = msgspec.json.encode(build_openapi())

    async def healthz(_: Request) -> Response:
        return respond({"status": "ok"})

    async def readyz(_: Request) -> Response:
        is_ready, report = await ask_readiness(services.ready)
        return respond({"ready": is_ready, **report}, 200 if is_ready else 503)

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:  # closed in reverse, whatever one of them raises
            await services.committer.open()
            stack.push_async_callback(services.committer.close)
            await services.audit.open()
            stack.push_async_callback(services.audit.close)
            stack.push_async_callback(services.calls.close)
            if close_gateway is not None:
                stack.push_async_callback(close_gateway)
            await stack.enter_async_context(services.rates.following())
            yield

    routes: list[BaseRoute] = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        _route(services, METRICS),
        *oauth_routes(services),
        Route("/openapi.json", openapi),
        *(_route(services, entry) for entry in ROUTES if has_routes),
        *pages,
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: on_http_error,
            ClientDisconnect: on_disconnect,
            Exception: on_unexpected_error,
        },
        lifespan=lifespan,
    )
    short = _short_ways(services) if has_routes else {}
    return ShortWay(app, {**short, **(gateway or {})})


def _short_ways(services: Services) -> dict[tuple[str, str], Endpoint]:
    ways = {(entry.method, entry.path): entry for entry in ROUTES}
    return {name: _endpoint(services, ways[name]) for name in _BUSY}


class ShortWay:
    """Answers the busiest routes without walking the table and the layers around it.

    At 5,000 holds a second the walk took a third of a core. Failures that nobody expected
    are answered here as they are there.
    """

    def __init__(self, app: Starlette, endpoints: dict[tuple[str, str], Any]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        endpoint = self._endpoints.get((scope.get("method", ""), scope.get("path", "")))
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except ClientDisconnect as error:
            response = await on_disconnect(request, error)
        except Exception as error:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            response = await on_unexpected_error(request, error)
        await response(scope, receive, send)


def _route(services: Services, entry: RouteEntry) -> Route:
    return Route(entry.path, _endpoint(services, entry), methods=[entry.method])


def _endpoint(services: Services, entry: RouteEntry) -> Any:
    async def handle(request: Request) -> Response:
        return await entry.handler(services, request)

    return _keyed(services, entry, handle)


def _keyed(services: Services, entry: RouteEntry, handle: Any) -> Any:
    """Pass the gate, answer failures as problems, record and measure."""
    path = entry.path.replace(":path", "")  # as the OpenAPI document names it
    seconds = services.metrics.seconds.labels(path)
    counters: dict[tuple[str, int], Any] = {}

    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        try:
            await services.gate.admit(request, entry.needs, is_for_operator=entry.is_for_operator)
            check_path(request)
            response: Response = await handle(request)
        except TallystickError as error:
            if error.http_status >= 500 and not error.retryable:
                _log.error("%s %s: %s", request.method, path, error.message)
            response = from_error(error)
        rate = getattr(request.state, "rate", UNLIMITED)
        if rate is not UNLIMITED:
            response.headers.update(rate_headers(rate))
        try:
            await audit(services, request, path, entry.needs, response, started)
        except TallystickError as error:
            response = from_error(error)  # what was done stands; the same key answers the same
        name = (request.method, response.status_code)
        if name not in counters:
            counters[name] = services.metrics.requests.labels(name[0], path, str(name[1]))
        counters[name].inc()
        seconds.observe(time.perf_counter() - started)
        return response

    return endpoint
