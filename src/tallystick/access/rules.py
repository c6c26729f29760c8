"""Access's rules: which role may do what, and what a key or a token allows. Pure.

The table of roles is the whole truth: `docs/access.md` is tested against it, and a route whose
permission no role has fails a test.
"""

from __future__ import annotations

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
