"""Routes of access: keys, OAuth clients, trusted identity providers, and who asks.

A secret is in the answer of the request that made it and nowhere else. Bodies take no field
that they do not name, so that nobody sets a tenant, prefix or hash by the way.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.access import Credential, Grant, IdentityProvider, ProviderGrant, client_id_of
from tallystick.api.requests import (
    principal_of,
    read_json,
    read_limit,
    read_moment,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.errors import InvalidInput

_NO_STORE = {"Cache-Control": "no-store"}


class CredentialBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/api-keys and /v1/oauth-clients."""

    name: str
    tenant_id: str = ""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    account_id: str = ""
    service_id: str = ""
    cost_center: str = ""
    tier: str = ""
    attribution: dict[str, str] = {}
    models: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    expires_at: str | None = None


class CredentialPatch(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PATCH: what is not named stays; expires_at null means never."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    roles: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    scopes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    account_id: str | msgspec.UnsetType = msgspec.UNSET
    service_id: str | msgspec.UnsetType = msgspec.UNSET
    cost_center: str | msgspec.UnsetType = msgspec.UNSET
    tier: str | msgspec.UnsetType = msgspec.UNSET
    attribution: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    models: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    addresses: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    expires_at: str | msgspec.UnsetType | None = msgspec.UNSET


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST .../rotate: how long the old secret stays good beside the new one."""

    overlap_seconds: int = 0


class ProviderBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/identity-providers; `jwks` is a JWK set instead of a URL."""

    issuer: str
    audience: str
    tenant_id: str = ""
    jwks_url: str = ""
    jwks: dict[str, Any] | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    tenant_claim: str = ""
    roles_claim: str = ""
    role_map: dict[str, str] = {}
    default_roles: tuple[str, ...] = ()
    attribution_claims: dict[str, str] = {}


def _moment(text: str | None) -> int | None:
    return None if text is None else read_moment(text, "expires_at")


def grant_of(body: CredentialBody, tenant_id: str) -> Grant:
    """What the body asks for, for a tenant."""
    if not body.name.strip():
        raise InvalidInput("name says what it is for", field="name")
    given = msgspec.structs.asdict(body)
    return Grant(**given | {"tenant_id": tenant_id, "expires_at": _moment(body.expires_at)})


async def _create(services: Services, request: Request, kind: str) -> Response:
    body = await read_json(request, CredentialBody)
    asked = grant_of(body, tenant_of(request, body.tenant_id))
    made, secret = await asyncio.to_thread(
        services.access.create, kind, asked, principal_of(request)
    )
    answer = respond(with_secret(made, secret), 201)
    answer.headers.update(_NO_STORE)
    return answer


async def _list(services: Services, request: Request, kind: str) -> Response:
    query = request.query_params
    limit = read_limit(query, 100)
    found = await asyncio.to_thread(
        services.access.page,
        kind,
        tenant_of(request, query.get("tenant_id", "")),
        query.get("cursor", ""),
        limit,
    )
    cursor = found[-1].credential_id if len(found) == limit else None
    name = "api_keys" if kind == "key" else "oauth_clients"
    return respond({name: [credential_json(one) for one in found], "next_cursor": cursor})


async def _get(services: Services, request: Request, kind: str) -> Response:
    found = await asyncio.to_thread(
        services.access.load, kind, request.path_params["credential_id"], principal_of(request)
    )
    return respond(credential_json(found))


async def _patch(services: Services, request: Request, kind: str) -> Response:
    body = await read_json(request, CredentialPatch)
    given = {
        name: value
        for name, value in msgspec.structs.asdict(body).items()
        if value is not msgspec.UNSET
    }
    if "expires_at" in given:
        given["expires_at"] = _moment(given["expires_at"])
    changed = await asyncio.to_thread(
        services.access.change,
        kind,
        request.path_params["credential_id"],
        given,
        principal_of(request),
    )
    return respond(credential_json(changed))


async def _delete(services: Services, request: Request, kind: str) -> Response:
    ended = await asyncio.to_thread(
        services.access.revoke, kind, request.path_params["credential_id"], principal_of(request)
    )
    return respond(credential_json(ended))


async def _rotate(services: Services, request: Request, kind: str) -> Response:
    body = await read_json(request, RotateBody, allow_empty=True)
    rotated, secret = await asyncio.to_thread(
        services.access.rotate,
        kind,
        request.path_params["credential_id"],
        body.overlap_seconds,
        principal_of(request),
    )
    answer = respond(with_secret(rotated, secret))
    answer.headers.update(_NO_STORE)
    return answer


async def post_api_key(services: Services, request: Request) -> Response:
    """Make a key."""
    return await _create(services, request, "key")


async def list_api_keys(services: Services, request: Request) -> Response:
    """Keys, newest first."""
    return await _list(services, request, "key")


async def get_api_key(services: Services, request: Request) -> Response:
    """One key."""
    return await _get(services, request, "key")


async def patch_api_key(services: Services, request: Request) -> Response:
    """Change what a key is given."""
    return await _patch(services, request, "key")


async def delete_api_key(services: Services, request: Request) -> Response:
    """Revoke a key."""
    return await _delete(services, request, "key")


async def post_api_key_rotate(services: Services, request: Request) -> Response:
    """Give a key a new secret."""
    return await _rotate(services, request, "key")


async def post_oauth_client(services: Services, request: Request) -> Response:
    """Make a client."""
    return await _create(services, request, "client")


async def list_oauth_clients(services: Services, request: Request) -> Response:
    """Clients, newest first."""
    return await _list(services, request, "client")


async def get_oauth_client(services: Services, request: Request) -> Response:
    """One client."""
    return await _get(services, request, "client")


async def patch_oauth_client(services: Services, request: Request) -> Response:
    """Change what a client is given."""
    return await _patch(services, request, "client")


async def delete_oauth_client(services: Services, request: Request) -> Response:
    """Revoke a client and the tokens that it was given."""
    return await _delete(services, request, "client")


async def post_oauth_client_rotate(services: Services, request: Request) -> Response:
    """Give a client a new secret."""
    return await _rotate(services, request, "client")


async def post_identity_provider(services: Services, request: Request) -> Response:
    """Believe an identity provider."""
    body = await read_json(request, ProviderBody)
    given = msgspec.structs.asdict(body)
    given["tenant_id"] = tenant_of(request, body.tenant_id)
    given["jwks"] = "" if body.jwks is None else msgspec.json.encode(body.jwks).decode()
    made = await asyncio.to_thread(
        services.access.trust, ProviderGrant(**given), principal_of(request)
    )
    return respond(provider_json(made), 201)


async def list_identity_providers(services: Services, request: Request) -> Response:
    """Identity providers."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    found = await asyncio.to_thread(services.access.providers, tenant_id)
    return respond({"identity_providers": [provider_json(one) for one in found]})


async def delete_identity_provider(services: Services, request: Request) -> Response:
    """Believe an identity provider no more."""
    provider_id = request.path_params["provider_id"]
    await asyncio.to_thread(services.access.distrust, provider_id, principal_of(request))
    return respond({"provider_id": provider_id, "status": "deleted"})


async def post_signing_key_rotate(services: Services, request: Request) -> Response:
    """Sign with a new key; tokens of the old one stay good until they end."""
    await asyncio.to_thread(services.access.issuer.rotate)
    keys = await asyncio.to_thread(services.access.issuer.public_keys)
    return respond({"keys": keys}, 201)


async def get_whoami(services: Services, request: Request) -> Response:
    """Who asks, and what they may."""
    principal = principal_of(request)
    answer = msgspec.to_builtins(principal)
    answer["roles"], answer["permissions"] = (
        sorted(principal.roles),
        sorted(principal.permissions),
    )
    return respond(answer)


def credential_json(found: Credential) -> dict[str, Any]:
    """Show a key or client, without its hashes."""
    id_name = "key_id" if found.kind == "key" else "id"
    moments = ("expires_at", "revoked_at", "created_at", "used_at", "old_until")
    return {
        id_name: found.credential_id,
        "prefix": found.prefix,
        **({"client_id": client_id_of(found)} if found.kind == "client" else {}),
        **{name: getattr(found, name) for name in Grant.__struct_fields__},
        "created_by": found.created_by,
        **{
            name: None if getattr(found, name) is None else format_time(getattr(found, name))
            for name in moments
        },
    }


def with_secret(found: Credential, secret: str) -> dict[str, Any]:
    """Show a key or client that was just made, with its secret, this once."""
    name = "key" if found.kind == "key" else "client_secret"
    return {**credential_json(found), name: secret}


def provider_json(found: IdentityProvider) -> dict[str, Any]:
    """Show an identity provider."""
    shown: dict[str, Any] = msgspec.to_builtins(found)
    shown["jwks"] = msgspec.json.decode(found.jwks) if found.jwks else None
    shown["created_at"] = format_time(found.created_at)
    return shown


_GIVEN = {"name": "checkout service", "roles": ["service"], "tenant_id": "acme"}
_KEY = {"key_id": "0190…", "prefix": "k3v9x0ab", **_GIVEN}
_CLIENT = {"id": "0190…", "client_id": "client-k3v9x0ab", **_GIVEN}
_PROVIDER = {"issuer": "https://login.acme.example", "audience": "tallystick", "tenant_id": "acme"}


def _entries(path: str, noun: str, routes: tuple[Any, ...], shown: Any, made: Any) -> Any:
    """The six routes of keys, or of clients."""
    post, every, one, patch, delete, rotate = routes
    by_id = f"{path}/{{credential_id}}"
    read, write = "access:read", "access:write"
    return (
        RouteEntry(
            "POST", path, post, f"Make an {noun}; its secret is shown once", made, 201,
            CredentialBody, _GIVEN, needs=write,
        ),
        RouteEntry(
            "GET", path, every, f"The {noun}s, newest first", {"next_cursor": None},
            query=("tenant_id", "cursor", "limit"), needs=read,
        ),
        RouteEntry("GET", by_id, one, f"One {noun}", shown, needs=read),
        RouteEntry(
            "PATCH", by_id, patch, f"Change what an {noun} is given", shown, 200,
            CredentialPatch, {"models": ["gpt-4o"]}, needs=write,
        ),
        RouteEntry("DELETE", by_id, delete, f"Revoke an {noun}, everywhere", shown, needs=write),
        RouteEntry(
            "POST", f"{by_id}/rotate", rotate, "A new secret; the old one good for a while", made,
            200, RotateBody, {"overlap_seconds": 3600}, needs=write,
        ),
    )  # fmt: skip


ROUTES: tuple[RouteEntry, ...] = (
    *_entries(
        "/v1/api-keys",
        "API key",
        (
            post_api_key,
            list_api_keys,
            get_api_key,
            patch_api_key,
            delete_api_key,
            post_api_key_rotate,
        ),
        _KEY,
        {**_KEY, "key": "ts_k3v9x0ab_…"},
    ),
    *_entries(
        "/v1/oauth-clients",
        "OAuth client",
        (
            post_oauth_client,
            list_oauth_clients,
            get_oauth_client,
            patch_oauth_client,
            delete_oauth_client,
            post_oauth_client_rotate,
        ),
        _CLIENT,
        {**_CLIENT, "client_secret": "tsc_k3v9x0ab_…"},
    ),
    RouteEntry(
        "POST",
        "/v1/identity-providers",
        post_identity_provider,
        "Believe the tokens of an identity provider",
        {"provider_id": "0190…", **_PROVIDER},
        201,
        ProviderBody,
        {**_PROVIDER, "jwks_url": "https://login.acme.example/jwks.json"},
        needs="access:write",
    ),
    RouteEntry(
        "GET",
        "/v1/identity-providers",
        list_identity_providers,
        "Identity providers that are believed",
        {"identity_providers": [{"provider_id": "0190…", **_PROVIDER}]},
        query=("tenant_id",),
        needs="access:read",
    ),
    RouteEntry(
        "DELETE",
        "/v1/identity-providers/{provider_id}",
        delete_identity_provider,
        "Believe an identity provider no more",
        {"provider_id": "0190…", "status": "deleted"},
        needs="access:write",
    ),
    RouteEntry(
        "POST",
        "/v1/signing-keys:rotate",
        post_signing_key_rotate,
        "Sign tokens with a new key; the old one stays published",
        {"keys": []},
        201,
        needs="access:write",
        is_for_operator=True,
    ),
    RouteEntry(
        "GET",
        "/v1/whoami",
        get_whoami,
        "Who asks, and what they may",
        {"subject": "key:0190…", "tenant_id": "acme", "permissions": ["usage:read"]},
        needs="",
    ),
)
"""Entries of the table of routes."""
