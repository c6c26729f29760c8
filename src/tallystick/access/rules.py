"""Access's rules: which role may do what, and what a key or a token allows. Pure.

The table of roles is the whole truth: `docs/access.md` is tested against it, and a route whose
permission no role has fails a test.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from tallystick.access.model import Credential, Grant, IdentityProvider, Principal, ProviderGrant
from tallystick.bounds import ATTRIBUTION_MAX, ID_LENGTH_MAX
from tallystick.errors import Forbidden, InvalidInput, Unauthorized

LEEWAY_SECONDS = 30
"""By how much an identity provider's clock may differ from ours."""

TOKEN_SECONDS_MAX = 24 * 3600
"""No token of an identity provider is believed that is good for longer."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures by a private key; nothing that a published key could make."""

_LIST_MAX = 100
Network = IPv4Network | IPv6Network

PERMISSIONS = (
    "usage:write",
    "usage:read",
    "ledger:read",
    "ledger:write",
    "holds:write",
    "prices:read",
    "prices:write",
    "budgets:read",
    "budgets:write",
    "alerts:read",
    "alerts:write",
    "overrun:read",
    "overrun:write",
    "access:read",
    "access:write",
    "audit:read",
    "gateway:call",
    "operations:read",
    "operations:write",
)
"""Everything that a route may need."""

_LOOK = {"usage:read", "ledger:read", "prices:read", "budgets:read", "alerts:read", "overrun:read"}

ROLES: dict[str, frozenset[str]] = {
    "admin": frozenset(PERMISSIONS),
    "finance": frozenset(
        {*_LOOK, "ledger:write", "prices:write", "budgets:write", "alerts:write", "audit:read"}
    ),
    "support": frozenset({*_LOOK, "audit:read", "operations:read"}),
    "engineer": frozenset(
        {
            *_LOOK,
            *("usage:write", "holds:write", "gateway:call"),
            *("budgets:write", "alerts:write", "overrun:write", "operations:read"),
        }
    ),
    "viewer": frozenset(_LOOK),
    "service": frozenset(
        {"usage:write", "holds:write", "gateway:call", "ledger:read", "budgets:read"}
    ),
}
"""Role -> what it may do."""


def permissions_of(roles: Iterable[str], scopes: Iterable[str] = ()) -> frozenset[str]:
    """What roles and scopes allow together; an unknown role allows nothing."""
    return frozenset(scopes).union(*(ROLES.get(role, frozenset()) for role in roles))


def principal_of_credential(found: Credential) -> Principal:
    """Who a key or client is."""
    return Principal(
        subject=f"{found.kind}:{found.credential_id}",
        roles=frozenset(found.roles),
        permissions=permissions_of(found.roles, found.scopes),
        tenant_id=found.tenant_id,
        key_id=found.credential_id,
        service_id=found.service_id,
        cost_center=found.cost_center,
        account_id=found.account_id,
        tier=found.tier,
        attribution=found.attribution,
        models=found.models,
    )


def check_grant(grant: Grant, now: int) -> None:
    """Refuse what cannot be given to anybody; InvalidInput names the field."""
    _check_names(grant.roles, ROLES, "roles")
    _check_names(grant.scopes, PERMISSIONS, "scopes")
    for field in ("tenant_id", "name", "account_id", "service_id", "cost_center", "tier"):
        _check_text(getattr(grant, field), field)
    _check_attribution(grant.attribution)
    for model in grant.models:
        _check_text(model, "models")
    if max(len(grant.models), len(grant.addresses)) > _LIST_MAX:
        raise InvalidInput(f"models and addresses may have {_LIST_MAX} entries", field="models")
    read_networks(grant.addresses)
    if grant.expires_at is not None and grant.expires_at <= now:
        raise InvalidInput("expires_at must be in the future", field="expires_at")


def _check_names(given: Iterable[str], known: Collection[str], field: str) -> None:
    if any(name not in known for name in given):
        raise InvalidInput(f"{field} must be among {', '.join(known)}", field=field)


def _check_text(text: str, field: str) -> None:
    if len(text) > ID_LENGTH_MAX or not text.isprintable():
        raise InvalidInput(
            f"{field} may have {ID_LENGTH_MAX} printable characters", code="bad_id", field=field
        )


def _check_attribution(given: Mapping[str, str]) -> None:
    if len(given) > ATTRIBUTION_MAX:
        raise InvalidInput(f"attribution may have {ATTRIBUTION_MAX} names", field="attribution")
    for name, value in given.items():
        _check_text(name, "attribution")
        _check_text(value, "attribution")


def require_within(given: Grant, by: Principal) -> None:
    """Nobody gives what they have not: no other tenant, permission or model (Forbidden)."""
    if by.tenant_id and given.tenant_id != by.tenant_id:
        raise Forbidden("this key belongs to another tenant", code="tenant_mismatch")
    require_permissions(permissions_of(given.roles, given.scopes), by)
    if by.models and not (given.models and set(given.models) <= set(by.models)):
        raise Forbidden("models must be among those that you may call yourself")


def require_permissions(wanted: Collection[str], by: Principal) -> None:
    """Raise Forbidden naming the first permission that `by` has not."""
    missing = [one for one in PERMISSIONS if one in wanted and not by.may(one)]
    if missing:
        raise Forbidden(f"you may not give {missing[0]}: you do not have it", code="more_than_own")


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read an allow-list of addresses and networks in CIDR; InvalidInput."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise InvalidInput(
            "addresses must be like 192.0.2.7 or 192.0.2.0/24 or 2001:db8::/32", field="addresses"
        ) from error


def is_address_allowed(text: str, networks: Sequence[Network]) -> bool:
    """Tell whether an address is on an allow-list; an empty list allows all.

    >>> is_address_allowed("::ffff:192.0.2.7", read_networks(["192.0.2.0/24"]))
    True
    """
    if not networks:
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)


def check_provider(grant: ProviderGrant, by: Principal, own_issuer: str, *, is_lax: bool) -> None:
    """Refuse a provider that could not be believed, or that would give more than `by` has."""
    if by.tenant_id and grant.tenant_id != by.tenant_id:
        raise Forbidden("this key belongs to another tenant", code="tenant_mismatch")
    if not grant.tenant_id and not grant.tenant_claim:
        raise InvalidInput("name the tenant, or the claim that says it", field="tenant_id")
    if not grant.issuer or grant.issuer == own_issuer or "#" in grant.issuer:
        raise InvalidInput("issuer must be that of an identity provider", field="issuer")
    if not grant.audience:
        raise InvalidInput("audience must be what the tokens are made for", field="audience")
    if not grant.algorithms:
        raise InvalidInput("name an algorithm", field="algorithms")
    _check_names(grant.algorithms, ALGORITHMS, "algorithms")
    if bool(grant.jwks_url) == bool(grant.jwks):
        raise InvalidInput("give either jwks_url or jwks", field="jwks_url")
    if grant.jwks_url and urlsplit(grant.jwks_url).scheme not in ("https", *(["http"] * is_lax)):
        raise InvalidInput("jwks_url must begin with https://", field="jwks_url")
    roles = (*grant.role_map.values(), *grant.default_roles)
    _check_names(roles, ROLES, "role_map")
    if grant.roles_claim and not grant.role_map:
        raise InvalidInput("role_map says which value of the claim is which role", field="role_map")
    for field in ("tenant_id", "tenant_claim", "roles_claim"):
        _check_text(getattr(grant, field), field)
    for text in (grant.issuer, grant.audience, grant.jwks_url):
        if len(text) > 512 or not text.isprintable():
            raise InvalidInput("a URL or audience may have 512 characters", field="issuer")
    _check_attribution(grant.attribution_claims)
    require_permissions(permissions_of(roles), by)


def check_claims(
    claims: Mapping[str, Any], now_seconds: float, *, issuer: str, audience: str
) -> None:
    """Refuse a token that is not for us or not for now; its signature was checked before.

    Source: RFC 7519, 4.1; RFC 8725, 3.
    """
    if claims.get("iss") != issuer or not _names_audience(claims.get("aud"), audience):
        raise Unauthorized("the token was made for another audience")
    expires_at = _seconds(claims, "exp")
    if expires_at is None:
        raise Unauthorized("the token says no time at which it ends")
    if now_seconds >= expires_at + LEEWAY_SECONDS:
        raise Unauthorized("the token has run out", code="token_expired")
    if expires_at > now_seconds + TOKEN_SECONDS_MAX + LEEWAY_SECONDS:
        raise Unauthorized("the token is good for too long")
    begins_at = max(_seconds(claims, "nbf") or 0, _seconds(claims, "iat") or 0)
    if now_seconds < begins_at - LEEWAY_SECONDS:
        raise Unauthorized("the token is not good yet")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= ID_LENGTH_MAX:
        raise Unauthorized("the token says no subject")


def _names_audience(said: object, audience: str) -> bool:
    return said == audience or (isinstance(said, list) and audience in said)


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise Unauthorized(f"the token's {name} is no time")
    return value


def principal_of_claims(provider: IdentityProvider, claims: Mapping[str, Any]) -> Principal:
    """Who a checked token of an identity provider is, by the provider's mapping."""
    tenant_id = provider.tenant_id
    if provider.tenant_claim:
        said = claim_of(claims, provider.tenant_claim)
        if not isinstance(said, str) or not said or tenant_id not in ("", said):
            raise Unauthorized("the token does not say its tenant, or another one")
        _require_printable(said)
        tenant_id = said
    said_roles = claim_of(claims, provider.roles_claim) if provider.roles_claim else None
    values = said_roles.split() if isinstance(said_roles, str) else said_roles
    mapped = [
        provider.role_map[value]
        for value in (values if isinstance(values, list) else [])
        if isinstance(value, str) and value in provider.role_map
    ]
    roles = frozenset(mapped or provider.default_roles)
    attribution = {}
    for dimension, claim in provider.attribution_claims.items():
        found = claim_of(claims, claim)
        if isinstance(found, str) and found:
            _require_printable(found)
            attribution[dimension] = found
    return Principal(
        subject=f"token:{provider.issuer}#{claims['sub']}",  # an issuer has no #: check_provider
        roles=roles,
        permissions=permissions_of(roles),
        tenant_id=tenant_id,
        attribution=attribution,
    )


def _require_printable(text: str) -> None:
    if len(text) > ID_LENGTH_MAX or not text.isprintable():
        raise Unauthorized("a claim of the token is too long")


def claim_of(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by a path of names with dots; None when it is not said.

    >>> claim_of({"realm_access": {"roles": ["ops"]}}, "realm_access.roles")
    ['ops']
    """
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
