"""The rules of access: grants, addresses, claims; nobody gives what they have not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tallystick.access import OPERATOR, PERMISSIONS, ROLES, Grant, IdentityProvider, ProviderGrant
from tallystick.access.model import Principal
from tallystick.access.rules import (
    check_claims,
    check_grant,
    check_provider,
    is_address_allowed,
    permissions_of,
    principal_of_claims,
    read_networks,
    require_within,
)
from tallystick.errors import Forbidden, InvalidInput, TallystickError, Unauthorized

NOW = 1_800_000_000
PROVIDER = IdentityProvider(
    provider_id="p",
    tenant_id="acme",
    issuer="https://idp.example",
    audience="tallystick",
    jwks_url="https://idp.example/jwks",
    roles_claim="realm_access.roles",
    role_map={"ops": "engineer", "cfo": "finance"},
    default_roles=("viewer",),
    attribution_claims={"team": "https://acme.example/team"},
    created_at=0,
    created_by="admin",
)
CLAIMS: dict[str, Any] = {
    "iss": PROVIDER.issuer,
    "aud": ["other", "tallystick"],
    "sub": "mia",
    "exp": NOW + 600,
    "iat": NOW,
    "realm_access": {"roles": ["ops", "unknown", 7]},
    "https://acme.example/team": "search",
}


def test_every_permission_is_some_roles_and_every_role_knows_its_own() -> None:
    assert set().union(*ROLES.values()) == set(PERMISSIONS)
    assert permissions_of(["viewer"], ["audit:read"]) == ROLES["viewer"] | {"audit:read"}
    assert permissions_of(["king"]) == frozenset()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"roles": ("king",)}, "invalid_input"),
        ({"scopes": ("*",)}, "invalid_input"),
        ({"addresses": ("10.0.0.1/8",)}, "invalid_input"),
        ({"name": "a\nb"}, "bad_id"),
        ({"attribution": {"team": "x" * 200}}, "bad_id"),
        ({"expires_at": NOW - 1}, "invalid_input"),
    ],
)
def test_a_grant_that_nobody_may_have(given: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_grant(Grant(tenant_id="acme", **given), NOW)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("given", "is_within"),
    [
        ({"roles": ("viewer",), "models": ("gpt-4o",)}, True),
        ({"roles": ("admin",), "models": ("gpt-4o",)}, False),
        ({"scopes": ("ledger:write",), "models": ("gpt-4o",)}, False),
        ({"roles": ("viewer",)}, False),  # every model is more than some
        ({"roles": ("viewer",), "models": ("o3",)}, False),
        ({"roles": ("viewer",), "models": ("gpt-4o",), "tenant_id": "globex"}, False),
        ({"roles": ("viewer",), "models": ("gpt-4o",), "tenant_id": ""}, False),
    ],
)
def test_nobody_gives_more_than_they_have(given: dict[str, Any], is_within: bool) -> None:
    by = Principal("key:1", frozenset(), ROLES["viewer"], "acme", models=("gpt-4o", "gpt-4o-mini"))
    grant = Grant(**{"tenant_id": "acme", **given})
    require_within(grant, OPERATOR)
    if is_within:
        require_within(grant, by)
    else:
        with pytest.raises(Forbidden):
            require_within(grant, by)


@pytest.mark.parametrize(
    ("address", "networks", "is_allowed"),
    [
        ("192.0.2.7", [], True),
        ("192.0.2.7", ["192.0.2.0/24"], True),
        ("192.0.3.7", ["192.0.2.0/24", "10.0.0.0/8"], False),
        ("::ffff:192.0.2.7", ["192.0.2.7"], True),
        ("2001:db8::1", ["2001:db8::/32"], True),
        ("192.0.2.7", ["2001:db8::/32"], False),
        ("", ["192.0.2.0/24"], False),
        ("testclient", ["192.0.2.0/24"], False),
    ],
)
def test_addresses(address: str, networks: list[str], is_allowed: bool) -> None:
    assert is_address_allowed(address, read_networks(networks)) == is_allowed


@pytest.mark.parametrize(
    ("change", "is_good"),
    [
        ({}, True),
        ({"aud": "tallystick"}, True),
        ({"aud": "other"}, False),
        ({"aud": None}, False),
        ({"iss": "https://else.example"}, False),
        ({"exp": None}, False),
        ({"exp": "soon"}, False),
        ({"exp": True}, False),
        ({"exp": float("inf")}, False),
        ({"exp": NOW - 29}, True),  # within the leeway
        ({"exp": NOW - 31}, False),
        ({"exp": NOW + 100 * 24 * 3600}, False),
        ({"nbf": NOW + 29}, True),
        ({"nbf": NOW + 31}, False),
        ({"iat": NOW + 31}, False),
        ({"sub": ""}, False),
        ({"sub": ["mia"]}, False),
        ({"sub": None}, False),
    ],
)
def test_claims(change: dict[str, Any], is_good: bool) -> None:
    claims = {name: value for name, value in {**CLAIMS, **change}.items() if value is not None}
    if is_good:
        check_claims(claims, NOW, issuer=PROVIDER.issuer, audience=PROVIDER.audience)
    else:
        with pytest.raises(Unauthorized):
            check_claims(claims, NOW, issuer=PROVIDER.issuer, audience=PROVIDER.audience)


def test_claims_become_a_principal_of_the_providers_tenant() -> None:
    found = principal_of_claims(PROVIDER, {**CLAIMS, "tenant_id": "globex", "scope": "*"})
    assert (found.tenant_id, found.subject) == ("acme", "token:https://idp.example#mia")
    assert found.roles == {"engineer"} and found.permissions == ROLES["engineer"]
    assert found.attribution == {"team": "search"}
    nobody = principal_of_claims(PROVIDER, {**CLAIMS, "realm_access": {"roles": "admin"}})
    assert nobody.roles == {"viewer"}


def test_a_tenant_claim_never_makes_an_operator() -> None:
    shared = replace(PROVIDER, tenant_id="", tenant_claim="org")
    assert principal_of_claims(shared, {**CLAIMS, "org": "globex"}).tenant_id == "globex"
    for said in ("", None, 7, ["globex"]):
        with pytest.raises(Unauthorized):
            principal_of_claims(shared, {**CLAIMS, "org": said})
    fixed = replace(PROVIDER, tenant_claim="org")
    with pytest.raises(Unauthorized):
        principal_of_claims(fixed, {**CLAIMS, "org": "globex"})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"algorithms": ("HS256",)}, InvalidInput),
        ({"algorithms": ("none",)}, InvalidInput),
        ({"algorithms": ()}, InvalidInput),
        ({"jwks_url": "http://idp.example/jwks"}, InvalidInput),
        ({"jwks_url": "file:///etc/passwd"}, InvalidInput),
        ({"jwks": "{}"}, InvalidInput),  # both
        ({"issuer": "http://own"}, InvalidInput),
        ({"issuer": "https://idp.example#x"}, InvalidInput),
        ({"tenant_id": ""}, Forbidden),
        ({"tenant_id": "globex"}, Forbidden),
        ({"default_roles": ("admin",)}, Forbidden),
        ({"role_map": {"x": "admin"}}, Forbidden),
        ({"role_map": {"x": "king"}}, InvalidInput),
    ],
)
def test_a_provider_that_may_not_be_trusted(
    change: dict[str, Any], error: type[TallystickError]
) -> None:
    by = Principal("key:1", frozenset(), ROLES["viewer"] | {"access:write"}, "acme")
    good = ProviderGrant(
        tenant_id="acme",
        issuer="https://idp.example",
        audience="a",
        jwks_url="https://idp.example/jwks",
        default_roles=("viewer",),
    )
    check_provider(good, by, "http://own", is_lax=False)
    with pytest.raises(error):
        check_provider(replace(good, **change), by, "http://own", is_lax=False)
