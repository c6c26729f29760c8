"""Access: who asks, and what they may.

Owns keys, clients, trusted identity providers, tokens, roles and sessions. Never decides about
money. Keeps keyed hashes, never a key. Time: expiry is checked at every request, and a
revocation counts everywhere within a second.
"""

from tallystick.access.model import (
    OPERATOR,
    Credential,
    Grant,
    IdentityProvider,
    Principal,
    ProviderGrant,
)
from tallystick.access.rules import PERMISSIONS, ROLES
from tallystick.access.secret import AccessSecret
from tallystick.access.service import SESSION_HOURS, Access, client_id_of

__all__ = [
    "OPERATOR",
    "PERMISSIONS",
    "ROLES",
    "SESSION_HOURS",
    "Access",
    "AccessSecret",
    "Credential",
    "Grant",
    "IdentityProvider",
    "Principal",
    "ProviderGrant",
    "client_id_of",
]
