"""Access's words: a principal is who asks, once a key, token or session was checked."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """Who asks, and what they may: the answer of every check of a key, token or session."""

    subject: str
    """admin, key:<key id>, token:<issuer>#<subject>, client:<client id> or session:<user>."""
    roles: frozenset[str]
    permissions: frozenset[str]
    tenant_id: str = ""
    """Whose data; "" is the operator, who sees every tenant."""
    key_id: str = ""
    service_id: str = ""
    cost_center: str = ""
    account_id: str = ""
    """The account that gateway calls are charged to; "" means the tenant's id."""
    tier: str = ""
    """The rate limit tier."""
    attribution: Mapping[str, str] = {}
    """What the key or token says of its work (team, feature...); a caller cannot change it."""
    models: tuple[str, ...] = ()
    """Models that may be called; empty allows all."""

    def may(self, permission: str) -> bool:
        """Tell whether this principal has a permission."""
        return permission in self.permissions or "*" in self.permissions


OPERATOR = Principal("admin", frozenset({"admin"}), frozenset({"*"}))
"""Who has the bootstrap admin key: everything, in every tenant."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a key or client is given."""

    tenant_id: str = ""
    name: str = ""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    """Permissions beside those of the roles."""
    account_id: str = ""
    service_id: str = ""
    cost_center: str = ""
    tier: str = ""
    attribution: dict[str, str] = {}
    models: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """Networks in CIDR from which it may be used; empty allows all."""
    expires_at: int | None = None


class Credential(Grant, frozen=True, kw_only=True):
    """A key or client as stored: never its secret, only keyed hashes."""

    credential_id: str
    kind: str
    """key or client."""
    prefix: str
    hash: bytes
    old_hash: bytes | None
    old_until: int | None
    revoked_at: int | None
    created_at: int
    created_by: str
    used_at: int | None = None

    def is_live(self, now: int) -> bool:
        """Whether it is neither revoked nor over its time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def hashes(self, now: int) -> tuple[bytes, ...]:
        """What its secret may hash to: after a rotation the old one too, until its time is over."""
        if self.old_hash is not None and now < (self.old_until or 0):
            return (self.hash, self.old_hash)
        return (self.hash,)


class ProviderGrant(msgspec.Struct, frozen=True, kw_only=True):
    """An identity provider to be believed, and what its claims mean."""

    tenant_id: str = ""
    """Whose; "" (the operator's) takes the tenant from `tenant_claim`."""
    issuer: str
    audience: str
    jwks_url: str = ""
    jwks: str = ""
    """A JWK set as JSON, instead of a URL."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    tenant_claim: str = ""
    roles_claim: str = ""
    role_map: dict[str, str] = {}
    default_roles: tuple[str, ...] = ()
    attribution_claims: dict[str, str] = {}


class IdentityProvider(ProviderGrant, frozen=True, kw_only=True):
    """A provider as stored."""

    provider_id: str
    created_at: int
    created_by: str


class SigningKey(msgspec.Struct, frozen=True):
    """A key of our own issuer; `sealed` is the private part under the access secret."""

    key_id: str
    public_key: str
    sealed: bytes
    created_at: int
