"""Words of rate limits."""

from __future__ import annotations

import msgspec

KINDS = ("global", "tenant", "tier", "service", "key")
ASSETS = ("requests", "tokens")


class RateLimit(msgspec.Struct, frozen=True):
    """So many units a minute, and so many at once."""

    limit_id: str
    tenant_id: str
    """Whose callers it is for; "" is everyone's."""
    kind: str
    """global and tenant are pools that keys share fairly; the others are a caller's own."""
    name: str
    """Of the tier, service or key."""
    asset: str
    """requests or tokens."""
    per_minute: int
    burst: int
    weight: int = 1
    """A key's or tier's share of a pool under contention, in proportion."""


class Decision(msgspec.Struct, frozen=True):
    """Whether a request may go on, and the numbers of the limit that is the nearest."""

    allowed: bool
    limit: int = 0
    """Units a minute; 0: no limit applies."""
    remaining: int = 0
    reset_seconds: int = 0
    """Until the limit is as full as it gets."""
    retry_after: int = 0
    """Seconds; 0 when allowed."""
    decided_by: str = ""
    """rate_limit:<id>."""
    burst: int = 0


UNLIMITED = Decision(True)


def rate_headers(decision: Decision) -> dict[str, str]:
    """Where a caller stands with the nearest limit; nothing where none applies.

    >>> rate_headers(Decision(True, 60, 9, 51, 0, "rate_limit:x", 10))["RateLimit-Policy"]
    '60;w=60;burst=10'
    """
    if not decision.limit:
        return {}
    headers = {
        "RateLimit-Limit": str(decision.limit),
        "RateLimit-Remaining": str(decision.remaining),
        "RateLimit-Reset": str(decision.reset_seconds),
        "RateLimit-Policy": f"{decision.limit};w=60;burst={decision.burst}",
    }
    if not decision.allowed:
        headers["Retry-After"] = str(decision.retry_after)
    return headers
