"""OAuth 2.0 for services: a token for a client's secret, and where its keys are published.

Formats: RFC 6749 (4.4 and 5.2), RFC 8414, RFC 7517. These answer anybody: the client's secret is
what they check, and errors say nothing that would tell an unknown client from a wrong secret.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallystick.access.tokens import TOKEN_SECONDS
from tallystick.api.auditing import note_answer
from tallystick.api.gate import address_of
from tallystick.api.requests import read_body, respond
from tallystick.api.services import Services
from tallystick.errors import Forbidden, InvalidInput, TallystickError, Unauthorized

_FORM_BYTES_MAX = 16 * 1024
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def oauth_routes(services: Services) -> list[Route]:
    """The routes that need no key."""

    async def jwks(_: Request) -> Response:
        keys = await asyncio.to_thread(services.access.issuer.public_keys)
        answer = respond({"keys": keys}, media_type="application/jwk-set+json")
        answer.headers["Cache-Control"] = "public, max-age=60"
        return answer

    async def metadata(_: Request) -> Response:
        issuer = services.access.issuer.name
        return respond(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/oauth/token",
                "jwks_uri": f"{issuer}/.well-known/jwks.json",
                "grant_types_supported": ["client_credentials"],
                "response_types_supported": [],
                "token_endpoint_auth_methods_supported": [
                    "client_secret_basic",
                    "client_secret_post",
                ],
            }
        )

    return [
        Route("/oauth/token", _recorded(services, _token_endpoint(services)), methods=["POST"]),
        Route("/.well-known/jwks.json", _answered(jwks)),
        Route("/.well-known/oauth-authorization-server", _answered(metadata)),
    ]


def _answered(handle: Callable[[Request], Awaitable[Response]]) -> Callable[..., object]:
    """Answer a store that is away as such, not as an unexpected failure."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handle(request)
        except TallystickError as error:
            return _failure("temporarily_unavailable", error.message, error.http_status)

    return endpoint


def _recorded(
    services: Services, handle: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Record who was given a token; failures are folded by address."""

    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        try:
            services.audit.check_room()
        except TallystickError as error:
            return _failure("temporarily_unavailable", error.message, error.http_status)
        answer = await handle(request)
        code = "" if answer.status_code < 400 else "token_refused"
        note_answer(services, request, "/oauth/token", answer.status_code, code, started)
        return answer

    return endpoint


def _token_endpoint(services: Services) -> Callable[[Request], Awaitable[Response]]:
    async def token(request: Request) -> Response:
        try:
            body = await read_body(request, _FORM_BYTES_MAX)
            form = _read_form(request, body)
            if form.get("grant_type") != "client_credentials":
                return _failure("unsupported_grant_type", "grant_type: client_credentials", 400)
            client_id, secret = _client_of(request, form)
            made, scope = await asyncio.to_thread(
                services.access.token_for,
                client_id,
                secret,
                form.get("scope", ""),
                address_of(request),
            )
            principal = await services.access.authenticate(made, address_of(request))
        except (Unauthorized, Forbidden):
            return _failure("invalid_client", "the client or its secret is not good", 401)
        except InvalidInput as error:
            code = "invalid_scope" if error.code == "invalid_scope" else "invalid_request"
            return _failure(code, error.message, 400)
        except TallystickError as error:
            return _failure("temporarily_unavailable", error.message, error.http_status)
        request.state.principal = principal
        answer = respond(
            {
                "access_token": made,
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "scope": scope,
            }
        )
        answer.headers.update(_NO_STORE)
        return answer

    return token


def _read_form(request: Request, body: bytes) -> dict[str, str]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise InvalidInput("send application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise InvalidInput("the form cannot be read") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise InvalidInput("a parameter may be sent once")
    return form


def _client_of(request: Request, form: dict[str, str]) -> tuple[str, str]:
    """The client and its secret, from one place: the header or the form."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return form.get("client_id", ""), form.get("client_secret", "")
    if scheme.lower() != "basic" or "client_secret" in form:
        raise InvalidInput("authenticate the client in one way: Basic, or in the form")
    try:
        name, _, secret = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error) as error:
        raise Unauthorized("the client or its secret is not good") from error
    return unquote(name), unquote(secret)


def _failure(code: str, reason: str, status: int) -> Response:
    answer = respond({"error": code, "error_description": reason}, status)
    answer.headers.update(_NO_STORE)
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="tallystick"'
    return answer
