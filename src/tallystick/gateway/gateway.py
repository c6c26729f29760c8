"""The gateway's endpoints: who asks, what is asked, and the answer in the provider's shape."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tallystick.bounds import GATEWAY_BODY_BYTES_MAX
from tallystick.clock import Clock
from tallystick.errors import BodyTooLarge, NotFound, TallystickError
from tallystick.gateway.attribution import place_of
from tallystick.gateway.calling import Call, Calling
from tallystick.gateway.door import Door, TokenRate
from tallystick.gateway.errors import refusal
from tallystick.gateway.headers import passed_on
from tallystick.gateway.health import Health
from tallystick.gateway.keys import KeyRing
from tallystick.gateway.model import ModelUnknown
from tallystick.gateway.models import find_models, list_of
from tallystick.gateway.money import Calls
from tallystick.gateway.outbound import Outbound
from tallystick.gateway.settings import GatewaySettings
from tallystick.gateway.streams import StreamAnswer, add_headers
from tallystick.gateway.surfaces import COUNTING, SURFACES, Surface
from tallystick.ids import IdSource

_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]
_MODELS = "/openai/v1/models"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class _Rest(PathConvertor):
    """The rest of a path, whatever stands in it; Starlette's own ends at a line's end."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


class Gateway:
    """Answers the paths of `endpoints` and `routes`; used within one event loop."""

    def __init__(
        self,
        calling: Calling,
        outbound: Outbound,
        door: Door,
        ids: IdSource,
        health: Health,
        keys: KeyRing,
    ) -> None:
        self._calling = calling
        self._keys = keys
        self._outbound = outbound
        self._door = door
        self._ids = ids
        self.health = health
        self.endpoints: dict[tuple[str, str], Endpoint] = {
            **{("POST", one.path): self._endpoint(one, is_free=False) for one in SURFACES},
            **{("POST", one.path): self._endpoint(one, is_free=True) for one in COUNTING},
            ("GET", _MODELS): self._recorded(_MODELS, "openai", self._models),
        }
        model = self._recorded(_MODELS + "/{model}", "openai", self._model)
        self.routes = [
            Route(_MODELS + "/{model:rest}", model),
            *(_nothing_else(speaks) for speaks in ("openai", "anthropic")),
        ]

    async def close(self) -> None:
        """Finish what ends holds, then close connections."""
        await self._calling.close()
        await self._outbound.close()
        await asyncio.to_thread(self._keys.close)

    def _endpoint(self, surface: Surface, *, is_free: bool) -> Endpoint:
        async def answer(request: Request) -> Response:
            call = await self._read(surface, request, is_free=is_free)
            try:
                if is_free:
                    return await self._calling.pass_on(call)
                return await self._calling.answer(call)
            except TallystickError:
                await call.rate.used(0)  # nothing more than what attempts have counted
                raise

        return self._recorded(surface.path, surface.speaks, answer)

    def _recorded(self, route: str, speaks: str, answer: Endpoint) -> Endpoint:
        """Answer failures in the provider's shape, say where limits stand, and record it."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            code = ""
            try:
                response = await answer(request)
            except TallystickError as error:
                code, response = error.code, refusal(speaks, error)
            except ClientDisconnect:
                raise
            except Exception:
                _log.exception("%s failed", route)
                failure = TallystickError("an unexpected failure")
                code, response = failure.code, refusal(speaks, failure)
            try:
                add_headers(response, self._door.headers(request))
                self._door.note(request, route, response.status_code, code, started)
            except BaseException:
                if isinstance(response, StreamAnswer):  # or its hold would stay
                    await response.abandon()
                raise
            return response

        return endpoint

    async def _read(self, surface: Surface, request: Request, *, is_free: bool) -> Call:
        _accept_api_key(request)
        principal = await self._door.admit(request)
        asked = surface.read(await _read_body(request))
        headers = request.scope["headers"]
        place = place_of(principal, headers, asked.metadata)  # refuses before anything is taken
        tokens = 0 if is_free else asked.tokens_input + (asked.tokens_output_max or 0)
        await self._door.take_tokens(request, tokens)
        return Call(
            surface,
            asked,
            principal,
            place,
            passed_on(headers, surface.speaks),
            self._ids.next_id(),
            TokenRate(self._door, principal, tokens),
        )

    async def _models(self, request: Request) -> Response:
        return _json(list_of(await self._found(request)))

    async def _model(self, request: Request) -> Response:
        name = request.path_params["model"]
        entry = (await self._found(request)).get(name)
        if entry is None:
            raise ModelUnknown(f"there is no model {name} here for this key")
        return _json(entry)

    async def _found(self, request: Request) -> dict[str, dict[str, Any]]:
        principal = await self._door.admit(request)
        return await find_models(self._calling.settings, self._outbound, self._keys, principal)


def make_gateway(
    calls: Calls,
    settings: GatewaySettings,
    keys: KeyRing,
    door: Door,
    clock: Clock,
    ids: IdSource,
) -> Gateway:
    """Put the parts together."""
    outbound = Outbound()
    health = Health(clock, settings.retry_share, random.random)
    calling = Calling(calls, outbound, settings, keys, health, ids)
    return Gateway(calling, outbound, door, ids, health, keys)


def _nothing_else(speaks: str) -> Route:
    """The rest of a provider's paths: its SDK is told in its own words that they are not here."""

    async def answer(request: Request) -> Response:
        asked = f"{request.method} {request.url.path}"
        return refusal(speaks, NotFound(f"the gateway does not answer {asked}"))

    return Route(f"/{speaks}/{{path:rest}}", answer, methods=_METHODS)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _accept_api_key(request: Request) -> None:
    """Anthropic's SDK sends its key as x-api-key; the gate reads a bearer token."""
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    names = [name for name, _ in headers]
    if b"x-api-key" in names and b"authorization" not in names:
        key = headers[names.index(b"x-api-key")][1]
        request.scope["headers"] = [*headers, (b"authorization", b"Bearer " + key)]


async def _read_body(request: Request) -> bytes:
    too_large = f"a body may have at most {GATEWAY_BODY_BYTES_MAX} bytes"
    for name, value in request.scope["headers"]:
        if name == b"content-length" and int(value) > GATEWAY_BODY_BYTES_MAX:
            raise BodyTooLarge(too_large)
    pieces: list[bytes] = []
    total = 0
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        piece = message.get("body", b"")
        total += len(piece)
        if total > GATEWAY_BODY_BYTES_MAX:
            raise BodyTooLarge(too_large)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces) if len(pieces) > 1 else piece
