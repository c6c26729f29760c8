"""Access's words: a principal is who asks, once a key, token or session was checked."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """Who asks, and what they may: the answer of every check of a key, token or session."""

    subject: str
    """admin, key:<key id>, token:<issuer>/<subject>, client:<client id> or session:<user>."""
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
