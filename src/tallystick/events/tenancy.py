"""Whose events a key may send: its own tenant's. Pure.

A message that says no tenant gets the key's; one of another tenant is refused by itself, and
kept as a broken message of the key's tenant, so that nobody can put anything before the eyes
of another one.
"""

from __future__ import annotations

from typing import Any

from tallystick.events.rules import Refused


def require_tenant(said: object, own: str) -> None:
    """Refuse another tenant than a key's own; "" is a key that may send for every tenant."""
    if own and said != own:
        raise Refused(
            "tenant_mismatch",
            "tenant_id is not that of the key that sent it; leave it out or use another key",
            "tenant_id",
        )


def with_tenant(decoded: Any, own: str) -> Any:
    """The message with the key's tenant where it says none, in each form that it may have.

    >>> with_tenant({"event_id": "e1"}, "acme")
    {'event_id': 'e1', 'tenant_id': 'acme'}
    """
    if not own or not isinstance(decoded, dict):
        return decoded
    if "specversion" in decoded:
        inner = decoded.get("data")
        return {**decoded, "data": with_tenant(inner, own)} if isinstance(inner, dict) else decoded
    is_flat = "event_type" not in decoded and decoded.keys() >= {"key", "timestamp", "amount"}
    name = "tenantId" if is_flat else "tenant_id"
    return decoded if decoded.get(name) not in (None, "") else {**decoded, name: own}
